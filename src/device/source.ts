import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { PortDescription, PortSource } from '../serial/port.ts'
import { type SimulatedOptions, simulatedPort } from '../serial/simulated.ts'
import { parseTcpAddress } from '../serial/tcp-dial.ts'
import { tcpPort } from '../serial/tcp-port.ts'
import { deviceSearch, isSearched } from './device-search.ts'
import { foundPort } from './found-port.ts'
import { linuxPort } from './linux-port.ts'
import { packagePort } from './package-port.ts'

const SIMULATED = 'simulated:'
const TCP = 'tcp://'

/** COM1, and \\.\COM10 as Windows spells it inside. */
const WINDOWS_PORT = /^(\\\\\.\\)?COM\d+$/i

interface PortSourceOptions extends SimulatedOptions {
  /** What discovery knows of the device. */
  description?: Partial<PortDescription>
  platform?: NodeJS.Platform
  /** See LinuxPortOptions. */
  restoreLines?: boolean
  log?: Logger
}

/**
 * The port a person means: the path of a device, with `*` and `?` where one is to be looked for, `usb:VID:PID[:SERIAL]`,
 * `tcp://HOST:PORT`, or `simulated:` and what to simulate. Looks at nothing yet: whether the device is there shows in `present()` and `open()`.
 * @throws FarportError ERR_USAGE for what is neither.
 */
export function portSource(spec: string, options: PortSourceOptions = {}): PortSource {
  const { platform = process.platform, description = {}, restoreLines, log, ...simulated } = options
  if (spec.startsWith(SIMULATED)) return simulatedPort(spec.slice(SIMULATED.length), simulated)
  if (spec.startsWith(TCP)) return tcpPort(parseTcpAddress(spec.slice(TCP.length)))
  if (platform === 'win32') {
    if (WINDOWS_PORT.test(spec)) return packagePort(spec, { platform })
    throw new FarportError('ERR_USAGE', `“${spec}” is no serial port: name one like COM3, or simulated:gps.`)
  }
  const linux = { ...(log && { log }), ...(restoreLines !== undefined && { restoreLines }) }
  if (isSearched(spec) && platform === 'linux') return foundPort(spec, deviceSearch(spec), linux)
  if (!spec.startsWith('/'))
    throw new FarportError(
      'ERR_USAGE',
      `“${spec}” is no serial port: name one by its full path, like /dev/ttyUSB0, or simulated:gps.`,
    )
  return platform === 'linux' ? linuxPort(spec, { ...linux, description }) : packagePort(spec, { platform })
}
