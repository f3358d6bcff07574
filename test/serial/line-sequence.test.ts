import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { parseReset } from '../../src/serial/line-sequence.ts'

test('a sequence is read step by step', () => {
  assert.deepEqual(parseReset('dtr-rts+/100ms/dtr+rts-/50ms/dtr-'), {
    name: 'dtr-rts+/100ms/dtr+rts-/50ms/dtr-',
    steps: [
      { type: 'lines', change: { dtr: false, rts: true } },
      { type: 'wait', ms: 100 },
      { type: 'lines', change: { dtr: true, rts: false } },
      { type: 'wait', ms: 50 },
      { type: 'lines', change: { dtr: false } },
    ],
    trigger: {
      type: 'steps',
      path: [
        { lines: { dtr: false, rts: true }, via: false },
        { lines: { dtr: true, rts: true }, via: true },
        { lines: { dtr: true, rts: false }, via: false },
        { lines: { dtr: false, rts: false }, via: false },
      ],
    },
  })
})

test('off is no profile, and each name is one', () => {
  assert.equal(parseReset('off'), undefined)
  for (const name of ['esp32', 'esp32-usb', 'arduino-1200']) assert.equal(parseReset(name)?.name, name)
})

test('what is none is refused with a sentence that says what would be right', () => {
  const wrong = [
    '',
    'ESP32',
    'constructor',
    'dtr+',
    'dtr+/10ms',
    'dtr+/dtr+',
    'dtr+dtr-/rts+',
    'dtr+rts+dtr-',
    'dtr+//dtr-',
    'dtr+/10/dtr-',
    'dtr+/1501ms/dtr-',
    'dtr+/1000ms/dtr-/501ms',
    `dtr+${'/rts+/rts-'.repeat(16)}`,
  ]
  for (const text of wrong)
    assert.throws(() => parseReset(text), { code: 'ERR_USAGE', message: /^reset= .*: write esp32, / }, text)
})

test('any text gives a profile, none, or that error', () => {
  const unit = fc.constantFrom('dtr', 'rts', '+', '-', '/', '100ms', '9', 'ms', 'x', ',')
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit })), (text) => {
      try {
        const profile = parseReset(text)
        const waits = profile?.steps.map((step) => (step.type === 'wait' ? step.ms : 0)) ?? []
        assert.ok(waits.reduce((sum, ms) => sum + ms, 0) <= 1500)
      } catch (error) {
        assert.ok(error instanceof FarportError)
      }
    }),
  )
})
