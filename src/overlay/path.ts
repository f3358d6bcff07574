import type { Connection } from '@libp2p/interface'

/** How a peer is connected right now. */
export interface Path {
  /** Names the connection, as long as this process lives. */
  readonly id: string
  readonly peerId: string
  /** The other end's multiaddr as seen from here, without the PeerID: `/ip4/192.0.2.7/tcp/4001`. */
  readonly remoteAddress: string
  readonly kind: 'direct' | 'relayed'
  /** Who dialed. */
  readonly direction: 'inbound' | 'outbound'
  readonly encryption: string
  readonly muxer: string
  /** Milliseconds since 1970. */
  readonly openedAt: number
}

export function pathOf(connection: Connection): Path {
  const peerId = connection.remotePeer.toString()
  return {
    id: connection.id,
    peerId,
    remoteAddress: connection.remoteAddr.toString().replace(`/p2p/${peerId}`, ''),
    kind: connection.direct ? 'direct' : 'relayed',
    direction: connection.direction,
    encryption: connection.encryption ?? 'none',
    muxer: connection.multiplexer ?? 'none',
    openedAt: connection.timeline.open,
  }
}
