import { once } from 'node:events'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Overlay, Path, RelayStatus } from '../overlay/node.ts'
import { relayOf } from '../overlay/relay-address.ts'
import { RELAY_PROTOCOL, type Welcome } from '../relay/vouch-message.ts'
import { type OpenDoor, Vouching } from '../relay/vouching.ts'
import type { StunServerAddress } from '../stun/client.ts'
import { STUN_PORTS } from '../stun/server.ts'
import type { TrustStore } from '../trust/trust-store.ts'
import { keysOf } from '../trust/trusted-peers.ts'

/** How long an invite waits for the relays to serve us and know of it, before it is shown. */
const DOOR_MS = 3_000

interface RelayingOptions {
  overlay: Overlay
  trust: TrustStore
  /** The addresses of our relays, each with its PeerID. */
  relays: readonly string[]
  report: (status: RelayStatus) => void
  log: Logger
}

/** An agent at its relays: each of them knows at any time who may call us, and which of our invites are open. */
export class Relaying implements AsyncDisposable {
  readonly #overlay: Overlay
  readonly #trust: TrustStore
  readonly #vouchings = new Map<string, Vouching>()
  readonly #welcomes = new Map<string, Welcome>()
  readonly #doors = new Set<OpenDoor>()
  readonly #report: RelayingOptions['report']

  constructor({ overlay, trust, relays, report, log }: RelayingOptions) {
    this.#overlay = overlay
    this.#trust = trust
    this.#report = report
    for (const [peerId, addresses] of byPeer(relays))
      this.#vouchings.set(
        peerId,
        new Vouching({
          open: async (signal) => {
            // Then there is a connection: the overlay alone decides when a relay that is away is dialed.
            await this.#reserved(peerId, signal)
            return (await overlay.open(peerId, RELAY_PROTOCOL, { addresses, signal })).stream
          },
          callers: () => ({ peerIds: this.#callers(), doors: [...this.#doors] }),
          onWelcome: (welcome) => void this.#welcomes.set(peerId, welcome),
          onRefused: (err) => log.warn({ relay: peerId, err }, 'the relay does not hear who may call us'),
          log: log.child({ relay: peerId }),
        }),
      )
    overlay.on('relay', this.#onRelay)
    trust.on('change', this.#onTrust)
  }

  /** Opens the door at each relay; resolves when they know, or don't answer. */
  async openDoor(door: OpenDoor): Promise<AsyncDisposable> {
    this.#doors.add(door)
    await Promise.all([this.#refresh(DOOR_MS), this.#settled(DOOR_MS)])
    return {
      [Symbol.asyncDispose]: async () => {
        this.#doors.delete(door)
        await this.#refresh()
      },
    }
  }

  /** The STUN servers of relays that have welcomed us. */
  stun(): StunServerAddress[] {
    return this.#overlay.relays().flatMap(({ peerId, address }) => {
      const host = address.split('/')[2] ?? ''
      return (this.#welcomes.get(peerId)?.stun ?? []).map((port) => ({ host, port }))
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#overlay.off('relay', this.#onRelay)
    this.#trust.off('change', this.#onTrust)
    await Promise.all([...this.#vouchings.values()].map((vouching) => vouching[Symbol.asyncDispose]()))
  }

  async #refresh(withinMs = 0): Promise<void> {
    await Promise.all([...this.#vouchings.values()].map((vouching) => vouching.refresh(withinMs)))
  }

  async #reserved(relayId: string, signal: AbortSignal): Promise<void> {
    const is = () =>
      this.#overlay.relays().some(({ peerId, state }) => peerId === relayId && state === 'reserved')
    while (!is()) await once(this.#overlay, 'relay', { signal })
  }

  /** Resolves when each relay has reserved for us or has not, this time. */
  async #settled(withinMs: number): Promise<void> {
    const signal = AbortSignal.timeout(withinMs)
    const open = () => this.#overlay.relays().some(({ state }) => state === 'connecting')
    while (open() && !signal.aborted) await once(this.#overlay, 'relay', { signal }).catch(() => {})
  }

  #callers(): string[] {
    const peers = this.#trust.peers().filter(({ peerId }) => this.#trust.admits(peerId))
    return peers.flatMap(keysOf).filter((key) => !this.#vouchings.has(key))
  }

  readonly #onTrust = (): void => void this.#refresh()

  readonly #onRelay = (status: RelayStatus): void => {
    if (status.state === 'reserved') this.#vouchings.get(status.peerId)?.hurry()
    this.#report(status)
  }
}

/**
 * The addresses of relays, given as such or by their names in trusted_peers.
 * @throws FarportError ERR_USAGE, ERR_NOT_TRUSTED for a name that no line has
 */
export function relayAddresses(namesOrAddresses: readonly string[], trust: TrustStore): string[] {
  return namesOrAddresses.flatMap((text) => {
    if (text.startsWith('/')) {
      if (/\/p2p\/[^/]+$/.test(text)) return [text]
      throw new FarportError(
        'ERR_USAGE',
        `"${text}" does not say which relay is there: write /ip4/ADDRESS/tcp/4001/p2p/PEERID`,
      )
    }
    const peer = trust.byName(text)
    if (peer === undefined)
      throw new FarportError(
        'ERR_NOT_TRUSTED',
        `no relay is called ${text} in trusted_peers: pair with it first, or give its address`,
      )
    const direct = peer.addrs.filter((address) => relayOf(address) === undefined)
    if (direct.length === 0)
      throw new FarportError(
        'ERR_USAGE',
        `no address is known for the relay ${text}: add addr=/ip4/ADDRESS/tcp/4001 to its line in trusted_peers`,
      )
    const suffix = `/p2p/${peer.peerId}`
    return direct.map((address) => (address.endsWith(suffix) ? address : address + suffix))
  })
}

/** Relays that lead to peers in trusted_peers: where an invite of another peer may be found, too. */
export function relaysToPeers(trust: TrustStore): string[] {
  const addresses = trust.peers().flatMap(({ addrs }) => addrs)
  const relays = addresses.filter((address) => relayOf(address) !== undefined)
  return [...new Set(relays.map((address) => address.slice(0, address.indexOf('/p2p-circuit'))))]
}

/** Where the relays of these paths answer STUN, unless they were told to do so elsewhere. */
export function stunAtRelays(paths: readonly Path[]): StunServerAddress[] {
  const relayed = paths.filter(({ kind }) => kind === 'relayed')
  // None for callers that a relay has handed to us: their address begins with it.
  const host = ({ remoteAddress }: Path) => /^\/(?:ip|dns)[46]?\/([^/]+)/.exec(remoteAddress)?.[1] ?? []
  return [...new Set(relayed.flatMap(host))].flatMap((one) => STUN_PORTS.map((port) => ({ host: one, port })))
}

/** Addresses that end with a PeerID, by it. */
export function byPeer(addresses: readonly string[]): Map<string, string[]> {
  const peers = new Map<string, string[]>()
  for (const address of addresses) {
    const at = address.lastIndexOf('/p2p/')
    const peerId = address.slice(at + '/p2p/'.length)
    peers.set(peerId, [...(peers.get(peerId) ?? []), address.slice(0, at)])
  }
  return peers
}
