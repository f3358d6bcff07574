import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import type { ComponentLogger, Connection, Libp2p, Upgrader } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { isAlive } from './alive.ts'
import { circuit } from './circuit.ts'
import { HOP_PROTOCOL } from './circuit-message.ts'
import { corkedTcp } from './corked-tcp.ts'
import { Dialer } from './dial.ts'
import { toDuplex } from './duplex.ts'
import { FrameError } from './frame-guard.ts'
import { createGater, type OnRefused } from './gater.ts'
import { KnownRelays } from './known-relays.ts'
import { leanNoise } from './lean-noise.ts'
import { libp2pLog } from './libp2p-log.ts'
import { checkListenAddresses, listenFailure } from './listen.ts'
import { watchNetwork } from './network-watch.ts'
import { MAX_STREAMS_PER_PROTOCOL, type OpenedStream, Opener } from './open.ts'
import { type Path, pathOf } from './path.ts'
import { groupRelays, isRelayed } from './relay-address.ts'
import { MAX_HOP_STREAMS, type RelayPolicy, RelayServer } from './relay-server.ts'
import { type RelayStatus, Reservations } from './reservations.ts'
import { type SocketRole, upgradeSocket } from './socket-connection.ts'
import { boundedYamux } from './yamux.ts'

export type { Path } from './path.ts'
export type { RelayPolicy } from './relay-server.ts'
export type { RelayStatus } from './reservations.ts'

/** How long a connection that may be dead has to show that it is not. */
const CHECK_TIMEOUT_MS = 3_000

/** Connections that one address may make per second, and handshakes that may be under way in all. */
const KNOCKING = {
  // libp2p's 5 and 10 lock out agents that share a NAT when they all come back after a restart of ours.
  usual: { inboundConnectionThreshold: 64, maxIncomingPendingConnections: 256 },
  // A relay may have all its agents behind one address. Turning the surplus away at once, so that it comes again, lets
  // those that were let in finish in time; with a thousand handshakes under way at once none does.
  relay: { inboundConnectionThreshold: 1024, maxIncomingPendingConnections: 256 },
}

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
  /**
   * Relays to keep a connection and a reservation at: `/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…`. One relay may be named by
   * several addresses.
   */
  relays?: readonly string[]
  /** Makes this node a relay. */
  relayPolicy?: RelayPolicy
  log: Logger
}

interface OverlayEvents {
  /** A connection to a peer is there, */
  connect: [path: Path]
  /** or gone. The peer may have others. */
  disconnect: [path: Path]
  /** How we stand with one of our relays has changed. */
  relay: [status: RelayStatus]
}

/** What we use of libp2p's inside, handed to us as to any libp2p service. */
interface Inside {
  transportManager: {
    dial(address: Multiaddr, options: { signal: AbortSignal }): Promise<Connection>
    getAddrs(): Multiaddr[]
    getListeners(): unknown[]
  }
  upgrader: Upgrader
  logger: ComponentLogger
}

/**
 * Starts a node. Relays that can't be reached don't keep it from starting.
 * @throws FarportError ERR_USAGE for an address that is none, ERR_IN_USE when one is taken
 */
export async function createOverlay(options: OverlayOptions): Promise<Overlay> {
  const { seed, listen, announce = [], admits, onRefused, relayPolicy, log } = options
  checkListenAddresses([...listen, ...announce])
  const ours = groupRelays(options.relays ?? [])
  const knownRelays = new KnownRelays(ours.keys())
  let inside: Inside | undefined
  // Set before the node starts, which is before anybody asks.
  let overlay: Overlay
  const node = await createLibp2p({
    start: false,
    privateKey: await generateKeyPairFromSeed('Ed25519', seed),
    addresses: { listen: [...listen], appendAnnounce: [...announce] },
    transports: [
      corkedTcp(),
      circuit({
        connectionsTo: (peerId) => overlay.directTo(peerId),
        dialRelay: (peerId, address, signal) => overlay.dial(peerId, [address], signal),
        takesCallsFrom: (relayId) => knownRelays.isOurs(relayId),
      }),
    ],
    connectionEncrypters: [leanNoise()],
    streamMuxers: [boundedYamux()],
    connectionGater: createGater({
      admits,
      connectionsOf: (peerId) => overlay.paths(peerId).length,
      isRelay: (peerId) => knownRelays.has(peerId),
      takesCallsFrom: (relayId) => knownRelays.isOurs(relayId),
      relays: relayPolicy !== undefined,
      ...(onRefused && { onRefused }),
      log,
    }),
    connectionManager: {
      maxConnections: 4096,
      ...(relayPolicy === undefined ? KNOCKING.usual : KNOCKING.relay),
    },
    // See SILENCE_MS in yamux.ts.
    connectionMonitor: { enabled: false },
    logger: libp2pLog(log),
    services: {
      inside: ({ transportManager, upgrader, logger }: Inside) => {
        inside = { transportManager, upgrader, logger }
        return {}
      },
    },
  })
  overlay = new Overlay(node, inside as Inside, { ...options, ours, knownRelays })
  try {
    if (relayPolicy !== undefined) await overlay.serveAsRelay(relayPolicy)
    await node.start()
  } catch (error) {
    throw listenFailure(error, listen)
  }
  overlay.keepReservations()
  return overlay
}

