import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Overlay, Path } from '../overlay/node.ts'
import { type Listing, PORTS_PROTOCOL, portsQuestion, readPorts } from '../session/listing.ts'
import { PING_PROTOCOL, ping } from '../session/ping.ts'
import type { TrustStore } from '../trust/trust-store.ts'
import { keysOf, type TrustedPeer } from '../trust/trusted-peers.ts'

const ASK_TIMEOUT_MS = 15_000

interface Reached {
  readonly stream: Duplex
  readonly path: Path
}

/** Reaches peers by the names people give them in trusted_peers. */
export class Peers {
  readonly #overlay: Overlay
  readonly #trust: TrustStore
  readonly #onPath: (peer: string, path: Path) => void
  readonly #followers = new Set<(path: Path) => void>()

  constructor(overlay: Overlay, trust: TrustStore, onPath: (peer: string, path: Path) => void) {
    this.#overlay = overlay
    this.#trust = trust
    this.#onPath = onPath
    overlay.on('connect', (path) => {
      if (overlay.paths(path.peerId)[0]?.id === path.id) for (const follow of this.#followers) follow(path)
    })
  }

  /**
   * A fresh stream to a peer, and the path it runs over. The line is looked up each time, so an address added to
   * trusted_peers is used at the next try.
   * @param early see Overlay.open
   * @throws FarportError ERR_NOT_TRUSTED, ERR_PEER_UNREACHABLE, ERR_PROTOCOL
   */
  async connect(name: string, protocol: string, signal: AbortSignal, early?: Uint8Array): Promise<Reached> {
    const peer = this.#trust.byName(name) ?? this.#trust.byId(name)
    if (peer === undefined)
      throw new FarportError(
        'ERR_NOT_TRUSTED',
        `no peer is called ${name} in trusted_peers: add the line that \`farport id\` or \`farport share\` prints over there`,
      )
    if (peer.addrs.length === 0 && keysOf(peer).every((key) => this.#overlay.paths(key).length === 0))
      throw new FarportError(
        'ERR_PEER_UNREACHABLE',
        `no address is known for ${name}: add addr=/ip4/ADDRESS/tcp/4001 to its line in trusted_peers`,
      )
    const reached = await this.reach({ ...peer, name }, protocol, signal, early)
    this.#onPath(name, reached.path)
    return reached
  }

  /** Tells of each path to a peer that has become the best one. The answer ends that. */
  onBestPath(name: string, listener: (path: Path) => void): () => void {
    const follower = (path: Path) => {
      const peer = this.#trust.byName(name) ?? this.#trust.byId(name)
      if (peer !== undefined && keysOf(peer).includes(path.peerId)) listener(path)
    }
    this.#followers.add(follower)
    return () => void this.#followers.delete(follower)
  }

  /**
   * A fresh stream to whoever has one of the peer's keys: the key it is connected by, else the one it has, else the one it
   * has announced.
   * @throws FarportError ERR_NOT_TRUSTED, ERR_PEER_UNREACHABLE, ERR_PROTOCOL
   */
  async reach(
    peer: TrustedPeer,
    protocol: string,
    signal: AbortSignal,
    early?: Uint8Array,
  ): Promise<Reached> {
    const { name, peerId } = peer
    const keys = keysOf(peer)
    const connected = keys.filter((key) => this.#overlay.paths(key).length > 0)
    let failure: FarportError | undefined
    for (const key of new Set([...connected, ...keys])) {
      const addresses = peer.addrs.map((addr) => (key === peerId ? addr : addr.replace(`/p2p/${peerId}`, '')))
      try {
        return await this.#overlay.open(key, protocol, { addresses, ...(early && { early }), signal })
      } catch (error) {
        if (!(error instanceof FarportError)) throw error
        const told = new FarportError(error.code, error.message.replaceAll(key, name), { cause: error.cause })
        if (error.code === 'ERR_PROTOCOL') throw told
        // That we are turned away says more than that nobody is there, which is so for one of two keys.
        if (failure === undefined || error.code === 'ERR_NOT_TRUSTED') failure = told
      }
    }
    throw failure
  }

  /** Has it found out whether a path still works, and cut if not. */
  suspect({ id }: Pick<Path, 'id'>): void {
    const path = this.#overlay.paths().find((one) => one.id === id)
    if (path !== undefined) this.#overlay.check(path)
  }

  /** One round trip over the best path there is, and what that is. */
  async ping(name: string, signal: AbortSignal): Promise<{ path: Path; roundTripMs: number }> {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(ASK_TIMEOUT_MS)])
    const { stream, path } = await this.connect(name, PING_PROTOCOL, bounded)
    stream.on('error', () => {})
    try {
      return { path, roundTripMs: await ping(stream, bounded) }
    } finally {
      stream.destroy()
    }
  }

  /** The ports a peer lets us use, or what it says about one of them. */
  async ports(name: string, signal: AbortSignal, port?: string): Promise<Listing[]> {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(ASK_TIMEOUT_MS)])
    const { stream } = await this.connect(name, PORTS_PROTOCOL, bounded, portsQuestion(port))
    stream.on('error', () => {})
    try {
      return await readPorts(stream, bounded)
    } finally {
      stream.destroy()
    }
  }
}
