import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'
import { listPorts } from '../../src/serial/discovery.ts'

/** A made-up /sys and /dev, with folders, attributes and relative links as the kernel and udev lay them out. */
class Machine {
  readonly root: string
  readonly sys: string
  readonly dev: string

  constructor(root: string) {
    this.root = root
    this.sys = join(root, 'sys')
    this.dev = join(root, 'dev')
  }

  static async make(): Promise<Machine> {
    const machine = new Machine(await mkdtemp(join(tmpdir(), 'farport-')))
    await mkdir(join(machine.sys, 'class/tty'), { recursive: true })
    await mkdir(machine.dev)
    return machine
  }

  async attributes(device: string, values: Record<string, string>): Promise<void> {
    await mkdir(join(this.sys, 'devices', device), { recursive: true })
    for (const [name, value] of Object.entries(values))
      await writeFile(join(this.sys, 'devices', device, name), `${value}\n`)
  }

  async link(from: string, to: string): Promise<void> {
    await mkdir(dirname(join(this.root, from)), { recursive: true })
    await symlink(relative(dirname(join(this.root, from)), join(this.root, to)), join(this.root, from))
  }

  /** A tty as the kernel shows it: below its device where it has one, and linked from class/tty. */
  async tty(
    name: string,
    device: string,
    options: { hardware?: boolean; type?: string } = {},
  ): Promise<void> {
    const { hardware = true, type } = options
    const folder = hardware ? `${device}/tty/${name}` : `virtual/tty/${name}`
    await this.attributes(folder, { dev: '4:64', ...(type !== undefined && { type }) })
    if (hardware) await this.link(`sys/devices/${folder}/device`, `sys/devices/${device}`)
    await this.link(`sys/class/tty/${name}`, `sys/devices/${folder}`)
    await writeFile(join(this.dev, name.replaceAll('!', '-')), '')
  }

  async driver(device: string, bus: string, name: string): Promise<void> {
    await mkdir(join(this.sys, 'bus', bus, 'drivers', name), { recursive: true })
    await this.link(`sys/devices/${device}/driver`, `sys/bus/${bus}/drivers/${name}`)
  }

  /** A USB device with one interface. */
  async usb(bus: string, port: string, driver: string, identity: Record<string, string>): Promise<string> {
    const hub = `pci0000:00/0000:00:14.0/${bus}`
    await this.attributes(hub, { idVendor: '1d6b', idProduct: '0002', product: 'xHCI Host Controller' })
    const device = `${hub}/${port}`
    await this.attributes(device, identity)
    await this.attributes(`${device}/${port}:1.0`, { bInterfaceNumber: '00' })
    await this.driver(device, 'usb', 'usb')
    await this.driver(`${device}/${port}:1.0`, 'usb', driver)
    return `${device}/${port}:1.0`
  }

  list() {
    return listPorts({ sys: this.sys, dev: this.dev, platform: 'linux' })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.root, { recursive: true })
  }
}

test('an FTDI adapter, with the names that stay', async () => {
  await using machine = await Machine.make()
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
  await using machine = await Machine.make()
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
  await using machine = await Machine.make()
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
  await using machine = await Machine.make()
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
  await using machine = await Machine.make()
  for (const name of ['tty', 'tty0', 'console', 'ptmx']) await machine.tty(name, '', { hardware: false })
  // A place that the 8250 driver keeps for a UART and found none in.
  await machine.attributes('platform/serial8250', {})
  await machine.driver('platform/serial8250', 'platform', 'serial8250')
  await machine.tty('ttyS1', 'platform/serial8250', { type: '0' })
  assert.deepEqual(await machine.list(), [])
})

test('what a container was not given is left out', async () => {
  await using machine = await Machine.make()
  await machine.attributes('platform/uart', {})
  await machine.driver('platform/uart', 'platform', 'uart')
  await machine.tty('ttyS4', 'platform/uart', { type: '4' })
  assert.equal((await machine.list()).length, 1)
  await rm(join(machine.dev, 'ttyS4'))
  assert.deepEqual(await machine.list(), [])
})

test('a machine without a sysfs has no ports', async () => {
  await using machine = await Machine.make()
  await rm(machine.sys, { recursive: true })
  await rm(machine.dev, { recursive: true })
  assert.deepEqual(await machine.list(), [])
})