/** This peer among its peers: connections made, kept and shared, streams opened and served. */
export class Overlay extends EventEmitter<OverlayEvents> implements AsyncDisposable {
  readonly peerId: string
  readonly #node: Libp2p
  readonly #inside: Inside
  readonly #announce: readonly string[]
  readonly #admits: (peerId: string) => boolean
  readonly #log: Logger
  readonly #knownRelays: KnownRelays
  readonly #reservations: Reservations
  readonly #opener: Opener
  readonly #dialer: Dialer
  readonly #closed = new AbortController()
  /** Connections that are being asked for a sign of life. */
  readonly #checked = new WeakSet<Connection>()
  /** Sockets that others can call, at the start. */
  #listensOn = 0

  /** For createOverlay. */
  constructor(
    node: Libp2p,
    inside: Inside,
    options: OverlayOptions & { ours: ReadonlyMap<string, readonly string[]>; knownRelays: KnownRelays },
  ) {
    super()
    const { announce = [], admits, log, ours, knownRelays } = options
    this.peerId = node.peerId.toString()
    this.#node = node
    this.#inside = inside
    this.#announce = announce
    this.#admits = admits
    this.#log = log
    this.#knownRelays = knownRelays
    this.#dialer = new Dialer(
      (address, dialOptions) => inside.transportManager.dial(address, dialOptions),
      this.#closed.signal,
    )
    this.#opener = new Opener({
      peerId: this.peerId,
      connectionsTo: (peerId) => this.#connections(peerId),
      dial: (peerId, addresses, signal) => this.dial(peerId, addresses, signal),
      requireTrust: (peerId) => this.#requireTrust(peerId),
      onSlow: (connection) => this.#check(connection),
    })
    this.#reservations = new Reservations({
      relays: ours,
      connectionsTo: (peerId) => this.directTo(peerId),
      connect: (peerId, addresses, signal) => this.dial(peerId, addresses, signal),
      onChange: (status) => this.emit('relay', status),
      log,
    })
    node.addEventListener('connection:open', ({ detail }) => this.#opened(detail))
  }

  /** For createOverlay. */
  async serveAsRelay(policy: RelayPolicy): Promise<void> {
    const addresses = () => this.#directAddresses().map((address) => multiaddr(address))
    const server = new RelayServer(policy, addresses, this.#log)
    await this.#node.handle(HOP_PROTOCOL, (stream, connection) => server.serve(stream, connection), {
      maxInboundStreams: MAX_HOP_STREAMS,
      maxOutboundStreams: MAX_HOP_STREAMS,
    })
  }

  /** For createOverlay. */
  keepReservations(): void {
    this.#listensOn = this.#listeners()
    this.#reservations.start()
    watchNetwork(() => this.#reservations.networkChanged(), this.#closed.signal)
  }

  /** Where others reach us, with our PeerID: directly, and through relays that hold a reservation now. */
  addresses(): string[] {
    const relayed = this.#reservations.addresses().map((relay) => `${relay}/p2p-circuit/p2p/${this.peerId}`)
    return [...this.#directAddresses(), ...relayed]
  }

  /** Whether every address we were to listen on is still listened on. */
  isListening(): boolean {
    return this.#node.status === 'started' && this.#listeners() >= this.#listensOn
  }

  /** How we stand with each of our relays. */
  relays(): RelayStatus[] {
    return this.#reservations.statuses()
  }

  /**
   * Serves a protocol.
   * @param serve gets each stream that a peer opens, and owns it
   */
  async handle(protocol: string, serve: (stream: Duplex, from: Path) => void): Promise<void> {
    await this.#node.handle(
      protocol,
      (stream, connection) => {
        this.#opener.accept(connection)
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
   * Opens a stream to a peer: on the best connection there is, on another when that one does not answer, else on a new
   * one, for which direct addresses and those through relays race.
   * @param options.early what is said on it first, without waiting for the peer to agree to the protocol. It may be said
   *   on more than one stream, of which the others are closed.
   * @throws FarportError ERR_NOT_TRUSTED when either side does not know the other, ERR_PEER_UNREACHABLE,
   *   ERR_PROTOCOL when the peer does not speak the protocol; the signal's reason
   */
  async open(
    peerId: string,
    protocol: string,
    { addresses, early, signal }: { addresses: readonly string[]; early?: Uint8Array; signal: AbortSignal },
  ): Promise<OpenedStream> {
    signal.throwIfAborted()
    this.#requireTrust(peerId)
    const over = new AbortController()
    const until = AbortSignal.any([signal, this.#closed.signal, over.signal])
    try {
      return await this.#opener.open({ peerId, protocol, addresses, ...(early && { early }), signal: until })
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

  /** Ends a path that may be dead, unless the peer gives a sign of life on it. */
  check(path: Path): void {
    for (const connection of this.#connections(path.peerId))
      if (connection.id === path.id) this.#check(connection)
  }

  /**
   * Dials these addresses, those through relays left out, although a connection may exist.
   * @throws FarportError ERR_NOT_TRUSTED, ERR_PEER_UNREACHABLE; the signal's reason
   */
  async dialDirect(peerId: string, addresses: readonly string[], signal: AbortSignal): Promise<Path> {
    this.#requireTrust(peerId)
    const direct = addresses.filter((address) => !isRelayed(address))
    return pathOf(await this.dial(peerId, direct, signal))
  }

  /**
   * Makes a connected socket a connection to the peer, and owns it. Each side has the other role.
   * @throws FarportError ERR_NOT_TRUSTED, ERR_PEER_UNREACHABLE
   */
  async adopt(
    socket: Socket,
    { peerId, role, signal }: { peerId: string; role: SocketRole; signal: AbortSignal },
  ): Promise<Path> {
    try {
      this.#requireTrust(peerId)
    } catch (error) {
      socket.destroy()
      throw error
    }
    return pathOf(await upgradeSocket(this.#inside, socket, { peerId, role, signal }))
  }

  /** A new connection. For what makes up this node. */
  async dial(peerId: string, addresses: readonly string[], signal: AbortSignal): Promise<Connection> {
    this.#knownRelays.add(addresses)
    return await this.#dialer.dial(peerId, addresses, signal)
  }

  /** Open connections that lead through no relay, the best first. For what makes up this node. */
  directTo(peerId: string): Connection[] {
    return this.#connections(peerId).filter(({ direct }) => direct)
  }

  /** Cuts every connection to the peer, with all that is open on them. */
  async disconnect(peerId: string, reason: string): Promise<void> {
    const cut = new FarportError('ERR_NOT_TRUSTED', `disconnected: ${reason}`)
    // What was said to it in this turn, such as why, leaves at the end of it.
    await turn()
    for (const connection of this.#connections(peerId)) connection.abort(cut)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new FarportError('ERR_PEER_UNREACHABLE', 'this node is closing'))
    await this.#reservations[Symbol.asyncDispose]()
    await this.#node.stop()
  }

  #listeners(): number {
    return this.#inside.transportManager.getListeners().length
  }

  #directAddresses(): string[] {
    const own = [...this.#announce, ...this.#inside.transportManager.getAddrs().map(String)]
    return [...new Set(own)].map((address) => `${address}/p2p/${this.peerId}`)
  }

  #check(connection: Connection): void {
    if (this.#checked.has(connection)) return
    this.#checked.add(connection)
    void isAlive(connection, CHECK_TIMEOUT_MS).then((alive) => {
      this.#checked.delete(connection)
      if (!alive) connection.abort(new FarportError('ERR_PEER_UNREACHABLE', 'the peer does not answer'))
    })
  }

  #requireTrust(peerId: string): void {
    if (!this.#admits(peerId) && !this.#knownRelays.has(peerId))
      throw new FarportError('ERR_NOT_TRUSTED', `${peerId} is not in trusted_peers: add its line to reach it`)
  }

  /** Live ones, the best first: direct before relayed, then the newest, since what is old may be dead. */
  #connections(peerId?: string): Connection[] {
    // By peer where there is one: a relay asks at each of a thousand connections.
    return this.#node
      .getConnections(peerId === undefined ? undefined : peerIdFromString(peerId))
      .filter(({ status }) => status === 'open')
      .sort((a, b) => Number(b.direct) - Number(a.direct) || b.timeline.open - a.timeline.open)
  }

  #opened(connection: Connection): void {
    const path = pathOf(connection)
    const log = this.#log.child({ peer: path.peerId, address: path.remoteAddress })
    // The trust file may have changed since the gater was asked.
    const isRelay = path.direction === 'outbound' && this.#knownRelays.has(path.peerId)
    if (!this.#admits(path.peerId) && !isRelay) {
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
