import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CFLAG, Termios2 } from '../../src/device/termios.ts'
import { applySettings, makeRaw, readSettings } from '../../src/device/termios-settings.ts'
import { DEFAULT_SETTINGS, type SerialSettings } from '../../src/serial/settings.ts'

/** Every setting a termios can hold: flow by RTS/CTS is one switch, and the long stop bit is 1.5 with five data bits. */
const settings: fc.Arbitrary<SerialSettings> = fc
  .record({
    baudRate: fc.integer({ min: 1, max: 0xffff_ffff }),
    dataBits: fc.constantFrom(5, 6, 7, 8),
    parity: fc.constantFrom('none', 'odd', 'even', 'mark', 'space'),
    long: fc.boolean(),
    flow: fc.constantFrom(
      ['none', 'none'],
      ['xonxoff', 'none'],
      ['none', 'xonxoff'],
      ['xonxoff', 'xonxoff'],
      ['rtscts', 'rtscts'],
    ),
  } as const)
  .map(({ long, flow: [outputFlow, inputFlow], ...rest }) => ({
    ...rest,
    stopBits: long ? (rest.dataBits === 5 ? 1.5 : 2) : 1,
    outputFlow,
    inputFlow,
  }))

test('what is put into a termios is read from it', () => {
  fc.assert(
    fc.property(
      settings,
      settings,
      fc.uint8Array({ minLength: 44, maxLength: 44 }),
      (first, second, found) => {
        const termios = new Termios2(Buffer.from(found))
        makeRaw(termios)
        applySettings(termios, first, DEFAULT_SETTINGS)
        assert.deepEqual(readSettings(termios), first)
        applySettings(termios, second, first)
        assert.deepEqual(readSettings(termios), second)
      },
    ),
  )
})

const examples: {
  change: Partial<SerialSettings>
  from?: Partial<SerialSettings>
  to: Partial<SerialSettings>
}[] = [
  { change: { stopBits: 1.5 }, to: {} },
  { change: { stopBits: 1.5 }, from: { dataBits: 5 }, to: { dataBits: 5, stopBits: 1.5 } },
  { change: { stopBits: 1.5 }, from: { stopBits: 2 }, to: { stopBits: 2 } },
  { change: { dataBits: 5, stopBits: 1.5 }, to: { dataBits: 5, stopBits: 1.5 } },
  { change: { baudRate: 0 }, to: {} },
  { change: { baudRate: 2 ** 32 }, to: {} },
  { change: { outputFlow: 'dsr', inputFlow: 'dtr' }, to: {} },
  { change: { outputFlow: 'dcd' }, from: { outputFlow: 'xonxoff' }, to: { outputFlow: 'xonxoff' } },
  { change: { outputFlow: 'rtscts' }, to: { outputFlow: 'rtscts', inputFlow: 'rtscts' } },
  { change: { inputFlow: 'rtscts' }, to: { outputFlow: 'rtscts', inputFlow: 'rtscts' } },
  { change: { outputFlow: 'none' }, from: { outputFlow: 'rtscts', inputFlow: 'rtscts' }, to: {} },
  {
    change: { outputFlow: 'rtscts', inputFlow: 'xonxoff' },
    to: { outputFlow: 'rtscts', inputFlow: 'xonxoff' },
  },
]
for (const { change, from = {}, to } of examples) {
  test(`${JSON.stringify(change)} on ${JSON.stringify(from)} gives ${JSON.stringify(to)}`, () => {
    const before = { ...DEFAULT_SETTINGS, ...from }
    const termios = new Termios2()
    applySettings(termios, before, DEFAULT_SETTINGS)
    applySettings(termios, change, before)
    assert.deepEqual(readSettings(termios), { ...DEFAULT_SETTINGS, ...to })
  })
}

test('what a hang-up does stays as found', () => {
  for (const found of [CFLAG.HUPCL, 0]) {
    const termios = new Termios2()
    termios.cflag = found
    makeRaw(termios)
    assert.equal(termios.cflag & CFLAG.HUPCL, found)
  }
})
