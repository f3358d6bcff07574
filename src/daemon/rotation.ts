import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Overlay, Path } from '../overlay/node.ts'
import { type Identity, loadNextIdentity, switchIdentity } from '../trust/identity.ts'
import { ROTATE_PROTOCOL, type RotationAnswer } from '../trust/rotation.ts'
import {
  forgetRotationProgress,
  readRotationProgress,
  writeRotationProgress,
} from '../trust/rotation-progress.ts'
import { announceOver, receiveOver } from '../trust/rotation-stream.ts'
import type { TrustStore } from '../trust/trust-store.ts'
import { keysOf, type TrustedPeer } from '../trust/trusted-peers.ts'
import type { Audit } from './audit-log.ts'
import type { Peers } from './peers.ts'

/** What one peer made of our new key. */
export interface PeerOutcome {
  readonly name: string
  readonly peerId: string
  readonly outcome: 'accepted' | 'refused' | 'not reached'
  /** Why it has not accepted. */
  readonly reason?: string
}

export interface RotationReport {
  /** Whether the new key has taken the old one's place in the home. */
  readonly switched: boolean
  readonly oldPeerId: string
  readonly newPeerId: string
  readonly peers: readonly PeerOutcome[]
  /** Where the old key is kept, when somebody may not have heard of the new one. */
  readonly oldKey?: string
}

interface RotationOptions {
  home: string
  /** The key this node runs with. */
  identity: Identity
  overlay: Pick<Overlay, 'peerId' | 'paths' | 'on' | 'off'>
  trust: TrustStore
  peers: Pick<Peers, 'reach'>
  /** Our relays and their addresses, by PeerID: they know us, though we may have no line for them. */
  relays?: ReadonlyMap<string, readonly string[]>
  /** Whether addresses that others have lead through us. */
  isRelay?: boolean
  /** Whether peers that connect are told of a key that is waiting: by one process of a home only. */
  announces: boolean
  audit?: Audit | undefined
  log: Logger
}

/** Our own next key. */
type Own =
  | { readonly state: 'none' }
  /** Announced, but not in use; `told` are those who have accepted it. */
  | { readonly state: 'waiting'; readonly next: Identity; readonly told: Set<string> }
  /** In the home, but this node still runs with the one before, and tells who comes by. */
  | { readonly state: 'switched'; readonly next: Identity; readonly told: Set<string> }

/** How long one peer may take to be reached and to answer, */
const TELL_MS = 15_000
/** how many are asked at a time, */
const MAX_TELLING = 64
/** and how long a peer may take to say what it wants of us. */
const HEAR_MS = 10_000

/**
 * New keys that a peer may bring in this time. Each is written to the disk, and each that was used stays in revoked_peers,
 * which a peer must not be able to fill: then nobody could be revoked.
 */
const MAX_CHANGES = 8
const CHANGES_MS = 24 * 60 * 60 * 1000

/**
 * Keys that take another's place without pairing again: ours, which peers are told of, and theirs, which they tell us of.
 * The key a peer has announced is in force beside its old one, and instead of it from the first time it is used.
 */
export class Rotation implements Disposable {
  readonly #options: RotationOptions
  readonly #log: Logger
  readonly #closed = new AbortController()
  /** Under way, by the PeerID in the peer's line. */
  readonly #telling = new Map<string, Promise<PeerOutcome>>()
  /** By the peer's name, which stays when its key changes. */
  readonly #changes = new Map<string, { count: number; since: number }>()
  #own: Own = { state: 'none' }
  #rotating = false
  /** Who knows our key is written down one time after the other. */
  #kept: Promise<void> = Promise.resolve()

