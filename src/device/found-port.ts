import { FarportError } from '../errors.ts'
import type { PortSource } from '../serial/port.ts'
import type { DeviceSearch } from './device-search.ts'
import { type LinuxPortOptions, linuxPort } from './linux-port.ts'

/**
 * The one device that a search finds, wherever it is plugged in and whatever the system calls it today. It is looked for
 * each time it is opened, and when it has gone, until it is back. Where there are several nobody guesses: then it is as
 * absent as where there is none.
 * @param name what it is called in messages and descriptions
 */
export function foundPort(name: string, search: DeviceSearch, options: LinuxPortOptions = {}): PortSource {
  const theOne = async () => {
    const [found, ...others] = await search()
    if (found === undefined)
      throw new FarportError(
        'ERR_DEVICE_ABSENT',
        `${name} is not plugged in: \`farport ports\` lists what is.`,
      )
    if (others.length > 0)
      throw new FarportError(
        'ERR_DEVICE_ABSENT',
        `${name} is ${others.length + 1} devices: ${[found, ...others].map(({ path }) => path).join(', ')}. Say which by its serial number or its by-id link.`,
      )
    return found
  }
  return {
    description: { path: name, modemLines: true, ...options.description },
    present: async () => (await search()).length === 1,
    async open(wanted) {
      const { path, port } = await theOne()
      const { driver, usb } = port
      const description = { path: name, ...(driver && { driver }), ...(usb && { usb }) }
      const locate = async () => (await theOne()).path
      return await linuxPort(path, { ...options, description, locate }).open(wanted)
    },
  }
}
