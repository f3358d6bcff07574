import type { ConnectionGater, MultiaddrConnection } from '@libp2p/interface'
import type { Logger } from '../log.ts'

/**
 * Handshakes that one address may have under way at a time, so that it can't take the places of all. A relay's may be many
 * agents behind one router, which all come back at once; more of them would not be faster, for a handshake is work of the
 * processor, and those at the end of a longer queue give up waiting.
 */
const MAX_PENDING_PER_HOST = { usual: 32, relay: 64 }
/** A peer needs one connection, and for a time some more while its network changes. */
const MAX_CONNECTIONS_PER_PEER = 16
/** Refusals are logged once per peer in this time, */
const LOG_WINDOW_MS = 60_000
/** for so many peers: anybody can make up PeerIDs. */
const MAX_LOGGED = 20

/** `address` is the multiaddr the peer came from. */
export type OnRefused = (peerId: string, address: string, reason: string) => void

export interface GaterOptions {
  admits: (peerId: string) => boolean
  /** How many connections the peer has. */
  connectionsOf: (peerId: string) => number
  /** Relays may be dialed without being trusted; they get nothing by it. */
  isRelay?: (peerId: string) => boolean
  /** Whether this relay was asked to hand us callers. */
  takesCallsFrom?: (relayId: string) => boolean
  /** Whether this node is a relay. */
  relays?: boolean
  /** Told each refusal of a peer; the log gets fewer. */
  onRefused?: OnRefused
  log: Logger
  /** Milliseconds. */
  clock?: () => number
}

/**
 * Lets in, and dials, only peers that are admitted. Inbound, the question is asked when Noise has proven who the peer is
 * and before it gets a muxer: strangers never reach code that handles streams.
 */
export function createGater(options: GaterOptions): ConnectionGater {
  const { admits, connectionsOf, isRelay, takesCallsFrom, relays, onRefused, log, clock = Date.now } = options
  const pending = new PendingHandshakes(relays ? MAX_PENDING_PER_HOST.relay : MAX_PENDING_PER_HOST.usual)
  const refusals = new RefusalLog(log, clock)
  return {
    denyInboundConnection(connection) {
      return !pending.begin(connection)
    },
    denyInboundEncryptedConnection(peer, connection) {
      pending.end(connection)
      const peerId = peer.toString()
      const why = !admits(peerId)
        ? 'it is not in trusted_peers'
        : connectionsOf(peerId) >= MAX_CONNECTIONS_PER_PEER
          ? 'it has too many connections already'
          : undefined
      if (why === undefined) return false
      const address = connection.remoteAddr.toString()
      refusals.add(peerId, address, why)
      onRefused?.(peerId, address, why)
      return true
    },
    denyOutboundConnection(peer) {
      const peerId = peer.toString()
      return !admits(peerId) && !isRelay?.(peerId)
    },
    // Who calls through it is asked like everybody else: at denyInboundEncryptedConnection, when Noise has proven it.
    denyInboundRelayedConnection(relay) {
      return !takesCallsFrom?.(relay.toString())
    },
  }
}

class PendingHandshakes {
  readonly #perHost = new Map<string, number>()
  readonly #hostOf = new WeakMap<MultiaddrConnection, string>()
  readonly #maxPerHost: number

  constructor(maxPerHost: number) {
    this.#maxPerHost = maxPerHost
  }

  begin(connection: MultiaddrConnection): boolean {
    const host = connection.remoteAddr.getComponents()[0]?.value ?? ''
    const count = this.#perHost.get(host) ?? 0
    if (count >= this.#maxPerHost) return false
    this.#perHost.set(host, count + 1)
    this.#hostOf.set(connection, host)
    connection.addEventListener('close', () => this.end(connection), { once: true })
    return true
  }

  end(connection: MultiaddrConnection): void {
    const host = this.#hostOf.get(connection)
    if (host === undefined) return
    this.#hostOf.delete(connection)
    const count = (this.#perHost.get(host) ?? 0) - 1
    if (count > 0) this.#perHost.set(host, count)
    else this.#perHost.delete(host)
  }
}

class RefusalLog {
  readonly #log: Logger
  readonly #clock: () => number
  readonly #logged = new Set<string>()
  #unlogged = 0
  #sinceMs = Number.NEGATIVE_INFINITY

  constructor(log: Logger, clock: () => number) {
    this.#log = log
    this.#clock = clock
  }

  add(peer: string, address: string, why: string): void {
    const now = this.#clock()
    if (now - this.#sinceMs >= LOG_WINDOW_MS) {
      if (this.#unlogged > 0) this.#log.warn({ count: this.#unlogged }, 'refused more connections')
      this.#logged.clear()
      this.#unlogged = 0
      this.#sinceMs = now
    }
    if (this.#logged.has(peer) || this.#logged.size >= MAX_LOGGED) {
      this.#unlogged++
      return
    }
    this.#logged.add(peer)
    this.#log.warn({ peer, address, why }, 'refused a connection')
  }
}