  constructor(options: RotationOptions) {
    this.#options = options
    this.#log = options.log
    options.overlay.on('connect', this.#onConnect)
  }

  /** Takes up a key that waited when this home's farport ended, and looks at who is connected already. */
  async resume(): Promise<void> {
    const { home, overlay, announces } = this.#options
    try {
      const next = announces ? await loadNextIdentity(home, { create: false }) : undefined
      if (next !== undefined)
        this.#own = { state: 'waiting', next, told: await readRotationProgress(home, next.peerId) }
    } catch (error) {
      // No reason not to share ports: `id rotate` says it to whoever wants the key.
      this.#log.error({ err: error }, 'the next key can not be used')
    }
    for (const path of overlay.paths()) this.#onConnect(path)
  }

  /**
   * Tells every trusted peer of a new key, the same until it is in use. When all have accepted it, or with `now` in any
   * case, it takes the place of the home's key; this node runs on with the old one.
   * @throws FarportError ERR_HOME, ERR_IN_USE; ERR_USAGE when it still runs with a key that is replaced already, or is a relay
   */
  async rotate({ now }: { now: boolean }, signal: AbortSignal): Promise<RotationReport> {
    if (this.#rotating)
      throw new FarportError('ERR_IN_USE', 'another `farport id rotate` is under way: wait for its end')
    if (this.#own.state === 'switched')
      throw new FarportError(
        'ERR_USAGE',
        'the key has been rotated already: restart `farport share`, which still runs with the one before',
      )
    if (this.#options.isRelay && !now)
      throw new FarportError(
        'ERR_USAGE',
        'this machine is a relay: its PeerID is in every address that leads through it, and with another key those must be changed by hand wherever they are written. If that is meant, give --now',
      )
    this.#rotating = true
    try {
      return await this.#rotate(now, signal)
    } finally {
      this.#rotating = false
    }
  }

  /** Serves a stream on which a peer speaks ROTATE_PROTOCOL. */
  async serve(stream: Duplex, from: Path): Promise<void> {
    const { overlay, trust, audit } = this.#options
    stream.on('error', () => {})
    if (!trust.admits(from.peerId)) {
      const reason = 'it is not in trusted_peers'
      audit?.record({ event: 'refuse', peerId: from.peerId, address: from.remoteAddress, reason })
      stream.destroy()
      return
    }
    try {
      await receiveOver(stream, {
        announcer: from.peerId,
        receiver: overlay.peerId,
        decide: (next) => this.#decide(from, next),
        signal: AbortSignal.any([this.#closed.signal, AbortSignal.timeout(HEAR_MS)]),
      })
    } catch (error) {
      this.#log.debug({ err: error, peer: from.peerId }, 'a peer could not announce its key')
    }
  }

  [Symbol.dispose](): void {
    this.#options.overlay.off('connect', this.#onConnect)
    this.#closed.abort(new FarportError('ERR_PEER_UNREACHABLE', 'this node is closing'))
  }

  async #rotate(now: boolean, signal: AbortSignal): Promise<RotationReport> {
    const { home, identity, trust, audit, isRelay = false } = this.#options
    const next = await loadNextIdentity(home, { create: true })
    if (this.#own.state !== 'waiting' || this.#own.next.peerId !== next.peerId)
      this.#own = { state: 'waiting', next, told: await readRotationProgress(home, next.peerId) }
    const wanted = trust
      .peers()
      .filter((peer) => trust.admits(peer.peerId) && !keysOf(peer).includes(identity.peerId))
    const peers = await this.#tellAll([...wanted, ...this.#unnamedRelays()], signal)
    signal.throwIfAborted()
    const report = { oldPeerId: identity.peerId, newPeerId: next.peerId, peers }
    const missing = peers.some(({ outcome }) => outcome !== 'accepted')
    if (missing && !now) return { ...report, switched: false }
    // Where all know the new key, the old one is of use to a thief only. Where not, it is the way back.
    const oldKey = await switchIdentity(home, { keepOld: missing || isRelay })
    this.#own = { ...this.#own, state: 'switched' }
    await this.#kept
    await forgetRotationProgress(home)
    audit?.record({ event: 'rotate', peerId: identity.peerId, next: next.peerId, state: 'switched' })
    this.#log.info({ next: next.peerId }, 'the key has been rotated')
    return { ...report, switched: true, ...(oldKey !== undefined && { oldKey }) }
  }

  /** Those that are given by their addresses alone. */
  #unnamedRelays(): TrustedPeer[] {
    const { relays = new Map(), trust } = this.#options
    const unnamed = [...relays].filter(([peerId]) => trust.byId(peerId) === undefined)
    return unnamed.map(([peerId, addrs]) => ({ name: addrs[0] ?? peerId, peerId, addrs, ports: [], may: [] }))
  }

  async #tellAll(peers: readonly TrustedPeer[], signal: AbortSignal): Promise<PeerOutcome[]> {
    const outcomes: PeerOutcome[] = []
    const left = peers.entries()
    const worker = async () => {
      for (const [index, peer] of left) {
        if (signal.aborted) return
        outcomes[index] = await this.#tell(peer)
      }
    }
    const stopped = Promise.withResolvers<never>()
    const stop = () => stopped.reject(signal.reason)
    signal.addEventListener('abort', stop)
    try {
      await Promise.race([Promise.all(Array.from({ length: MAX_TELLING }, worker)), stopped.promise])
    } finally {
      signal.removeEventListener('abort', stop)
      await this.#keepProgress()
    }
    return outcomes
  }

  /** One conversation per peer at a time, whoever wants it. */
  #tell(peer: TrustedPeer): Promise<PeerOutcome> {
    const { name, peerId } = peer
    let outcome = this.#telling.get(peerId)
    if (outcome === undefined) {
      outcome = this.#tellOnce(peer)
        .then((result) => ({ name, peerId, ...result }))
        .finally(() => this.#telling.delete(peerId))
      this.#telling.set(peerId, outcome)
    }
    return outcome
  }

  async #tellOnce(peer: TrustedPeer): Promise<Pick<PeerOutcome, 'outcome' | 'reason'>> {
    const { identity, peers, audit } = this.#options
    const own = this.#own
    if (own.state === 'none' || own.told.has(peer.peerId)) return { outcome: 'accepted' }
    const { next } = own
    const timeout = AbortSignal.timeout(TELL_MS)
    const signal = AbortSignal.any([this.#closed.signal, timeout])
    let reached = false
    try {
      const { stream, path } = await peers.reach(peer, ROTATE_PROTOCOL, signal)
      reached = true
      const answer = await announceOver(stream, { identity, next, receiver: path.peerId, signal })
      if (answer !== 'accepted') return { outcome: 'refused', reason: REFUSALS[answer] }
      own.told.add(peer.peerId)
      audit?.record({ event: 'rotate', peerId: peer.peerId, next: next.peerId, state: 'accepted' })
      return { outcome: 'accepted' }
    } catch (error) {
      if (timeout.aborted) return { outcome: 'not reached', reason: `no answer in ${TELL_MS / 1000} s` }
      if (!(error instanceof FarportError)) throw error
      switch (error.code) {
        case 'ERR_PROTOCOL':
          return { outcome: 'refused', reason: reached ? BROKE_OFF : TOO_OLD }
        case 'ERR_NOT_TRUSTED':
          return { outcome: 'refused', reason: error.message }
        default:
          return { outcome: 'not reached', reason: error.message }
      }
    }
  }

  async #tellComer(peer: TrustedPeer): Promise<void> {
    try {
      const { outcome, reason } = await this.#tell(peer)
      this.#log.info({ peer: peer.peerId, outcome, reason }, 'told a peer of our next key')
      if (outcome === 'accepted') await this.#keepProgress()
    } catch (error) {
      this.#log.error({ err: error, peer: peer.peerId }, 'a peer could not be told of our next key')
    }
  }

  /** That it can't be written costs only that peers are told twice. */
  async #keepProgress(): Promise<void> {
    this.#kept = this.#kept.then(async () => {
      const own = this.#own
      if (own.state !== 'waiting') return
      await writeRotationProgress(this.#options.home, own.next.peerId, own.told).catch((error) =>
        this.#log.warn({ err: error }, 'who knows the next key can not be written down'),
      )
    })
    await this.#kept
  }

  /** What to make of the key that a peer has announced and, unless it is undefined, proven. */
  async #decide(from: Path, next: string | undefined): Promise<RotationAnswer> {
    const { audit } = this.#options
    const { peerId } = from
    await this.#promote(peerId)
    const answer = next === undefined ? 'unproven' : await this.#note(peerId, next)
    if (answer !== 'accepted') {
      const reason = `its new key ${next ?? ''} was refused: ${answer}`
      audit?.record({ event: 'refuse', peerId, address: from.remoteAddress, reason })
      this.#log.info({ peer: peerId, next, answer }, 'refused the new key of a peer')
    }
    return answer
  }

