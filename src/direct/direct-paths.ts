import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { watchNetwork } from '../overlay/network-watch.ts'
import type { Overlay, Path } from '../overlay/node.ts'
import type { StunServerAddress } from '../stun/client.ts'
import { type Improver, type ImproverState, startImproving } from './improve.ts'
import { PathAnswerer } from './path-answerer.ts'
import type { PathMeans } from './path-round.ts'

export const PATH_PROTOCOL = '/farport/path/1'

export interface DirectPathsOptions {
  /** Servers that tell how the internet sees a port of ours; of one address, two ports are two servers. */
  stun: () => readonly StunServerAddress[]
  /** Whether the peer is one of ours. Others may be connected, too: relays, and strangers that want to pair. */
  trusts: (peerId: string) => boolean
  /** Whether to dial an address that a peer tells us; isDialable unless given. */
  mayDial?: (address: string) => boolean
  /** How long a path through a relay is left alone at first; not at all unless given. */
  patienceMs?: number
  log: Logger
}

interface Improving {
  readonly improver: Improver
  readonly end: AbortController
}

/**
 * Finds direct paths to those peers that we reached through a relay, and helps those that reached us so. Whoever dialed
 * asks, so that the two don't both. A path that is found is the node's like any other; the relayed one stays.
 */
export class DirectPaths implements AsyncDisposable {
  readonly #overlay: Overlay
  readonly #options: DirectPathsOptions
  readonly #answerer: PathAnswerer
  readonly #improving = new Map<string, Improving>()
  readonly #closed = new AbortController()

  private constructor(overlay: Overlay, options: DirectPathsOptions) {
    this.#overlay = overlay
    this.#options = options
    this.#answerer = new PathAnswerer({ means: (peerId) => this.#means(peerId), log: options.log })
  }

  static async start(overlay: Overlay, options: DirectPathsOptions): Promise<DirectPaths> {
    const paths = new DirectPaths(overlay, options)
    await overlay.handle(PATH_PROTOCOL, (stream, { peerId }) => paths.#serve(stream, peerId))
    overlay.on('connect', paths.#changed).on('disconnect', paths.#changed)
    for (const path of overlay.paths()) paths.#changed(path)
    watchNetwork(() => paths.#networkChanged(), paths.#closed.signal)
    return paths
  }

  /** How the search for a direct path to the peer is going; `undefined` when there is nothing to search for. */
  state(peerId: string): ImproverState | undefined {
    return this.#improving.get(peerId)?.improver.state
  }

  /** Others reach us elsewhere now. Changes of this machine's own addresses are noticed without. */
  addressesChanged(): void {
    this.#answerer.addressesChanged()
    for (const { improver } of this.#improving.values()) improver.addressesChanged()
  }

  /** What was connected over another network may be dead, which would otherwise show much later. */
  #networkChanged(): void {
    for (const path of this.#overlay.paths()) this.#overlay.check(path)
    this.addressesChanged()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closing = new FarportError('ERR_PEER_UNREACHABLE', 'this node is closing')
    this.#overlay.off('connect', this.#changed).off('disconnect', this.#changed)
    this.#closed.abort(closing)
    this.#answerer[Symbol.dispose]()
    await Promise.all(
      [...this.#improving.values()].map(({ improver, end }) => {
        end.abort(closing)
        return improver.done
      }),
    )
  }

  readonly #changed = ({ peerId }: Path): void => {
    const known = this.#improving.get(peerId)
    const paths = this.#overlay.paths(peerId)
    const dialed = paths.some(({ kind, direction }) => kind === 'relayed' && direction === 'outbound')
    if (known !== undefined) {
      known.improver.pathsChanged()
      // The session dials anew, and that decides who asks.
      if (paths.length === 0 || !this.#options.trusts(peerId)) this.#stop(peerId, known)
    } else if (dialed && this.#options.trusts(peerId)) this.#improve(peerId)
  }

  #improve(peerId: string): void {
    const end = new AbortController()
    const improver = startImproving({
      ...this.#means(peerId),
      peerId,
      openStream: async (signal) => {
        const { patienceMs } = this.#options
        if (patienceMs !== undefined) await sleep(patienceMs, undefined, { signal })
        const { stream } = await this.#overlay.open(peerId, PATH_PROTOCOL, { addresses: [], signal })
        return stream
      },
      hasDirect: () => this.#overlay.paths(peerId)[0]?.kind === 'direct',
      log: this.#options.log,
      signal: end.signal,
    })
    this.#improving.set(peerId, { improver, end })
  }

  #stop(peerId: string, { end }: Improving): void {
    this.#improving.delete(peerId)
    end.abort(new FarportError('ERR_PEER_UNREACHABLE', 'the peer is gone'))
  }

  #serve(stream: Duplex, peerId: string): void {
    if (this.#options.trusts(peerId)) void this.#answerer.answer(peerId, stream)
    else stream.destroy()
  }

  #means(peerId: string): PathMeans {
    const { stun, mayDial } = this.#options
    return {
      addresses: () => this.#overlay.addresses(),
      stun,
      dialDirect: (addresses, signal) => this.#overlay.dialDirect(peerId, addresses, signal),
      adopt: (socket, options) => this.#overlay.adopt(socket, { peerId, ...options }),
      ...(mayDial && { mayDial }),
    }
  }
}
