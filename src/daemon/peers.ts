import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Overlay, Path } from '../overlay/node.ts'
import { askPorts, type Listing, PORTS_PROTOCOL } from '../session/listing.ts'
import type { TrustStore } from '../trust/trust-store.ts'

const ASK_TIMEOUT_MS = 15_000

/** Reaches peers by the names people give them in trusted_peers. */
export class Peers {
  readonly #overlay: Overlay
  readonly #trust: TrustStore
  readonly #onPath: (peer: string, path: Path) => void

  constructor(overlay: Overlay, trust: TrustStore, onPath: (peer: string, path: Path) => void) {
    this.#overlay = overlay
    this.#trust = trust
    this.#onPath = onPath
  }

  /**
   * A fresh stream to a peer. The line is looked up each time, so an address added to trusted_peers is used at the next try.
   * @throws FarportError ERR_NOT_TRUSTED, ERR_PEER_UNREACHABLE, ERR_PROTOCOL
   */
  async open(name: string, protocol: string, signal: AbortSignal): Promise<Duplex> {
    const peer = this.#trust.byName(name) ?? this.#trust.byId(name)
    if (peer === undefined)
      throw new FarportError(
        'ERR_NOT_TRUSTED',
        `no peer is called ${name} in trusted_peers: add the line that \`farport id\` or \`farport share\` prints over there`,
      )
    if (peer.addrs.length === 0 && this.#overlay.paths(peer.peerId).length === 0)
      throw new FarportError(
        'ERR_PEER_UNREACHABLE',
        `no address is known for ${name}: add addr=/ip4/ADDRESS/tcp/4001 to its line in trusted_peers`,
      )
    try {
      const { stream, path } = await this.#overlay.open(peer.peerId, protocol, {
        addresses: [...peer.addrs],
        signal,
      })
      this.#onPath(name, path)
      return stream
    } catch (error) {
      if (!(error instanceof FarportError)) throw error
      throw new FarportError(error.code, error.message.replaceAll(peer.peerId, name), { cause: error.cause })
    }
  }

  /** The ports a peer lets us use, or what it says about one of them. */
  async ports(name: string, signal: AbortSignal, port?: string): Promise<Listing[]> {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(ASK_TIMEOUT_MS)])
    const stream = await this.open(name, PORTS_PROTOCOL, bounded)
    stream.on('error', () => {})
    try {
      return await askPorts(stream, { ...(port === undefined ? {} : { port }), signal: bounded })
    } finally {
      stream.destroy()
    }
  }
}
