import { randomBytes } from 'node:crypto'
import { Cpace, SHARE_BYTES } from './cpace.ts'
import type { Attempt } from './invites.ts'
import { generateStaticKey, NoiseHandshake } from './noise.ts'
import {
  DONE,
  INVITE_ID_BYTES,
  NONCE_BYTES,
  PairingError,
  type PairingEvent,
  type PairingFailure,
  STATIC_BYTES,
  VERSION,
} from './pairing.ts'
import { PairingSide, sameBytes, send } from './pairing-side.ts'
import { decodeTerms, grantOf, lineFor, type Terms } from './pairing-terms.ts'
import { channelOf, prologueOf, pskOf, sessionOf } from './pairing-transcript.ts'

export interface InviterOptions {
  /** Our PeerID. */
  readonly self: string
  /** The PeerID of the other end of the stream, as libp2p has proven it. */
  readonly joiner: string
  /** Takes a try off an invite: Invites.begin, for the source of this stream. @throws PairingError */
  readonly begin: (inviteId: Uint8Array) => Attempt
}

/** What it waits for, and what it then needs. */
type State =
  | { at: 'hello' }
  | { at: 'share'; attempt: Attempt; cpace: Cpace; channel: Uint8Array; said: readonly Uint8Array[] }
  | { at: 'proof'; attempt: Attempt; noise: NoiseHandshake; announced: Uint8Array }
  | { at: 'terms'; attempt: Attempt; noise: NoiseHandshake; announced: Uint8Array }
  | { at: 'commit'; attempt: Attempt; theirs: Terms }
  | { at: 'over' }

/** The inviter's side of pairing.ts. */
export class Inviter extends PairingSide {
  readonly #self: string
  readonly #joiner: string
  readonly #begin: InviterOptions['begin']
  #state: State = { at: 'hello' }

  constructor({ self, joiner, begin }: InviterOptions) {
    super()
    this.#self = self
    this.#joiner = joiner
    this.#begin = begin
  }

  /**
   * After the event `commit`: spends the invite, has the line written, and only then tells the joiner. From here on the
   * peer can't undo it, not even by going away.
   */
  async commit(): Promise<PairingEvent[]> {
    if (this.#state.at !== 'commit') throw new Error('no joiner has proven itself')
    const { attempt, theirs } = this.#state
    this.#state = { at: 'over' }
    this.finish()
    try {
      const peer = await attempt.commit(lineFor(this.#joiner, theirs, attempt.terms))
      return [send(DONE), { type: 'paired', peer, allows: grantOf(theirs) }]
    } catch (error) {
      return this.fail(
        error instanceof PairingError ? error : new PairingError('not-recorded', { cause: error }),
      )
    }
  }

  protected override receive(message: Uint8Array): PairingEvent[] {
    const state = this.#state
    switch (state.at) {
      case 'hello':
        return this.#answer(message)
      case 'share':
        return this.#share(state, message)
      case 'proof':
        return this.#prove(state, message)
      case 'terms':
        return this.#agree(state, message)
      case 'commit':
      case 'over':
        throw new PairingError('malformed')
    }
  }

  protected override forget(reason: PairingFailure): void {
    const state = this.#state
    this.#state = { at: 'over' }
    switch (state.at) {
      case 'share':
        state.cpace[Symbol.dispose]()
        state.attempt.fail(reason)
        break
      case 'proof':
      case 'terms':
        state.noise[Symbol.dispose]()
        state.attempt.fail(reason)
        break
      case 'commit':
        state.attempt.fail(reason)
        break
      case 'hello':
      case 'over':
        break
    }
  }

  /** M0 → M1 */
  #answer(message: Uint8Array): PairingEvent[] {
    if (this.#joiner === this.#self) throw new PairingError('self')
    if (message[0] !== VERSION) throw new PairingError('version')
    if (message.length !== 1 + INVITE_ID_BYTES + NONCE_BYTES) throw new PairingError('malformed')
    const inviteId = message.subarray(1, 1 + INVITE_ID_BYTES)
    const attempt = this.#begin(inviteId)
    const nonce = randomBytes(NONCE_BYTES)
    const channel = channelOf({ joiner: this.#joiner, inviter: this.#self, inviteId })
    const session = sessionOf(message.subarray(1 + INVITE_ID_BYTES), nonce)
    const cpace = new Cpace({ password: attempt.secret, channel, session })
    this.#state = { at: 'share', attempt, cpace, channel, said: [message, nonce] }
    return [send(nonce)]
  }

  /** M2 → M3 */
  #share({ attempt, cpace, channel, said }: State & { at: 'share' }, message: Uint8Array): PairingEvent[] {
    if (message.length !== SHARE_BYTES + STATIC_BYTES) throw new PairingError('malformed')
    const theirShare = message.subarray(0, SHARE_BYTES)
    const announced = message.subarray(SHARE_BYTES)
    const staticKey = generateStaticKey()
    const share = Buffer.concat([cpace.share, staticKey.publicKey])
    const key = cpace.finish({
      role: 'responder',
      theirShare,
      initiatorData: announced,
      responderData: staticKey.publicKey,
    })
    const psk = pskOf(key)
    const prologue = prologueOf(channel, [...said, message, share])
    const noise = new NoiseHandshake({ role: 'responder', psk, prologue, staticKey })
    for (const secret of [key, psk, staticKey.secretKey]) secret.fill(0)
    this.#state = { at: 'proof', attempt, noise, announced }
    return [send(share)]
  }

  /** M4 → M5 */
  #prove({ attempt, noise, announced }: State & { at: 'proof' }, message: Uint8Array): PairingEvent[] {
    // A payload here would be none that a version 1 joiner sends.
    if (noise.read(message).length > 0) throw new PairingError('malformed')
    this.#state = { at: 'terms', attempt, noise, announced }
    return [send(noise.write(attempt.encodedTerms))]
  }

  /** M6, and a pause until commit() */
  #agree({ attempt, noise, announced }: State & { at: 'terms' }, message: Uint8Array): PairingEvent[] {
    const payload = noise.read(message)
    if (noise.remoteStatic === undefined || !sameBytes(noise.remoteStatic, announced))
      throw new PairingError('static-key')
    const theirs = decodeTerms(payload, this.#joiner)
    this.#state = { at: 'commit', attempt, theirs }
    return [{ type: 'commit' }]
  }
}
