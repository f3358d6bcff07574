import { readdir, realpath } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { FarportError } from '../errors.ts'
import { type DiscoveredPort, listPorts } from './discovery.ts'

/** A serial port that a search has found. */
export interface FoundDevice {
  /** To open it by: a link that stays, where there is one. */
  readonly path: string
  readonly port: DiscoveredPort
}

/** Looks at what is plugged in now, in the order of the devices' paths. Opens nothing. */
export type DeviceSearch = () => Promise<readonly FoundDevice[]>

/** `usb:0403:6001`, `usb:0403:*`, either with `:SERIAL`, in which `*` and `?` stand for what they do in a shell. */
const USB_NAME = /^usb:([0-9a-f]{4}):([0-9a-f]{4}|\*)(?::(.+))?$/i
const WILDCARD = /[*?]/
/** More than one machine has. */
const MAX_FOUND = 256

/** Whether a device is named by what it is, and so has to be looked for. */
export function isSearched(name: string): boolean {
  return name.startsWith('usb:') || (name.startsWith('/') && WILDCARD.test(name))
}

/**
 * The search that a name stands for: `usb:VID:PID[:SERIAL]`, or a path with `*` and `?` in its last part, such as
 * /dev/serial/by-id/usb-FTDI*.
 * @throws FarportError ERR_USAGE for what is neither
 */
export function deviceSearch(name: string, list: () => Promise<DiscoveredPort[]> = listPorts): DeviceSearch {
  if (name.startsWith('usb:')) return usbSearch(name, list)
  const folder = dirname(name)
  if (WILDCARD.test(folder))
    throw new FarportError('ERR_USAGE', `“${name}”: * and ? may stand in the last part of a path only.`)
  return async () => {
    const matches = patternOf(basename(name))
    const names = (await readdir(folder).catch(() => [])).filter((entry) => matches.test(entry)).sort()
    const byDevice = new Map<string, string>()
    for (const path of names.slice(0, MAX_FOUND).map((entry) => join(folder, entry))) {
      const device = await realpath(path).catch(() => undefined)
      // Two links may lead to one device.
      if (device !== undefined && !byDevice.has(device)) byDevice.set(device, path)
    }
    // What is no serial port, as most of /dev/tty* is not, was not meant.
    const found = await Promise.all(
      (await list()).map(async (port) => {
        const path = byDevice.get(await realpath(port.path).catch(() => port.path))
        return path === undefined ? undefined : { path, port }
      }),
    )
    return found.filter((device) => device !== undefined)
  }
}

function usbSearch(name: string, list: () => Promise<DiscoveredPort[]>): DeviceSearch {
  const [, vendorId = '', productId = '', serialNumber] = USB_NAME.exec(name) ?? []
  if (vendorId === '')
    throw new FarportError(
      'ERR_USAGE',
      `“${name}” names no USB adapter: write usb:VID:PID or usb:VID:PID:SERIAL, such as usb:0403:6001:A50285BI, or usb:0403:* for all of a maker.`,
    )
  const serial = serialNumber === undefined ? undefined : patternOf(serialNumber)
  return async () =>
    (await list())
      .filter(
        ({ usb }) =>
          usb?.vendorId === vendorId.toLowerCase() &&
          (productId === '*' || usb.productId === productId.toLowerCase()) &&
          (serial === undefined || (usb.serialNumber !== undefined && serial.test(usb.serialNumber))),
      )
      .slice(0, MAX_FOUND)
      .map((port) => ({ path: port.byId ?? port.path, port }))
}

function patternOf(wildcards: string): RegExp {
  const plain = wildcards.replaceAll(/[\\^$.|+()[\]{}]/g, '\\$&')
  return new RegExp(`^${plain.replaceAll(/\*+/g, '.*').replaceAll('?', '.')}$`, 's')
}
