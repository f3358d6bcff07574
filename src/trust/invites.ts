/**
 * The inviter's book: which invites are open, and who may try one. A code of three words has 33 bits, so what protects it
 * is how few guesses it lets anybody make: three for an invite, one at a time, and the whole book shuts after twenty
 * wrong ones in an hour. Loads no cryptography, so that a daemon can keep one at hand.
 */
import { EventEmitter } from 'node:events'
import { FarportError } from '../errors.ts'
import { INVITE_ID_BYTES, PairingError, type PairingFailure } from './pairing.ts'
import { encodeTerms, type Terms } from './pairing-terms.ts'
import type { TrustedPeer } from './trusted-peers.ts'

const SECOND_MS = 1000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS

export const INVITE_LIFETIME_MS = 10 * MINUTE_MS
const MAX_OPEN = 4
const TRIES = 3

/** One source, a PeerID or an IP address, may try so often. */
const MIN_INTERVAL_MS = 2 * SECOND_MS
const SOURCE_WINDOW_MS = 10 * MINUTE_MS
const MAX_TRIES_PER_SOURCE = 10
/** Anybody can make up PeerIDs: beyond this many the one unheard of for longest is forgotten. */
const MAX_SOURCES = 1024

/** All failed tries together, after which someone is at work and a person must look. */
const FAILURE_WINDOW_MS = HOUR_MS
const MAX_FAILURES = 20

/** Ended invites whose end is remembered, for the reason in the log. */
const MAX_ENDED = 16

/** Where a try comes from. */
export interface Source {
  readonly peerId: string
  /** The IP address; none behind a relay, whose address all its peers share. */
  readonly address?: string
}

export interface InviteOptions {
  /** 8 bytes: random in a ticket, inviteIdOf() a code's nameplate. */
  readonly id: Uint8Array
  /** Copied: overwrite yours when it is no longer needed. */
  readonly secret: Uint8Array
  /** What we call ourselves, and allow whoever joins. */
  readonly terms: Terms
}

/** One try at an invite. Exactly one of `fail` and `commit` ends it; what comes after is ignored or refused. */
export interface Attempt {
  /** The book's own copy, overwritten when the invite ends: use it at once, don't keep it. */
  readonly secret: Uint8Array
  readonly terms: Terms
  readonly encodedTerms: Uint8Array
  fail(reason: PairingFailure): void
  /**
   * Spends the invite, then has the line recorded. Answers with the line as it was written.
   * @throws PairingError when the invite has ended meanwhile; whatever the recording throws
   */
  commit(peer: TrustedPeer): Promise<TrustedPeer>
}

/** `burnt`: three tries failed. `shut`: too many failed in all. */
export type InviteEnd = 'used' | 'expired' | 'burnt' | 'cancelled' | 'shut'

/** What a person at the screen, or the log, should know. Ids are in hexadecimal. */
interface InvitesEvents {
  /** A try failed; so many are left. */
  failed: [id: string, reason: PairingFailure, triesLeft: number, source: Source]
  /** A try was not even let begin. */
  refused: [id: string, reason: PairingFailure, source: Source]
  paired: [id: string, peer: TrustedPeer]
  /** Someone has proven to have the secret, but the line could not be written. */
  unrecorded: [id: string, error: unknown]
  ended: [id: string, how: InviteEnd]
}

interface InvitesOptions {
  /** Our PeerID. */
  self: string
  /**
   * Writes the line of a peer that has joined. May give it another name than the one it asks for, which may be taken;
   * answers with the line as written.
   */
  record: (peer: TrustedPeer) => Promise<TrustedPeer>
  /** Whether a peer is revoked, so that its try takes nothing off an invite. `record` has the last word. Default: nobody. */
  isRevoked?: (peerId: string) => boolean
  /** Milliseconds from a clock that nobody sets. It may stand still while the machine sleeps. */
  clock?: () => number
}

