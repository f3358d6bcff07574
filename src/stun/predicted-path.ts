import type { NatReport } from './nat-report.ts'

/** What a peer's surroundings let TCP do; only TCP carries farport's connections. */
export type Reach =
  /** Whoever knows the address can connect to it. */
  | 'open'
  /** The port that others see can be told beforehand, so both ends can connect at once (simultaneous open). */
  | 'punchable'
  /** Each destination sees another port: it can connect out, but nobody can aim at it. */
  | 'unpredictable'
  /** It gets out to the relay at best. */
  | 'closed'

/** `dial`: one connects to the other. `punch`: both connect at once. `relay`: there is no direct way. */
export type PredictedPath = 'dial' | 'punch' | 'relay'

/** Every class of peer, the most reachable first. */
export const REACHES: readonly Reach[] = ['open', 'punchable', 'unpredictable', 'closed']

export function reachOf({ tcp }: NatReport): Reach {
  if (tcp.state === 'blocked') return 'closed'
  if (tcp.filtering === 'endpoint-independent') return 'open'
  // A firewall without a NAT keeps out every port that nothing was sent to; where one is let in, all are.
  if (!tcp.translated && tcp.filtering !== 'address-and-port-dependent') return 'open'
  return tcp.mapping === 'endpoint-independent' ? 'punchable' : 'unpredictable'
}

/**
 * How two peers will talk once they have found out. Both ends of one LAN can dial each other whatever this says. A
 * router may yet refuse what the table promises: few do simultaneous open, and some forget it under load.
 */
export function predictedPath(ours: Reach, theirs: Reach): PredictedPath {
  if (ours === 'closed' || theirs === 'closed') return 'relay'
  if (ours === 'open' || theirs === 'open') return 'dial'
  return ours === 'punchable' && theirs === 'punchable' ? 'punch' : 'relay'
}
