import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DiscoveredPort } from '../../src/serial/discovery.ts'
import { usbPort } from '../../src/serial/usb-port.ts'
import { ptyPair } from '../support/pty-pair.ts'

const ftdi = (path: string, serialNumber: string): DiscoveredPort => ({
  path,
  driver: 'ftdi_sio',
  usb: { vendorId: '0403', productId: '6001', serialNumber },
})

const skip = process.platform === 'linux' ? false : 'only Linux has these ttys'

test('an adapter is found by what it is, each time it is opened', { skip }, async () => {
  await using first = ptyPair()
  await using second = ptyPair()
  let plugged: DiscoveredPort[] = []
  const source = usbPort('usb:0403:6001', async () => plugged)
  assert.equal(await source.present(), false)
  await assert.rejects(source.open({}), { code: 'ERR_DEVICE_ABSENT', message: /not plugged in/ })

  for (const pty of [first, second]) {
    plugged = [{ path: '/dev/ttyS0' }, ftdi(pty.slavePath, 'A1')]
    assert.equal(await source.present(), true)
    await using port = await source.open({})
    assert.deepEqual(port.description.usb?.serialNumber, 'A1')
    assert.equal(port.description.path, 'usb:0403:6001')
    port.write('x')
    const [bytes] = (await new Promise((resolve) => pty.master.once('data', (...all) => resolve(all)))) as [
      Buffer,
    ]
    assert.equal(String(bytes), 'x')
  }
})

test('of two of a kind the serial number says which; without it nobody guesses', { skip }, async () => {
  await using pty = ptyPair()
  const plugged = [ftdi('/dev/ttyUSB0', 'A1'), ftdi(pty.slavePath, 'B2')]
  await using port = await usbPort('usb:0403:6001:B2', async () => plugged).open({})
  assert.equal(port.description.usb?.serialNumber, 'B2')
  await assert.rejects(usbPort('usb:0403:6001', async () => plugged).open({}), {
    code: 'ERR_USAGE',
    message: /is 2 adapters: \/dev\/ttyUSB0, .*serial number/,
  })
})
