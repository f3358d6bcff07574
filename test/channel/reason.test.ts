import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeReason, encodeReason } from '../../src/channel/reason.ts'
import { FarportError } from '../../src/errors.ts'

test('a FarportError arrives with its code and sentence', () => {
  const error = decodeReason(encodeReason(new FarportError('ERR_NOT_GRANTED', 'this peer may not use gps')))
  assert.equal(error?.code, 'ERR_NOT_GRANTED')
  assert.equal(error?.message, 'this peer may not use gps')
})

test('closing on purpose is no error', () => {
  assert.equal(decodeReason(encodeReason(null)), undefined)
  assert.equal(encodeReason(AbortSignal.abort().reason), '')
})

test('of another error the peer learns nothing', () => {
  const error = new Error('EACCES: permission denied, open /home/anna/.config/farport/key')
  assert.equal(encodeReason(error), 'ERR_INTERNAL internal error')
})

const strange = ['E', ' ', 'ERR_NOPE sentence', 'constructor x', '__proto__ x', 'ERR_INTERNAL', 'err_usage x']
for (const text of strange) {
  test(`"${text}" is some error with a sentence`, () => {
    const error = decodeReason(text)
    assert.equal(error?.code, 'ERR_INTERNAL')
    assert.notEqual(error?.message, '')
  })
}

test('what a peer says moves no cursor and turns no text around', () => {
  assert.equal(
    decodeReason('ERR_PORT_BUSY \u001b[2Jgone\n\u202egps')?.message,
    '\\u{1b}[2Jgone\\u{a}\\u{202e}gps',
  )
  fc.assert(
    fc.property(fc.string({ unit: fc.nat(0x2fff).map((c) => String.fromCodePoint(c)) }), (sentence) => {
      assert.doesNotMatch(decodeReason(`ERR_USAGE ${sentence}`)?.message ?? '', /[\p{Cc}\p{Cf}]/u)
    }),
  )
})
