import { access, readdir, readFile, readlink, realpath } from 'node:fs/promises'
import { basename, join, relative, sep } from 'node:path'
import type { UsbIdentity } from '../serial/port.ts'

/** A serial port of this machine: what can be known without opening it. */
export interface DiscoveredPort {
  /** "/dev/ttyUSB0", "COM3": changes when devices are plugged in another order. */
  path: string
  /** A link that names the device itself and stays: the one to put into a configuration. */
  byId?: string
  /** A link that names the socket the device is plugged into. */
  byPath?: string
  driver?: string
  usb?: UsbIdentity
  /** Which port of a USB device with several: `if01` by its interface, `port1` within that; absent for the first. */
  usbPart?: string
}

interface DiscoveryOptions {
  sys?: string
  dev?: string
  platform?: NodeJS.Platform
}

/** UARTs that a driver keeps a place for and never found say this in `type` (PORT_UNKNOWN in linux/serial_core.h). */
const NO_UART = '0'

/**
 * The serial ports of this machine, sorted by path. Opens none of them: opening raises DTR, and that resets many boards.
 *
 * On Linux it reads sysfs, because the serialport package asks udevadm, which containers and small systems don't have.
 * On other systems it asks that package (not tried there).
 */
export async function listPorts(options: DiscoveryOptions = {}): Promise<DiscoveredPort[]> {
  const { sys = '/sys', dev = '/dev', platform = process.platform } = options
  if (platform !== 'linux') return listByPackage()

  const root = await realpath(sys).catch(() => sys)
  const [names, byId, byPath] = await Promise.all([
    entries(join(sys, 'class/tty')),
    linksByTarget(join(dev, 'serial/by-id')),
    linksByTarget(join(dev, 'serial/by-path')),
  ])
  const ports = await Promise.all(
    names.map(async (name): Promise<DiscoveredPort | undefined> => {
      // sysfs writes a slash in a device's name as "!".
      const path = join(dev, name.replaceAll('!', '/'))
      const hardware = await readHardware(join(root, 'class/tty', name), root)
      // A container sees the machine's sysfs, but only the devices it was given.
      if (hardware === undefined || !(await exists(path))) return undefined
      const port: DiscoveredPort = { path, ...hardware }
      const id = byId.get(name)
      const socket = byPath.get(name)
      if (id !== undefined) port.byId = id
      if (socket !== undefined) port.byPath = socket
      return port
    }),
  )
  return ports
    .filter((port) => port !== undefined)
    .sort((a, b) => a.path.localeCompare(b.path, 'en', { numeric: true }))
}

/** Undefined where a tty is no serial port: a virtual terminal, a PTY, a UART that isn't there. */
async function readHardware(
  tty: string,
  sys: string,
): Promise<Omit<DiscoveredPort, 'path' | 'byId' | 'byPath'> | undefined> {
  const device = await realpath(join(tty, 'device')).catch(() => undefined)
  if (device === undefined || (await attribute(tty, 'type')) === NO_UART) return undefined
  const [driver, usb, usbPart] = await Promise.all([
    findDriver(device, sys),
    findUsb(device, sys),
    findUsbPart(device, sys),
  ])
  return { ...(driver && { driver }), ...(usb && { usb }), ...(usbPart && { usbPart }) }
}

/**
 * The driver of the device, or of what it sits on: since Linux 6.5 a UART's tty hangs below two devices of the serial core's
 * own bus, whose drivers, "port" and "ctrl", say nothing.
 */
async function findDriver(device: string, sys: string): Promise<string | undefined> {
  for (const folder of upwards(device, sys)) {
    const driver = await readlink(join(folder, 'driver')).catch(() => undefined)
    if (driver !== undefined && !driver.split(sep).includes('serial-base')) return basename(driver)
  }
  return undefined
}

/** The nearest ancestor that is a USB device, not one of its interfaces: it is the one with an idVendor. */
async function findUsb(device: string, sys: string): Promise<UsbIdentity | undefined> {
  for (const folder of upwards(device, sys)) {
    const vendorId = await attribute(folder, 'idVendor')
    const productId = await attribute(folder, 'idProduct')
    if (vendorId === undefined || productId === undefined) continue
    const [serialNumber, manufacturer, product] = await Promise.all(
      ['serial', 'manufacturer', 'product'].map((name) => attribute(folder, name)),
    )
    return {
      vendorId,
      productId,
      ...(serialNumber && { serialNumber }),
      ...(manufacturer && { manufacturer }),
      ...(product && { product }),
    }
  }
  return undefined
}

/** As udev counts in the names of its links: by the interface, and by the port where a driver has several on one. */
async function findUsbPart(device: string, sys: string): Promise<string | undefined> {
  const port = Number(await attribute(device, 'port_number'))
  for (const folder of upwards(device, sys)) {
    const digits = await attribute(folder, 'bInterfaceNumber')
    if (digits === undefined) continue
    return (
      [digits !== '00' && `if${digits}`, port > 0 && `port${port}`].filter(Boolean).join('-') || undefined
    )
  }
  return undefined
}

/** A folder and those above it, up to the root of sysfs. */
function* upwards(folder: string, root: string): Generator<string> {
  const steps = relative(root, folder).split(sep)
  for (let depth = steps.length; depth > 0; depth--) yield join(root, ...steps.slice(0, depth))
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

async function attribute(folder: string, name: string): Promise<string | undefined> {
  const text = await readFile(join(folder, name), 'utf8').catch(() => undefined)
  return text?.trim() || undefined
}

/** Links of a folder, by the name of the file that each points to. */
async function linksByTarget(folder: string): Promise<Map<string, string>> {
  const links = new Map<string, string>()
  for (const name of await entries(folder)) {
    const link = join(folder, name)
    const target = await readlink(link).catch(() => undefined)
    if (target !== undefined && !links.has(basename(target))) links.set(basename(target), link)
  }
  return links
}

async function entries(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(() => [])).sort()
}

async function listByPackage(): Promise<DiscoveredPort[]> {
  const { SerialPort } = await import('serialport')
  const ports = await SerialPort.list()
  return ports.map(({ path, vendorId, productId, serialNumber, manufacturer }) => {
    if (!vendorId || !productId) return { path }
    return {
      path,
      usb: {
        vendorId: vendorId.toLowerCase(),
        productId: productId.toLowerCase(),
        ...(serialNumber && { serialNumber }),
        ...(manufacturer && { manufacturer }),
      },
    }
  })
}
