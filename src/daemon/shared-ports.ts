import type { Share } from '../config/config.ts'
import { listPorts } from '../serial/discovery.ts'
import type { Cables } from '../serial/simulated.ts'
import { portSource } from '../serial/source.ts'
import type { SharedPort } from '../session/host.ts'

/** The ports that a config shares, with what is known of their devices; these need not be there. */
export async function sharedPorts(shares: readonly Share[]): Promise<SharedPort[]> {
  // The two ends of a simulated cable meet here.
  const cables: Cables = new Map()
  const known = shares.length > 0 ? await listPorts() : []
  return shares.map(({ name, device }) => {
    const found = known.find(({ path, byId, byPath }) => [path, byId, byPath].includes(device))
    const description = {
      ...(found?.driver && { driver: found.driver }),
      ...(found?.usb && { usb: found.usb }),
    }
    return { name, source: portSource(device, { cables, description }) }
  })
}
