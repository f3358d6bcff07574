import type { Share } from '../config/config.ts'
import { createLog, type Logger } from '../log.ts'
import { listPorts } from '../serial/discovery.ts'
import type { Cables } from '../serial/simulated.ts'
import { portSource } from '../serial/source.ts'
import { parseTcpAddress } from '../serial/tcp-dial.ts'
import { foreignPort } from '../session/foreign-port.ts'
import type { SharedPort } from '../session/host.ts'

const RFC2217 = 'rfc2217://'

/** The ports that a config shares, with what is known of their devices; these need not be there. */
export async function sharedPorts(
  shares: readonly Share[],
  log: Logger = createLog('silent'),
): Promise<SharedPort[]> {
  // The two ends of a simulated cable meet here.
  const cables: Cables = new Map()
  const known = shares.length > 0 ? await listPorts() : []
  return shares.map(({ name, device, reset, pack, replayBytes }) => {
    const options = {
      ...(reset && { reset }),
      ...(pack && { pack }),
      ...(replayBytes !== undefined && { replayBytes }),
    }
    if (device.startsWith(RFC2217))
      return { name, source: foreignPort(parseTcpAddress(device.slice(RFC2217.length)), { log }), ...options }
    const found = known.find(({ path, byId, byPath }) => [path, byId, byPath].includes(device))
    const description = {
      ...(found?.driver && { driver: found.driver }),
      ...(found?.usb && { usb: found.usb }),
    }
    return { name, source: portSource(device, { cables, description }), ...options }
  })
}