interface Invite {
  readonly id: string
  readonly secret: Uint8Array
  readonly terms: Terms
  readonly encodedTerms: Uint8Array
  readonly expiresAtMs: number
  readonly timer: NodeJS.Timeout
  triesLeft: number
  trying: Attempt | undefined
}

export class Invites extends EventEmitter<InvitesEvents> implements Disposable {
  readonly #self: string
  readonly #record: InvitesOptions['record']
  readonly #isRevoked: (peerId: string) => boolean
  readonly #clock: () => number
  readonly #open = new Map<string, Invite>()
  readonly #ended = new Map<string, InviteEnd>()
  readonly #sources = new SourceLimit()
  /** When tries failed, within the window. */
  #failures: number[] = []
  #shut = false

  constructor({ self, record, isRevoked = () => false, clock = () => performance.now() }: InvitesOptions) {
    super()
    this.#self = self
    this.#record = record
    this.#isRevoked = isRevoked
    this.#clock = clock
  }

  /** How many invites are open. While there are none, no stranger needs to be let in. */
  get size(): number {
    return this.#open.size
  }

  /** True after too many failed tries, until reopen(). */
  get shut(): boolean {
    return this.#shut
  }

  /**
   * Opens an invite for ten minutes.
   * @throws FarportError ERR_USAGE when there are four, pairing is shut, the id is taken, or the terms can't be said
   */
  open({ id, secret, terms }: InviteOptions): void {
    if (id.length !== INVITE_ID_BYTES) throw new RangeError('an invite id has 8 bytes')
    if (secret.length === 0) throw new RangeError('an invite needs a secret')
    if (this.#shut)
      throw new FarportError(
        'ERR_USAGE',
        `pairing is shut: ${MAX_FAILURES} tries failed within an hour, so somebody may be guessing. Open it again when you know who`,
      )
    if (this.#open.size >= MAX_OPEN)
      throw new FarportError('ERR_USAGE', `${MAX_OPEN} invites are open already: cancel one, or wait`)
    const key = hex(id)
    if (this.#open.has(key)) throw new FarportError('ERR_USAGE', 'an invite with this number is open already')
    const encodedTerms = encodeTerms(terms, this.#self)
    const invite: Invite = {
      id: key,
      secret: Uint8Array.from(secret),
      terms,
      encodedTerms,
      expiresAtMs: this.#clock() + INVITE_LIFETIME_MS,
      timer: setTimeout(() => this.#end(invite, 'expired'), INVITE_LIFETIME_MS).unref(),
      triesLeft: TRIES,
      trying: undefined,
    }
    this.#open.set(key, invite)
  }

  /**
   * Takes a try off the invite, before anything of the guess is known.
   * @throws PairingError, of which the other side learns that there was one, and no more
   */
  begin(id: Uint8Array, source: Source): Attempt {
    const key = hex(id)
    try {
      return this.#begin(key, source)
    } catch (error) {
      if (error instanceof PairingError) this.emit('refused', key, error.reason, source)
      throw error
    }
  }

  /** Ends an invite before its time; one that is not open is left as it is. */
  cancel(id: Uint8Array): void {
    const invite = this.#open.get(hex(id))
    if (invite !== undefined) this.#end(invite, 'cancelled')
  }

  /** For a person only, after too many failed tries. */
  reopen(): void {
    this.#shut = false
    this.#failures = []
  }

  [Symbol.dispose](): void {
    for (const invite of this.#open.values()) this.#end(invite, 'cancelled')
  }

  #begin(id: string, source: Source): Attempt {
    const now = this.#clock()
    if (this.#isRevoked(source.peerId)) throw new PairingError('revoked')
    if (this.#shut) throw new PairingError('shut')
    if (!this.#sources.admit(source, now)) throw new PairingError('too-often')
    const invite = this.#stillOpen(id, now)
    if (invite === undefined) throw new PairingError(this.#ended.has(id) ? 'invite-over' : 'unknown-invite')
    if (invite.trying !== undefined) throw new PairingError('busy')

    invite.triesLeft--
    const { secret, terms, encodedTerms } = invite
    const attempt: Attempt = {
      secret,
      terms,
      encodedTerms,
      fail: (reason) => {
        if (invite.trying === attempt) this.#failed(invite, reason, source)
      },
      commit: async (peer) => {
        const open = this.#stillOpen(id, this.#clock())
        if (open?.trying !== attempt) throw new PairingError('invite-over')
        this.#sources.forgive(source, now)
        return await this.#commit(invite, peer)
      },
    }
    invite.trying = attempt
    return attempt
  }

  /** The timer may be late. */
  #stillOpen(id: string, now: number): Invite | undefined {
    const invite = this.#open.get(id)
    if (invite === undefined || now < invite.expiresAtMs) return invite
    this.#end(invite, 'expired')
    return undefined
  }

  #failed(invite: Invite, reason: PairingFailure, source: Source): void {
    invite.trying = undefined
    const now = this.#clock()
    this.#failures = this.#failures.filter((at) => now - at < FAILURE_WINDOW_MS)
    this.#failures.push(now)
    this.emit('failed', invite.id, reason, invite.triesLeft, source)
    if (invite.triesLeft === 0) this.#end(invite, 'burnt')
    if (this.#failures.length < MAX_FAILURES) return
    this.#shut = true
    for (const open of this.#open.values()) this.#end(open, 'shut')
  }

  /** Spent first: if writing fails, or we are killed on the way, the secret must not be good for a second try. */
  async #commit(invite: Invite, peer: TrustedPeer): Promise<TrustedPeer> {
    this.#end(invite, 'used')
    try {
      const written = await this.#record(peer)
      this.emit('paired', invite.id, written)
      return written
    } catch (error) {
      this.emit('unrecorded', invite.id, error)
      throw error
    }
  }

  #end(invite: Invite, how: InviteEnd): void {
    this.#open.delete(invite.id)
    clearTimeout(invite.timer)
    invite.secret.fill(0)
    invite.trying = undefined
    this.#ended.set(invite.id, how)
    for (const id of this.#ended.keys()) if (this.#ended.size > MAX_ENDED) this.#ended.delete(id)
    this.emit('ended', invite.id, how)
  }
}

/** How often each source has tried of late. */
class SourceLimit {
  /** In the order in which they were last heard of. */
  readonly #tries = new Map<string, number[]>()

  /** Counts the try, unless it comes too soon or is one too many; then it costs nothing further. */
  admit({ peerId, address }: Source, now: number): boolean {
    const keys = address === undefined ? [peerId] : [peerId, address]
    if (!keys.every((key) => this.#mayTry(key, now))) return false
    for (const key of keys) {
      const recent = this.#recent(key, now)
      this.#tries.delete(key)
      this.#tries.set(key, [...recent, now])
    }
    for (const key of this.#tries.keys()) if (this.#tries.size > MAX_SOURCES) this.#tries.delete(key)
    return true
  }

  /** Takes a try back: it held the secret, so it was no guess, and a person may pair twice in a row. */
  forgive({ peerId, address }: Source, at: number): void {
    for (const key of address === undefined ? [peerId] : [peerId, address]) {
      const others = this.#tries.get(key)?.filter((one) => one !== at) ?? []
      if (others.length > 0) this.#tries.set(key, others)
      else this.#tries.delete(key)
    }
  }

  #mayTry(key: string, now: number): boolean {
    const recent = this.#recent(key, now)
    const last = recent.at(-1)
    return recent.length < MAX_TRIES_PER_SOURCE && (last === undefined || now - last >= MIN_INTERVAL_MS)
  }

  #recent(key: string, now: number): number[] {
    return (this.#tries.get(key) ?? []).filter((at) => now - at < SOURCE_WINDOW_MS)
  }
}

function hex(id: Uint8Array): string {
  return Buffer.from(id).toString('hex')
}
