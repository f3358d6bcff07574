import { randomBytes } from 'node:crypto'
import { Cpace, SHARE_BYTES } from './cpace.ts'
import { generateStaticKey, NoiseHandshake } from './noise.ts'
import {
  DONE,
  INVITE_ID_BYTES,
  NONCE_BYTES,
  PairingError,
  type PairingEvent,
  STATIC_BYTES,
  VERSION,
} from './pairing.ts'
import { PairingSide, sameBytes, send } from './pairing-side.ts'
import { decodeTerms, encodeTerms, grantOf, lineFor, type Terms } from './pairing-terms.ts'
import { channelOf, prologueOf, pskOf, sessionOf } from './pairing-transcript.ts'

export interface JoinerOptions {
  /** Our PeerID. */
  readonly self: string
  /** The PeerID of the other end of the stream, as libp2p has proven it. */
  readonly inviter: string
  /** The PeerID that the ticket names; a code names none. */
  readonly expected?: string
  /** 8 bytes. */
  readonly inviteId: Uint8Array
  /** Copied: overwrite yours when it is no longer needed. */
  readonly secret: Uint8Array
  /** What we call ourselves, and allow the inviter. */
  readonly terms: Terms
}

/** What it waits for, and what it then needs. */
type State =
  | { at: 'start'; secret: Uint8Array }
  | { at: 'nonce'; secret: Uint8Array; nonce: Uint8Array; hello: Uint8Array }
  | { at: 'share'; cpace: Cpace; staticKey: StaticKey; channel: Uint8Array; said: readonly Uint8Array[] }
  | { at: 'proof'; noise: NoiseHandshake; announced: Uint8Array }
  | { at: 'done'; theirs: Terms }
  | { at: 'over' }

type StaticKey = ReturnType<typeof generateStaticKey>

/**
 * The joiner's side of pairing.ts. Each run lets whoever is at the other end test one guess of the secret, so after a
 * failure a person decides whether to try again, never a loop.
 */
export class Joiner extends PairingSide {
  readonly #self: string
  readonly #inviter: string
  readonly #expected: string | undefined
  readonly #inviteId: Uint8Array
  readonly #terms: Terms
  readonly #said: Uint8Array
  #state: State

  /** @throws FarportError ERR_USAGE when our terms can't be said */
  constructor({ self, inviter, expected, inviteId, secret, terms }: JoinerOptions) {
    super()
    if (inviteId.length !== INVITE_ID_BYTES) throw new RangeError('an invite id has 8 bytes')
    this.#self = self
    this.#inviter = inviter
    this.#expected = expected
    this.#inviteId = Uint8Array.from(inviteId)
    this.#terms = terms
    this.#said = encodeTerms(terms, self)
    this.#state = { at: 'start', secret: Uint8Array.from(secret) }
  }

  /** To be called once, before anything else. */
  start(): PairingEvent[] {
    return this.guard(() => {
      if (this.#state.at !== 'start') throw new Error('this pairing has begun already')
      if (this.#inviter === this.#self) throw new PairingError('self')
      if (this.#expected !== undefined && this.#inviter !== this.#expected)
        throw new PairingError('wrong-peer')
      const nonce = randomBytes(NONCE_BYTES)
      const hello = Buffer.concat([Uint8Array.of(VERSION), this.#inviteId, nonce])
      this.#state = { at: 'nonce', secret: this.#state.secret, nonce, hello }
      return [send(hello)]
    })
  }

  protected override receive(message: Uint8Array): PairingEvent[] {
    const state = this.#state
    switch (state.at) {
      case 'nonce':
        return this.#share(state, message)
      case 'share':
        return this.#prove(state, message)
      case 'proof':
        return this.#agree(state, message)
      case 'done':
        if (!sameBytes(message, DONE)) throw new PairingError('malformed')
        this.finish()
        return [
          {
            type: 'paired',
            peer: lineFor(this.#inviter, state.theirs, this.#terms),
            allows: grantOf(state.theirs),
          },
        ]
      case 'start':
      case 'over':
        throw new PairingError('malformed')
    }
  }

  protected override forget(): void {
    const state = this.#state
    this.#state = { at: 'over' }
    switch (state.at) {
      case 'start':
      case 'nonce':
        state.secret.fill(0)
        break
      case 'share':
        state.cpace[Symbol.dispose]()
        state.staticKey.secretKey.fill(0)
        break
      case 'proof':
        state.noise[Symbol.dispose]()
        break
      case 'done':
      case 'over':
        break
    }
  }

  /** M1 → M2 */
  #share({ secret, nonce, hello }: State & { at: 'nonce' }, message: Uint8Array): PairingEvent[] {
    if (message.length !== NONCE_BYTES) throw new PairingError('malformed')
    const parties = { joiner: this.#self, inviter: this.#inviter, inviteId: this.#inviteId }
    const channel = channelOf(parties)
    const cpace = new Cpace({ password: secret, channel, session: sessionOf(nonce, message) })
    secret.fill(0)
    const staticKey = generateStaticKey()
    const share = Buffer.concat([cpace.share, staticKey.publicKey])
    this.#state = { at: 'share', cpace, staticKey, channel, said: [hello, message, share] }
    return [send(share)]
  }

  /** M3 → M4 */
  #prove({ cpace, staticKey, channel, said }: State & { at: 'share' }, message: Uint8Array): PairingEvent[] {
    if (message.length !== SHARE_BYTES + STATIC_BYTES) throw new PairingError('malformed')
    const theirShare = message.subarray(0, SHARE_BYTES)
    const announced = message.subarray(SHARE_BYTES)
    if (sameBytes(theirShare, cpace.share) || sameBytes(announced, staticKey.publicKey))
      throw new PairingError('reflected')
    const key = cpace.finish({
      role: 'initiator',
      theirShare,
      initiatorData: staticKey.publicKey,
      responderData: announced,
    })
    const psk = pskOf(key)
    const prologue = prologueOf(channel, [...said, message])
    const noise = new NoiseHandshake({ role: 'initiator', psk, prologue, staticKey })
    for (const secret of [key, psk, staticKey.secretKey]) secret.fill(0)
    this.#state = { at: 'proof', noise, announced }
    return [send(noise.write())]
  }

  /** M5 → M6 */
  #agree({ noise, announced }: State & { at: 'proof' }, message: Uint8Array): PairingEvent[] {
    const payload = noise.read(message)
    if (noise.remoteStatic === undefined || !sameBytes(noise.remoteStatic, announced))
      throw new PairingError('static-key')
    const theirs = decodeTerms(payload, this.#inviter)
    const answer = send(noise.write(this.#said))
    this.#state = { at: 'done', theirs }
    return [answer]
  }
}
