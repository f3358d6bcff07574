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
  return shares.map((share) => {
    const { name, device } = share
    const options = optionsOf(share)
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

function optionsOf(share: Share): Omit<SharedPort, 'name' | 'source'> {
  const { reset, pack, replayBytes, banner, idleTimeoutMs, watchers } = share
  const { line, flow, onOpen, onClose, openString, closeString } = share
  const settings = { ...line, ...(flow && { outputFlow: flow, inputFlow: flow }) }
  return {
    ...(reset && { reset }),
    ...(pack && { pack }),
    ...(replayBytes !== undefined && { replayBytes }),
    ...(banner !== undefined && { banner }),
    ...(idleTimeoutMs !== undefined && { idleTimeoutMs }),
    ...(watchers !== undefined && { watchers }),
    habits: {
      ...(Object.keys(settings).length > 0 && { settings }),
      ...(onOpen && { openLines: onOpen }),
      ...(onClose && { closeLines: onClose }),
      ...(openString !== undefined && { openString }),
      ...(closeString !== undefined && { closeString }),
    },
  }
}
