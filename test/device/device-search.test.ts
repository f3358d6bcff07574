import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { deviceSearch, isSearched } from '../../src/device/device-search.ts'
import { FakeMachine } from '../support/fake-machine.ts'

/** Two of FTDI, one of them with no by-id link, and one of another maker. */
async function threeAdapters(): Promise<FakeMachine> {
  const machine = await FakeMachine.make()
  await machine.plug('1-1', 'ttyUSB0', { serial: 'A1', byId: 'usb-FTDI_FT232R_A1-if00-port0' })
  await machine.plug('1-2', 'ttyUSB1', { serial: 'B2', productId: '6015' })
  await machine.plug('1-3', 'ttyACM0', { vendorId: '2341', productId: '0043', byId: 'usb-Arduino_0043-if00' })
  await machine.tty('tty1', '', { hardware: false })
  return machine
}

test('a name finds what it stands for, by the link that stays where there is one', async () => {
  await using machine = await threeAdapters()
  const { dev } = machine
  const table: [name: string, found: string[]][] = [
    ['usb:0403:6001', ['usb-FTDI_FT232R_A1-if00-port0']],
    ['usb:0403:6015', ['ttyUSB1']],
    ['usb:0403:*', ['usb-FTDI_FT232R_A1-if00-port0', 'ttyUSB1']],
    ['usb:0403:*:B2', ['ttyUSB1']],
    ['usb:0403:*:?2', ['ttyUSB1']],
    ['usb:0403:*:A', []],
    ['usb:0403:0043', []],
    ['usb:2341:*', ['usb-Arduino_0043-if00']],
    // It has no serial number.
    ['usb:2341:*:*', []],
    [`${dev}/serial/by-id/usb-FTDI*`, ['usb-FTDI_FT232R_A1-if00-port0']],
    [`${dev}/serial/by-id/*`, ['usb-Arduino_0043-if00', 'usb-FTDI_FT232R_A1-if00-port0']],
    [`${dev}/ttyUSB?`, ['ttyUSB0', 'ttyUSB1']],
    // Not tty1, which is no serial port.
    [`${dev}/tty*`, ['ttyACM0', 'ttyUSB0', 'ttyUSB1']],
    [`${dev}/serial/by-id/usb-FTD[I]*`, []],
    [`${dev}/nowhere/*`, []],
  ]
  for (const [name, wanted] of table) {
    assert.ok(isSearched(name), name)
    const found = await deviceSearch(name, () => machine.list())()
    assert.deepEqual(
      found.map(({ path }) => basename(path)),
      wanted,
      name,
    )
  }
})

test('two links to one device are one device', async () => {
  await using machine = await threeAdapters()
  await machine.link('dev/serial/by-id/usb-FTDI_again', 'dev/ttyUSB0')
  const found = await deviceSearch(`${machine.dev}/serial/by-id/usb-FTDI*`, () => machine.list())()
  assert.equal(found.length, 1)
})

test('what is no such name is a mistake that says what would be right', () => {
  assert.throws(() => deviceSearch('usb:403'), {
    code: 'ERR_USAGE',
    message: /usb:0403:\* for all of a maker/,
  })
  assert.throws(() => deviceSearch('/dev/*/by-id/x'), { code: 'ERR_USAGE', message: /last part/ })
  assert.equal(isSearched('/dev/ttyUSB0'), false)
  assert.equal(isSearched('tcp://host:1'), false)
})

test('any name is a search or one kind of mistake, and no text is taken for a pattern of its own', async () => {
  const port = { path: '/dev/x', usb: { vendorId: '0403', productId: '6001', serialNumber: 'A1' } }
  await fc.assert(
    fc.asyncProperty(fc.string({ minLength: 1, unit: 'binary' }), async (serial) => {
      let found: readonly unknown[]
      try {
        found = await deviceSearch(`usb:0403:6001:${serial}`, async () => [port])()
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'ERR_USAGE')
        return
      }
      if (!/[*?]/.test(serial)) assert.equal(found.length, serial === 'A1' ? 1 : 0)
    }),
  )
})
