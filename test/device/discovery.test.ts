import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { FakeMachine } from '../support/fake-machine.ts'

test('an FTDI adapter, with the names that stay', async () => {
  await using machine = await FakeMachine.make()
  const adapter = await machine.usb('usb1', '1-2', 'ftdi_sio', {
    idVendor: '0403',
    idProduct: '6001',
    serial: 'A50285BI',
    manufacturer: 'FTDI',
    product: 'FT232R USB UART',
  })
  // usb-serial drivers put a device of their own bus between the interface and the tty.
  await machine.attributes(`${adapter}/ttyUSB0`, { port_number: '0' })
  await machine.driver(`${adapter}/ttyUSB0`, 'usb-serial', 'ftdi_sio')
  await machine.tty('ttyUSB0', `${adapter}/ttyUSB0`)
  await machine.link('dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0', 'dev/ttyUSB0')
  await machine.link('dev/serial/by-path/pci-0000:00:14.0-usb-0:2:1.0-port0', 'dev/ttyUSB0')

  assert.deepEqual(await machine.list(), [
    {
      path: join(machine.dev, 'ttyUSB0'),
      byId: join(machine.dev, 'serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0'),
      byPath: join(machine.dev, 'serial/by-path/pci-0000:00:14.0-usb-0:2:1.0-port0'),
      driver: 'ftdi_sio',
      usb: {
        vendorId: '0403',
        productId: '6001',
        serialNumber: 'A50285BI',
        manufacturer: 'FTDI',
        product: 'FT232R USB UART',
      },
    },
  ])
})

test('several adapters: in order, each its own, a cheap one without a serial number', async () => {
  await using machine = await FakeMachine.make()
  for (const [name, port, serial] of [
    ['ttyUSB10', '1-4', ''],
    ['ttyUSB2', '1-3', '0001'],
  ] as const) {
    const adapter = await machine.usb(`usb${port}`, port, 'cp210x', {
      idVendor: '10c4',
      idProduct: 'ea60',
      ...(serial && { serial }),
    })
    await machine.attributes(`${adapter}/${name}`, { port_number: '0' })
    await machine.driver(`${adapter}/${name}`, 'usb-serial', 'cp210x')
    await machine.tty(name, `${adapter}/${name}`)
  }
  assert.deepEqual(await machine.list(), [
    {
      path: join(machine.dev, 'ttyUSB2'),
      driver: 'cp210x',
      usb: { vendorId: '10c4', productId: 'ea60', serialNumber: '0001' },
    },
    {
      path: join(machine.dev, 'ttyUSB10'),
      driver: 'cp210x',
      usb: { vendorId: '10c4', productId: 'ea60' },
    },
  ])
})

test('a CDC ACM board, whose tty hangs right below the USB interface', async () => {
  await using machine = await FakeMachine.make()
  const board = await machine.usb('usb2', '2-1', 'cdc_acm', {
    idVendor: '2341',
    idProduct: '0043',
    serial: '85735313',
    manufacturer: 'Arduino (www.arduino.cc)',
  })
  await machine.tty('ttyACM0', board)
  assert.deepEqual(await machine.list(), [
    {
      path: join(machine.dev, 'ttyACM0'),
      driver: 'cdc_acm',
      usb: {
        vendorId: '2341',
        productId: '0043',
        serialNumber: '85735313',
        manufacturer: 'Arduino (www.arduino.cc)',
      },
    },
  ])
})

test('UARTs of the machine itself, old and new kernels', async () => {
  await using machine = await FakeMachine.make()
  // Before Linux 6.5 the tty hangs below the platform device.
  const pl011 = 'platform/soc/fe201000.serial'
  await machine.attributes(pl011, {})
  await machine.driver(pl011, 'amba', 'uart-pl011')
  await machine.tty('ttyAMA0', pl011, { type: '32' })
  const imx = 'platform/soc@0/30800000.bus/30890000.serial'
  await machine.attributes(imx, {})
  await machine.driver(imx, 'platform', 'imx-uart')
  await machine.tty('ttymxc0', imx, { type: '62' })
  // Since then two devices of the serial core lie between.
  const pnp = 'pnp0/00:00'
  await machine.attributes(`${pnp}/00:00:0/00:00:0.0`, {})
  await machine.driver(pnp, 'pnp', 'serial')
  await machine.driver(`${pnp}/00:00:0`, 'serial-base', 'ctrl')
  await machine.driver(`${pnp}/00:00:0/00:00:0.0`, 'serial-base', 'port')
  await machine.tty('ttyS0', `${pnp}/00:00:0/00:00:0.0`, { type: '4' })

  assert.deepEqual(await machine.list(), [
    { path: join(machine.dev, 'ttyAMA0'), driver: 'uart-pl011' },
    { path: join(machine.dev, 'ttymxc0'), driver: 'imx-uart' },
    { path: join(machine.dev, 'ttyS0'), driver: 'serial' },
  ])
})

test('what is no serial port is left out', async () => {
  await using machine = await FakeMachine.make()
  for (const name of ['tty', 'tty0', 'console', 'ptmx']) await machine.tty(name, '', { hardware: false })
  // A place that the 8250 driver keeps for a UART and found none in.
  await machine.attributes('platform/serial8250', {})
  await machine.driver('platform/serial8250', 'platform', 'serial8250')
  await machine.tty('ttyS1', 'platform/serial8250', { type: '0' })
  assert.deepEqual(await machine.list(), [])
})

test('what a container was not given is left out', async () => {
  await using machine = await FakeMachine.make()
  await machine.attributes('platform/uart', {})
  await machine.driver('platform/uart', 'platform', 'uart')
  await machine.tty('ttyS4', 'platform/uart', { type: '4' })
  assert.equal((await machine.list()).length, 1)
  await rm(join(machine.dev, 'ttyS4'))
  assert.deepEqual(await machine.list(), [])
})

test('a machine without a sysfs has no ports', async () => {
  await using machine = await FakeMachine.make()
  await rm(machine.sys, { recursive: true })
  await rm(machine.dev, { recursive: true })
  assert.deepEqual(await machine.list(), [])
})

test('of an adapter with several ports each says which it is, the first nothing', async () => {
  await using machine = await FakeMachine.make()
  const first = await machine.usb('usb1', '1-2', 'ftdi_sio', { idVendor: '0403', idProduct: '6011' })
  const second = first.replace(/:1\.0$/, ':1.1')
  await machine.attributes(second, { bInterfaceNumber: '01' })
  for (const [tty, at, port] of [
    ['ttyUSB0', first, '0'],
    ['ttyUSB1', second, '0'],
    ['ttyUSB2', second, '2'],
  ] as const) {
    await machine.attributes(`${at}/${tty}`, { port_number: port })
    await machine.tty(tty, `${at}/${tty}`)
  }
  assert.deepEqual(
    (await machine.list()).map(({ path, usbPart, usb }) => [path.slice(-7), usbPart, usb?.productId]),
    [
      ['ttyUSB0', undefined, '6011'],
      ['ttyUSB1', 'if01', '6011'],
      ['ttyUSB2', 'if01-port2', '6011'],
    ],
  )
})
