import packageJson from '../../package.json' with { type: 'json' }
import type { Overlay, Path } from '../overlay/node.ts'
import type { LinkGroups } from './link-groups.ts'
import type { MetricsEndpoint } from './metrics-endpoint.ts'
import type { PeerNames } from './peer-names.ts'
import type { Sharing } from './sharing.ts'
import type { DaemonStatus } from './status.ts'

/** What a daemon is made of, as far as it has something to tell. */
interface Parts {
  readonly overlay: Overlay
  readonly names: PeerNames
  readonly sharing: Sharing
  readonly links: LinkGroups
  readonly metrics: MetricsEndpoint
  /** Of performance.now(). */
  readonly startedAtMs: number
}

export async function gatherStatus(parts: Parts): Promise<DaemonStatus> {
  const { overlay, names, sharing, links, metrics, startedAtMs } = parts
  return {
    version: packageJson.version,
    peerId: overlay.peerId,
    pid: process.pid,
    uptimeMs: Math.round(performance.now() - startedAtMs),
    addresses: overlay.addresses(),
    ports: await sharing.statuses(overlay),
    links: links.statuses(),
    relays: overlay.relays().map(({ peerId, address, state, reason }) => {
      const name = names.of(peerId)
      return { address, state, ...(name !== undefined && { name }), ...(reason !== undefined && { reason }) }
    }),
    peers: peersNow(parts),
    ...(metrics.status && { metrics: metrics.status }),
  }
}

/** Whoever is connected, with the shortest round trip of what is used there or here. */
function peersNow({ overlay, names, sharing, links }: Parts): DaemonStatus['peers'] {
  const roundTrips = sharing.roundTrips()
  const used = links.statuses()
  return bestPaths(overlay.paths()).map(({ peerId, kind: path, remoteAddress: address }) => {
    const name = names.of(peerId) ?? peerId
    const ofLinks = used.filter(({ port }) => [name, peerId].includes(port.split('/')[0] as string))
    const known = [roundTrips.get(peerId), ...ofLinks.map((link) => link.roundTripMs)]
    const roundTripMs = Math.min(...known.filter((ms) => ms !== undefined))
    return { name, peerId, path, address, ...(Number.isFinite(roundTripMs) && { roundTripMs }) }
  })
}

/** Of each peer the first, which is the best. */
function bestPaths(paths: readonly Path[]): Path[] {
  return [...Map.groupBy(paths, ({ peerId }) => peerId).values()].map(([best]) => best as Path)
}
