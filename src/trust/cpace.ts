/**
 * CPace: a password in, a key that only somebody with the same password has out, and nothing in between that a password
 * could be tried on. draft-irtf-cfrg-cpace-21 over ristretto255 and SHA-512, in its initiator-responder form.
 *
 *   lv(x)  = LEB128 length of x | x
 *   g      = ristretto255 element derivation (RFC 9496) of
 *            SHA-512( lv("CPaceRistretto255") | lv(password) | lv(zeros) | lv(channel) | lv(session) )
 *            where the zeros fill the first three up to SHA-512's block of 128 bytes
 *   Y      = y * g, 32 bytes, with a fresh y: what each sends
 *   K      = y * the other's Y; a Y that is no canonical encoding, or a K that is the identity, ends the exchange
 *   key    = SHA-512( lv("CPaceRistretto255_ISK") | lv(session) | lv(K) | lv(Ya) | lv(ADa) | lv(Yb) | lv(ADb) ), 64 bytes
 *
 * What is secret is overwritten after use, as far as it is ours: libsodium's WebAssembly memory and JavaScript's own
 * copies are out of reach. Loading this file waits for libsodium, so it is for whoever is about to pair.
 */
import { createHash } from 'node:crypto'
import sodium from 'libsodium-wrappers-sumo'

await sodium.ready

/** The length of a share. */
export const SHARE_BYTES = 32

const DOMAIN = Buffer.from('CPaceRistretto255')
const KEY_DOMAIN = Buffer.from('CPaceRistretto255_ISK')
const SHA512_BLOCK_BYTES = 128

/** The other's share can't be used. */
export class CpaceError extends Error {
  override readonly name = 'CpaceError'
}

export interface CpaceInput {
  /** What both know and nobody else should. Not kept. */
  readonly password: Uint8Array
  /** CI in the draft: who talks to whom, over what. */
  readonly channel: Uint8Array
  /** sid in the draft: fresh in each run, with a part from either side. */
  readonly session: Uint8Array
}

/** The other's share, and what each side sent along with its own, in the order of the roles. */
export interface CpaceExchange {
  readonly role: 'initiator' | 'responder'
  readonly theirShare: Uint8Array
  /** ADa and ADb in the draft. */
  readonly initiatorData: Uint8Array
  readonly responderData: Uint8Array
}

/** One side of one run: made, asked for one key, over. */
export class Cpace implements Disposable {
  /** To be sent to the other side. */
  readonly share: Uint8Array
  readonly #session: Uint8Array
  readonly #scalar: Uint8Array

  constructor({ password, channel, session }: CpaceInput) {
    const generator = generatorOf(password, channel, session)
    this.#session = Uint8Array.from(session)
    this.#scalar = sodium.crypto_core_ristretto255_scalar_random()
    this.share = multiply(this.#scalar, generator)
    generator.fill(0)
  }

  /**
   * The key of 64 bytes. That the other side has it too is not known until it shows so.
   * @throws CpaceError
   */
  finish({ role, theirShare, initiatorData, responderData }: CpaceExchange): Uint8Array {
    try {
      const point = multiply(this.#scalar, theirShare)
      const [ya, yb] = role === 'initiator' ? [this.share, theirShare] : [theirShare, this.share]
      const input = lvCat(KEY_DOMAIN, this.#session, point, ya, initiatorData, yb, responderData)
      const key = createHash('sha512').update(input).digest()
      point.fill(0)
      input.fill(0)
      return key
    } finally {
      this[Symbol.dispose]()
    }
  }

  [Symbol.dispose](): void {
    // A zero scalar leads to the identity, so a second finish() throws.
    this.#scalar.fill(0)
  }
}

/** Each part behind its length: no two lists of parts give the same bytes. */
export function lvCat(...parts: readonly Uint8Array[]): Buffer {
  const size = parts.reduce((sum, part) => sum + lengthBytes(part.length).length + part.length, 0)
  // Not from Node's pool, where what is secret would lie next to others' data.
  const out = Buffer.alloc(size)
  let at = 0
  for (const part of parts) {
    const length = lengthBytes(part.length)
    out.set(length, at)
    out.set(part, at + length.length)
    at += length.length + part.length
  }
  return out
}

function generatorOf(password: Uint8Array, channel: Uint8Array, session: Uint8Array): Uint8Array {
  const head = lengthBytes(password.length).length + password.length + 1 + DOMAIN.length
  const zeros = Buffer.alloc(Math.max(0, SHA512_BLOCK_BYTES - 1 - head))
  const input = lvCat(DOMAIN, password, zeros, channel, session)
  const hash = createHash('sha512').update(input).digest()
  const generator = sodium.crypto_core_ristretto255_from_hash(hash)
  input.fill(0)
  hash.fill(0)
  return generator
}

/** libsodium refuses wrong lengths, non-canonical encodings and the identity as a result. */
function multiply(scalar: Uint8Array, element: Uint8Array): Uint8Array {
  try {
    return sodium.crypto_scalarmult_ristretto255(scalar, element)
  } catch (cause) {
    throw new CpaceError('the share is not an element that can be used', { cause })
  }
}

/** LEB128: seven bits at a time, the lowest first. */
function lengthBytes(length: number): number[] {
  return length < 0x80 ? [length] : [(length & 0x7f) | 0x80, ...lengthBytes(length >>> 7)]
}
