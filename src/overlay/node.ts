import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { noise } from '@chainsafe/libp2p-noise'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import type { Connection, Libp2p } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import type { Multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { Dialer } from './dial.ts'
import { toDuplex } from './duplex.ts'
import { FrameError } from './frame-guard.ts'
import { createGater, type OnRefused } from './gater.ts'
import { libp2pLog } from './libp2p-log.ts'
import { checkListenAddresses, listenFailure } from './listen.ts'
import { type Path, pathOf } from './path.ts'
import { boundedYamux } from './yamux.ts'

export type { Path } from './path.ts'

/** What one protocol may have open on one connection, per direction. */
const MAX_STREAMS_PER_PROTOCOL = 512
/** How long a connected peer may take to accept a stream. */
const STREAM_TIMEOUT_MS = 5_000
/**
 * A connection that takes longer than this to open a stream may be dead without our knowing (the network under it has
 * changed), so a new one is dialed meanwhile.
 */
const HEDGE_MS = 1_000
/** A peer that is slow on so many connections is slow, not gone. */
const MAX_HEDGED = 4
/** Between being turned away and asking once more. */
const ASK_AGAIN_MS = 200

export interface OverlayOptions {
  /** The private key: 32 bytes as in RFC 8032. */
  seed: Uint8Array
  /** Multiaddrs to listen on: `/ip4/0.0.0.0/tcp/4001`. None: this node only dials. */
  listen: readonly string[]
  /** Further multiaddrs under which others reach us, such as a forwarded port. */
  announce?: readonly string[]
  /** Asked at each connection, in both directions. */
  admits: (peerId: string) => boolean
  /** Told each connection that a peer tried and did not get. */
  onRefused?: OnRefused
  log: Logger
}

interface OverlayEvents {
  /** A connection to a peer is there, */
  connect: [path: Path]
  /** or gone. The peer may have others. */
  disconnect: [path: Path]
}

interface OpenedStream {
  stream: Duplex
  path: Path
}

interface Wanted {
  peerId: string
  protocol: string
  addresses: readonly string[]
  signal: AbortSignal
}

/** What we use of libp2p's inside, handed to us as to any libp2p service. */
interface Transports {
  dial(address: Multiaddr, options: { signal: AbortSignal }): Promise<Connection>
  getAddrs(): Multiaddr[]
}

/**
 * Starts a node.
 * @throws FarportError ERR_USAGE for an address that is none, ERR_IN_USE when one is taken
 */
export async function createOverlay(options: OverlayOptions): Promise<Overlay> {
  const { seed, listen, announce = [], admits, onRefused, log } = options
  checkListenAddresses([...listen, ...announce])
  let transports: Transports | undefined
  let overlay: Overlay | undefined
  const node = await createLibp2p({
    start: false,
    privateKey: await generateKeyPairFromSeed('Ed25519', seed),
    addresses: { listen: [...listen], appendAnnounce: [...announce] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [boundedYamux()],
    connectionGater: createGater({
      admits,
      connectionsOf: (peerId) => overlay?.paths(peerId).length ?? 0,
      ...(onRefused && { onRefused }),
      log,
    }),
    connectionManager: {
      maxConnections: 4096,
      // libp2p's 10 and 5 lock out agents that share a NAT when they all come back after a restart of ours.
      maxIncomingPendingConnections: 256,
      inboundConnectionThreshold: 64,
    },
    // See SILENCE_MS in yamux.ts.
    connectionMonitor: { enabled: false },
    logger: libp2pLog(log),
    services: {
      transports: ({ transportManager }: { transportManager: Transports }) => {
        transports = transportManager
        return {}
      },
    },
  })
  overlay = new Overlay(node, transports as Transports, options)
  try {
    await node.start()
  } catch (error) {
    throw listenFailure(error, listen)
  }
  return overlay
}

/** This peer among its peers: connections made, kept and shared, streams opened and served. */
export class Overlay extends EventEmitter<OverlayEvents> implements AsyncDisposable {
  readonly peerId: string
  readonly #node: Libp2p
  readonly #transports: Transports
  readonly #announce: readonly string[]
  readonly #admits: (peerId: string) => boolean
  readonly #log: Logger
  readonly #dialer: Dialer
  readonly #closed = new AbortController()
  /** Connections on which the peer has opened or accepted a stream: it knows us. */
  readonly #accepted = new WeakSet<Connection>()

  /** For createOverlay. */
  constructor(node: Libp2p, transports: Transports, { announce = [], admits, log }: OverlayOptions) {
    super()
    this.peerId = node.peerId.toString()
    this.#node = node
    this.#transports = transports
    this.#announce = announce
    this.#admits = admits
    this.#log = log
    this.#dialer = new Dialer((address, dialOptions) => transports.dial(address, dialOptions))
    node.addEventListener('connection:open', ({ detail }) => this.#opened(detail))
  }

  /** Where others reach us, with our PeerID. */
  addresses(): string[] {
    const own = [...this.#announce, ...this.#transports.getAddrs().map(String)]
    return [...new Set(own)].map((address) => `${address}/p2p/${this.peerId}`)
  }

  /**
   * Serves a protocol.
   * @param serve gets each stream that a peer opens, and owns it
   */
  async handle(protocol: string, serve: (stream: Duplex, from: Path) => void): Promise<void> {
    await this.#node.handle(
      protocol,
      (stream, connection) => {
        this.#accepted.add(connection)
        serve(toDuplex(stream), pathOf(connection))
      },
      {
        maxInboundStreams: MAX_STREAMS_PER_PROTOCOL,
        maxOutboundStreams: MAX_STREAMS_PER_PROTOCOL,
        runOnLimitedConnection: true,
      },
    )
  }

  /**
   * Opens a stream to a peer, on the connection there is, else on a new one.
   * @throws FarportError ERR_NOT_TRUSTED when either side does not know the other, ERR_PEER_UNREACHABLE,
   *   ERR_PROTOCOL when the peer does not speak the protocol; the signal's reason
   */
  async open(
    peerId: string,
    protocol: string,
    { addresses, signal }: { addresses: readonly string[]; signal: AbortSignal },
  ): Promise<OpenedStream> {
    signal.throwIfAborted()
    this.#requireTrust(peerId)
    const over = new AbortController()
    const until = AbortSignal.any([signal, this.#closed.signal, over.signal])
    try {
      return await this.#openHedged({ peerId, protocol, addresses, signal: until })
    } catch (error) {
      signal.throwIfAborted()
      this.#closed.signal.throwIfAborted()
      throw error
    } finally {
      over.abort()
    }
  }

  /** How the peer, or all peers, are connected; the path that new streams take comes first. */
  paths(peerId?: string): Path[] {
    return this.#connections(peerId).map(pathOf)
  }

  /** Cuts every connection to the peer at once, with all that is open on them. */
  async disconnect(peerId: string, reason: string): Promise<void> {
    const cut = new FarportError('ERR_NOT_TRUSTED', `disconnected: ${reason}`)
    for (const connection of this.#connections(peerId)) connection.abort(cut)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new FarportError('ERR_PEER_UNREACHABLE', 'this node is closing'))
    await this.#node.stop()
  }

  async #openHedged(wanted: Wanted): Promise<OpenedStream> {
    const [connection, ...others] = this.#connections(wanted.peerId)
    if (connection === undefined) return await this.#openOnNew(wanted)
    const onOld = this.#openOn(connection, wanted)
    const answer = onOld.catch((error: FarportError) => error)
    const mayHedge = others.length + 1 < MAX_HEDGED
    const soon = await (mayHedge ? Promise.race([answer, hedge(wanted.signal)]) : answer)
    if (soon instanceof FarportError) {
      if (connection.status === 'open') throw soon
      return await this.#openOnNew(wanted)
    }
    if (soon !== undefined) return soon

    const both = [onOld, this.#openOnNew(wanted)]
    try {
      const first = await Promise.any(both)
      for (const other of both)
        other.then(
          (opened) => opened !== first && opened.stream.destroy(),
          () => {},
        )
      return first
    } catch (error) {
      throw (error as AggregateError).errors[1]
    }
  }

  async #openOnNew(wanted: Wanted): Promise<OpenedStream> {
    const { peerId, addresses, signal } = wanted
    for (let turnedAway = false; ; turnedAway = true) {
      const connection = await this.#dialer.dial(peerId, addresses, signal)
      try {
        return await this.#openOn(connection, wanted)
      } catch (error) {
        // Noise tells us who the peer is before it tells the peer who we are: one that does not want us closes then.
        if (signal.aborted || connection.status === 'open' || this.#accepted.has(connection)) throw error
        if (turnedAway)
          throw new FarportError(
            'ERR_NOT_TRUSTED',
            `${peerId} closed the connection as soon as it learnt who we are: it does not know this machine's key, ${this.peerId}. Add that to its trusted_peers`,
            { cause: error },
          )
      }
      // A peer that is just stopping closes like that, too, but then it is gone.
      await sleep(ASK_AGAIN_MS, undefined, { signal })
      this.#requireTrust(peerId)
    }
  }

  async #openOn(connection: Connection, { peerId, protocol, signal }: Wanted): Promise<OpenedStream> {
    const timeout = AbortSignal.timeout(STREAM_TIMEOUT_MS)
    try {
      const stream = await connection.newStream(protocol, {
        signal: AbortSignal.any([signal, timeout]),
        runOnLimitedConnection: true,
        maxOutboundStreams: MAX_STREAMS_PER_PROTOCOL,
      })
      this.#accepted.add(connection)
      return { stream: toDuplex(stream), path: pathOf(connection) }
    } catch (cause) {
      if ((cause as Error).name === 'UnsupportedProtocolError')
        throw new FarportError(
          'ERR_PROTOCOL',
          `${peerId} does not speak ${protocol}: it shares no ports, or is of another version`,
          { cause },
        )
      const why = timeout.aborted ? 'does not answer' : 'closed the connection'
      throw new FarportError('ERR_PEER_UNREACHABLE', `${peerId} ${why}`, { cause })
    }
  }

  #requireTrust(peerId: string): void {
    if (!this.#admits(peerId))
      throw new FarportError('ERR_NOT_TRUSTED', `${peerId} is not in trusted_peers: add its line to reach it`)
  }

  /** Live ones, the best first: direct before relayed, then the newest, since what is old may be dead. */
  #connections(peerId?: string): Connection[] {
    return this.#node
      .getConnections()
      .filter((c) => c.status === 'open' && (peerId === undefined || c.remotePeer.toString() === peerId))
      .sort((a, b) => Number(b.direct) - Number(a.direct) || b.timeline.open - a.timeline.open)
  }

  #opened(connection: Connection): void {
    const path = pathOf(connection)
    const log = this.#log.child({ peer: path.peerId, address: path.remoteAddress })
    // The trust file may have changed since the gater was asked.
    if (!this.#admits(path.peerId)) {
      connection.abort(new FarportError('ERR_NOT_TRUSTED', 'no longer admitted'))
      return
    }
    // That we could dial a peer does not yet mean that it lets us in.
    const level = path.direction === 'inbound' ? 'info' : 'debug'
    log[level]('connected')
    this.emit('connect', path)
    connection.addEventListener(
      'close',
      ({ error }) => {
        if (error instanceof FrameError) log.warn({ err: error }, 'cut off a peer that broke the rules')
        else log[level]({ reason: error?.message }, 'disconnected')
        this.emit('disconnect', path)
      },
      { once: true },
    )
  }
}

/** Answers undefined when it is time to try another connection. */
async function hedge(signal: AbortSignal): Promise<undefined> {
  await sleep(HEDGE_MS, undefined, { ref: false, signal }).catch(() => {})
}
