import { FarportError } from '../errors.ts'
import { type DiscoveredPort, listPorts } from './discovery.ts'
import { linuxPort } from './linux-port.ts'
import type { PortSource } from './port.ts'

/** `usb:0403:6001`, with `:SERIAL` where there are several of the kind. */
const USB_NAME = /^usb:([0-9a-f]{4}):([0-9a-f]{4})(?::(.+))?$/i

/**
 * A USB serial adapter by what it is, wherever it is plugged in and whatever the system calls it today. It is looked for
 * each time it is opened.
 * @throws FarportError ERR_USAGE for what is no such name
 */
export function usbPort(name: string, list: () => Promise<DiscoveredPort[]> = listPorts): PortSource {
  const [, vendorId = '', productId = '', serialNumber] = USB_NAME.exec(name) ?? []
  if (vendorId === '')
    throw new FarportError(
      'ERR_USAGE',
      `“${name}” names no USB adapter: write usb:VID:PID or usb:VID:PID:SERIAL, such as usb:0403:6001:A50285BI.`,
    )
  const matches = async () =>
    (await list()).filter(
      ({ usb }) =>
        usb?.vendorId === vendorId.toLowerCase() &&
        usb.productId === productId.toLowerCase() &&
        (serialNumber === undefined || usb.serialNumber === serialNumber),
    )
  return {
    description: { path: name, modemLines: true },
    present: async () => (await matches()).length > 0,
    async open(options) {
      const [found, ...others] = await matches()
      if (found === undefined)
        throw new FarportError(
          'ERR_DEVICE_ABSENT',
          `${name} is not plugged in: \`farport ports\` lists what is.`,
        )
      if (others.length > 0)
        throw new FarportError(
          'ERR_USAGE',
          `${name} is ${others.length + 1} adapters: ${[found, ...others].map(nameOf).join(', ')}. Say which by its serial number or its by-id link.`,
        )
      const { driver, usb } = found
      const description = { path: name, ...(driver && { driver }), ...(usb && { usb }) }
      return await linuxPort(nameOf(found), { description }).open(options)
    },
  }
}

/** The link that stays when it comes back under another number. */
function nameOf({ byId, path }: DiscoveredPort): string {
  return byId ?? path
}