  async #note(peerId: string, next: string): Promise<RotationAnswer> {
    const { overlay, trust, audit } = this.#options
    const own = this.#own
    if (next === overlay.peerId || (own.state !== 'none' && next === own.next.peerId)) return 'taken'
    const { name, next: known } = trust.byId(peerId) ?? { name: '' }
    if (next === known) return 'accepted'
    // Counted before it is written, so that many at once don't pass for one.
    if (!this.#countChange(name)) return 'later'
    try {
      const { answer } = await trust.announce(peerId, next)
      switch (answer) {
        case 'noted':
          audit?.record({ event: 'rotate', peerId, next, state: 'announced' })
          this.#log.info({ peer: peerId, next }, 'a peer has announced its next key')
          return 'accepted'
        case 'known':
          return 'accepted'
        case 'untrusted':
        case 'taken':
        case 'revoked':
          return answer
        default:
          return answer satisfies never
      }
    } catch (error) {
      this.#log.error({ err: error, peer: peerId }, 'the new key of a peer can not be written down')
      return 'unwritable'
    }
  }

  /** False when there were too many already. */
  #countChange(name: string): boolean {
    const now = performance.now()
    const last = this.#changes.get(name)
    const changes = last === undefined || now - last.since >= CHANGES_MS ? { count: 0, since: now } : last
    if (changes.count >= MAX_CHANGES) return false
    changes.count++
    this.#changes.set(name, changes)
    return true
  }

  /** The peer has used the key it announced: from now on it has no other. */
  async #promote(peerId: string): Promise<void> {
    const { trust, audit } = this.#options
    if (trust.byId(peerId)?.next !== peerId) return
    try {
      const before = await trust.promote(peerId)
      if (before === undefined) return
      audit?.record({ event: 'rotate', peerId: before, next: peerId, state: 'in force' })
      this.#log.info({ peer: before, next: peerId }, 'a peer uses its new key; the old one is revoked')
    } catch (error) {
      // Both keys stay in force, and the next connection tries again.
      this.#log.error(
        { err: error, peer: peerId },
        'the new key of a peer can not take the place of its old one',
      )
    }
  }

  readonly #onConnect = ({ peerId }: Path): void => {
    const { trust, announces } = this.#options
    const peer = trust.byId(peerId) ?? this.#unnamedRelays().find((relay) => relay.peerId === peerId)
    if (peer === undefined) return
    void this.#promote(peerId)
    const own = this.#own
    if (announces && own.state !== 'none' && !own.told.has(peer.peerId) && !this.#telling.has(peer.peerId))
      void this.#tellComer(peer)
  }
}

const TOO_OLD = 'it does not know how to change keys: update farport there'
const BROKE_OFF = 'it broke off: it has no line for us in its trusted_peers, or is of another version'

const REFUSALS: Record<Exclude<RotationAnswer, 'accepted'>, string> = {
  unproven: 'it does not believe that the new key is ours: are both farports of one version?',
  untrusted: 'our line in its trusted_peers has expired, or is gone',
  taken: 'it knows the new key under another name',
  revoked: 'it has revoked the new key',
  later: 'we have announced too many keys to it: try again tomorrow',
  unwritable: 'it can not write its trusted_peers: its log says why',
}
