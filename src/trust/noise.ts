/**
 * Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b (Noise Protocol Framework, revision 34), the handshake alone:
 *
 *   →  psk, e             48 bytes and the payload: 32 ephemeral key | payload | 16 tag
 *   ←  e, ee, s, es       96 bytes and the payload: 32 ephemeral key | 48 sealed static key | payload | 16 tag
 *   →  s, se              64 bytes and the payload: 48 sealed static key | payload | 16 tag
 *
 * The arithmetic is noise-handshake's. This file takes away what can go wrong around it: it accepts a psk of any length
 * and hashes memory nobody wrote when there is none, has no sense of turns, goes on after a failure, keeps and later
 * overwrites what it was given to read, completes with its own reflection, and leaves secrets lying about. Its transport
 * ciphers are not used, since they repeat a nonce after 2^32 messages.
 */
import NoiseState from 'noise-handshake'
import dh, { type KeyPair } from 'noise-handshake/dh.js'

const KEY_BYTES = 32
/** The longest message either way. */
export const MAX_NOISE_MESSAGE_BYTES = 1024
/** What the second message, the longest, needs beside its payload. */
const NOISE_OVERHEAD_BYTES = 96

/** Whatever went wrong, the handshake is over. */
export class NoiseError extends Error {
  override readonly name = 'NoiseError'
}

export interface NoiseOptions {
  readonly role: 'initiator' | 'responder'
  /** 32 bytes that nobody could guess: with a mere password here, the first message is enough to find it offline. */
  readonly psk: Uint8Array
  /** What both sides must have seen alike. */
  readonly prologue: Uint8Array
  readonly staticKey: KeyPair
}

type State = 'writing' | 'reading' | 'complete' | 'destroyed'

/**
 * One side of one handshake: `write` and `read` by turns, the initiator first, until it is complete after three. Copies
 * what it is given; its copies of secrets are overwritten when it ends, either way.
 */
export class NoiseHandshake implements Disposable {
  readonly #noise: NoiseState
  readonly #ownStatic: Uint8Array
  #state: State
  #remoteStatic: Uint8Array | undefined
  #hash: Uint8Array | undefined

  /** @throws NoiseError when the psk or the static key can't be one */
  constructor({ role, psk, prologue, staticKey }: NoiseOptions) {
    requireKey(psk, 'psk')
    requireKey(staticKey.publicKey, 'public key')
    requireKey(staticKey.secretKey, 'secret key')
    this.#ownStatic = Uint8Array.from(staticKey.publicKey)
    this.#noise = new NoiseState(
      'XXpsk0',
      role === 'initiator',
      { publicKey: this.#ownStatic, secretKey: Uint8Array.from(staticKey.secretKey) },
      { psk: Uint8Array.from(psk) },
    )
    this.#noise.initialise(Uint8Array.from(prologue))
    this.#state = role === 'initiator' ? 'writing' : 'reading'
  }

  /** Whose turn it is. */
  get state(): State {
    return this.#state
  }

  /** The peer's static public key, proven to be its own once a message that carries it has been read. */
  get remoteStatic(): Uint8Array | undefined {
    return this.#remoteStatic && Uint8Array.from(this.#remoteStatic)
  }

  /** The handshake hash, 64 bytes, once complete: the same on both sides, and of this one handshake only. */
  get hash(): Uint8Array | undefined {
    return this.#hash && Uint8Array.from(this.#hash)
  }

  /** The next message, with a payload inside. @throws NoiseError */
  write(payload: Uint8Array = new Uint8Array(0)): Uint8Array {
    return this.#step('writing', () => {
      if (payload.length > MAX_NOISE_MESSAGE_BYTES - NOISE_OVERHEAD_BYTES)
        throw new NoiseError(`a payload of ${payload.length} bytes is too long`)
      return this.#noise.send(payload)
    })
  }

  /** The payload of the peer's next message. @throws NoiseError */
  read(message: Uint8Array): Uint8Array {
    return this.#step('reading', () => {
      if (message.length > MAX_NOISE_MESSAGE_BYTES)
        throw new NoiseError(`a message of ${message.length} bytes is too long`)
      return this.#noise.recv(Uint8Array.from(message))
    })
  }

  [Symbol.dispose](): void {
    this.#state = 'destroyed'
    this.#clear()
  }

  #step(turn: 'writing' | 'reading', work: () => Uint8Array): Uint8Array {
    try {
      if (this.#state !== turn) throw new NoiseError(`the handshake is ${this.#state}, not ${turn}`)
      const out = Uint8Array.from(work())
      // The psk is mixed in with the first message and not needed any more.
      this.#noise.psk.fill(0)
      this.#learn()
      return out
    } catch (error) {
      this[Symbol.dispose]()
      if (error instanceof NoiseError) throw error
      throw new NoiseError('the message is not of this handshake', { cause: error })
    }
  }

  #learn(): void {
    const { rs, complete, hash } = this.#noise
    if (rs !== null) {
      if (Buffer.compare(rs, this.#ownStatic) === 0) throw new NoiseError('the peer has our own static key')
      this.#remoteStatic ??= Uint8Array.from(rs)
    }
    if (complete && hash !== null) {
      this.#hash = Uint8Array.from(hash)
      this.#state = 'complete'
      this.#clear()
    } else this.#state = this.#state === 'writing' ? 'reading' : 'writing'
  }

  #clear(): void {
    const { psk, s, e, key, chainingKey, tx, rx } = this.#noise
    for (const secret of [psk, s.secretKey, e?.secretKey, key, chainingKey, tx, rx]) secret?.fill(0)
  }
}

/** A fresh X25519 key pair. The caller overwrites the secret key when done with it. */
export function generateStaticKey(): KeyPair {
  return dh.generateKeyPair()
}

function requireKey(key: Uint8Array, what: string): void {
  // Untyped callers exist, and what is missing must not become what is hashed.
  if (!(key instanceof Uint8Array) || key.length !== KEY_BYTES || key.every((byte) => byte === 0))
    throw new NoiseError(`the ${what} is not a key of ${KEY_BYTES} bytes`)
}
