import type { CaptureStatus } from '../capture/capture-file.ts'
import type { Path, RelayStatus } from '../overlay/node.ts'
import type { HostedPortStatus } from '../session/hosted-port.ts'
import type { LinkStatus } from './links.ts'

/** How a daemon is. */
export interface DaemonStatus {
  /** Of farport. */
  readonly version: string
  readonly peerId: string
  readonly pid: number
  readonly uptimeMs: number
  readonly addresses: readonly string[]
  readonly ports: readonly (Omit<HostedPortStatus, 'holder'> & {
    /** The name of who holds it, or the PeerID of one that has none any more. */
    readonly holder?: string
    /** The best there is to the holder. */
    readonly path?: Path['kind']
    readonly capture?: CaptureStatus
  })[]
  readonly links: readonly LinkStatus[]
  readonly relays: readonly (Pick<RelayStatus, 'address' | 'state' | 'reason'> & {
    /** As it is called in trusted_peers. */
    readonly name?: string
  })[]
  /** Whoever is connected now, over the best path to each. */
  readonly peers: readonly {
    readonly name: string
    readonly peerId: string
    readonly path: Path['kind']
    readonly address: string
    /** Known while a port is used. */
    readonly roundTripMs?: number
  }[]
  /** Where metrics are, or were to be; absent where none are wanted. */
  readonly metrics?: MetricsStatus
}

export interface MetricsStatus {
  /** `http://127.0.0.1:9464/metrics`. */
  readonly at: string
  /** Why it can't be had there now. */
  readonly reason?: string
}

/** What a new configuration has changed. */
export interface ReloadReport {
  readonly ports: { readonly added: number; readonly removed: number; readonly kept: number }
  readonly links: { readonly added: number; readonly removed: number; readonly kept: number }
  /** Keys that have changed and count only from the next start on. */
  readonly nextStart: readonly string[]
}

/** One line for a person. */
export function summarize({ ports, links, relays }: DaemonStatus): string {
  const parts = [
    count(ports, 'port', 'ports', ({ state }) => state !== 'waiting', 'waiting for a device'),
    count(links, 'link', 'links', ({ state }) => state !== 'failed' && state !== 'down', 'down'),
    count(relays, 'relay', 'relays', ({ state }) => state === 'reserved', 'not reached'),
  ].filter((part) => part !== '')
  return parts.length === 0 ? 'nothing to share or to use yet' : parts.join(', ')
}

function count<T>(
  all: readonly T[],
  one: string,
  many: string,
  isWell: (item: T) => boolean,
  ill: string,
): string {
  if (all.length === 0) return ''
  const unwell = all.filter((item) => !isWell(item)).length
  return `${all.length} ${all.length === 1 ? one : many}${unwell > 0 ? ` (${unwell} ${ill})` : ''}`
}
