/**
 * The Noise Protocol Framework (revision 34) a second time, on OpenSSL by way of node:crypto, for any handshake pattern
 * over 25519, ChaChaPoly and BLAKE2b. Published vectors show that this one is right; ours is then compared with it.
 */
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hash as oneShot,
} from 'node:crypto'

/** Pre-messages of the initiator and of the responder, then the messages, of sections 7 and 18.1. */
const PATTERNS: Record<string, string> = {
  N: '/s/e es',
  K: 's/s/e es ss',
  X: '/s/e es s ss',
  NN: '//e/e ee',
  NK: '/s/e es/e ee',
  NX: '//e/e ee s es',
  XN: '//e/e ee/s se',
  XK: '/s/e es/e ee/s se',
  XX: '//e/e ee s es/s se',
  KN: 's//e/e ee se',
  KK: 's/s/e es ss/e ee se',
  KX: 's//e/e ee se s es',
  IN: '//e s/e ee se',
  IK: '/s/e es s ss/e ee se',
  IX: '//e s/e ee se s es',
  NK1: '/s/e/e ee es',
  NX1: '//e/e ee s/es',
  X1N: '//e/e ee/s/se',
  X1K: '/s/e es/e ee/s/se',
  XK1: '/s/e/e ee es/s se',
  X1K1: '/s/e/e ee es/s/se',
  X1X: '//e/e ee s es/s/se',
  XX1: '//e/e ee s/es s se',
  X1X1: '//e/e ee s/es s/se',
  K1N: 's//e/e ee/se',
  K1K: 's/s/e es/e ee/se',
  KK1: 's/s/e/e ee se es',
  K1K1: 's/s/e/e ee es/se',
  K1X: 's//e/e ee s es/se',
  KX1: 's//e/e ee se s/es',
  K1X1: 's//e/e ee s/se es',
  I1N: '//e s/e ee/se',
  I1K: '/s/e es s/e ee/se',
  IK1: '/s/e s/e ee se es',
  I1K1: '/s/e s/e ee es/se',
  I1X: '//e s/e ee s es/se',
  IX1: '//e s/e ee se s/es',
  I1X1: '//e s/e ee s/se es',
}

interface Pair {
  publicKey: Uint8Array
  secretKey: Uint8Array
}

export interface OracleOptions {
  initiator: boolean
  prologue: Uint8Array
  psks?: readonly Uint8Array[]
  /** Secret keys; public ones are worked out. */
  staticKey?: Uint8Array | undefined
  ephemeral?: Uint8Array | undefined
  remoteStatic?: Uint8Array | undefined
}

const NONE = new Uint8Array(0)
const BLOCK_BYTES = 128
const PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex')
const SPKI = Buffer.from('302a300506032b656e032100', 'hex')

export class NoiseOracle {
  readonly #initiator: boolean
  readonly #usesPsk: boolean
  readonly #messages: string[][]
  readonly #psks: Uint8Array[]
  readonly #s: Pair | undefined
  readonly #e: Pair | undefined
  #rs: Uint8Array | undefined
  #re: Uint8Array | undefined
  #h: Uint8Array
  #ck: Uint8Array
  #key: Uint8Array | undefined
  #nonce = 0
  /** Ciphers of the initiator and of the responder, when the handshake is done. */
  transport: [Transport, Transport] | undefined

  /** `protocol` as Noise writes it: Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b */
  constructor(protocol: string, { initiator, prologue, psks = [], ...keys }: OracleOptions) {
    const [, base = '', modifiers = ''] =
      /^Noise_([A-Z1]+)([a-z0-9+]*)_25519_ChaChaPoly_BLAKE2b$/.exec(protocol) ?? []
    const [ours = '', theirs = '', ...messages] = (PATTERNS[base] ?? '').split('/')
    this.#messages = messages.map((message) => message.split(' '))
    for (const [, digits] of modifiers.matchAll(/psk(\d)/g)) {
      const place = Number(digits)
      if (place === 0) this.#messages[0]?.unshift('psk')
      else this.#messages[place - 1]?.push('psk')
    }
    this.#usesPsk = modifiers !== ''
    this.#initiator = initiator
    this.#psks = [...psks]
    this.#s = keys.staticKey && pairOf(keys.staticKey)
    this.#e = keys.ephemeral && pairOf(keys.ephemeral)
    this.#rs = keys.remoteStatic
    const name = Buffer.from(protocol)
    this.#h = name.length <= 64 ? Buffer.concat([name, Buffer.alloc(64 - name.length)]) : hash(name)
    this.#ck = this.#h
    this.#mixHash(prologue)
    for (const [of, isInitiators] of [
      [ours, true],
      [theirs, false],
    ] as const)
      if (of === 's') this.#mixHash(must(isInitiators === initiator ? this.#s?.publicKey : this.#rs))
  }

  /** The handshake hash so far. */
  get hash(): Uint8Array {
    return this.#h
  }

  write(payload: Uint8Array): Uint8Array {
    const out: Uint8Array[] = []
    for (const token of must(this.#messages.shift())) {
      if (token === 'e') {
        const { publicKey } = must(this.#e)
        out.push(publicKey)
        this.#mixHash(publicKey)
        if (this.#usesPsk) this.#mixKey(publicKey)
      } else if (token === 's') out.push(this.#seal(must(this.#s).publicKey))
      else this.#mixToken(token)
    }
    out.push(this.#seal(payload))
    this.#finish()
    return Buffer.concat(out)
  }

  read(message: Uint8Array): Uint8Array {
    let rest = message
    const take = (length: number) => {
      const piece = rest.subarray(0, length)
      rest = rest.subarray(length)
      return piece
    }
    for (const token of must(this.#messages.shift())) {
      if (token === 'e') {
        this.#re = take(32)
        this.#mixHash(this.#re)
        if (this.#usesPsk) this.#mixKey(this.#re)
      } else if (token === 's') this.#rs = this.#open(take(this.#key === undefined ? 32 : 48))
      else this.#mixToken(token)
    }
    const payload = this.#open(rest)
    this.#finish()
    return payload
  }

  #mixToken(token: string): void {
    if (token === 'psk') {
      const [ck, mixed, key] = hkdf(this.#ck, must(this.#psks.shift()), 3)
      this.#ck = must(ck)
      this.#mixHash(must(mixed))
      this.#setKey(must(key))
      return
    }
    // The initiator's key is named first.
    const [first, second] = this.#initiator ? token : [...token].reverse()
    const ours = must(first === 's' ? this.#s : this.#e)
    const theirs = must(second === 's' ? this.#rs : this.#re)
    this.#mixKey(exchange(ours.secretKey, theirs))
  }

  #mixKey(input: Uint8Array): void {
    const [ck, key] = hkdf(this.#ck, input, 2)
    this.#ck = must(ck)
    this.#setKey(must(key))
  }

  #setKey(key: Uint8Array): void {
    this.#key = key.subarray(0, 32)
    this.#nonce = 0
  }

  #mixHash(data: Uint8Array): void {
    this.#h = hash(this.#h, data)
  }

  #seal(plain: Uint8Array): Uint8Array {
    const out = this.#key === undefined ? plain : seal(this.#key, this.#nonce++, this.#h, plain)
    this.#mixHash(out)
    return out
  }

  #open(sealed: Uint8Array): Uint8Array {
    const out = this.#key === undefined ? sealed : open(this.#key, this.#nonce++, this.#h, sealed)
    this.#mixHash(sealed)
    return out
  }

  #finish(): void {
    if (this.#messages.length > 0) return
    const [one, two] = hkdf(this.#ck, NONE, 2)
    this.transport = [new Transport(must(one).subarray(0, 32)), new Transport(must(two).subarray(0, 32))]
  }
}

class Transport {
  readonly key: Uint8Array
  #sent = 0
  #received = 0

  constructor(key: Uint8Array) {
    this.key = key
  }

  seal(plain: Uint8Array): Uint8Array {
    return seal(this.key, this.#sent++, NONE, plain)
  }

  open(sealed: Uint8Array): Uint8Array {
    return open(this.key, this.#received++, NONE, sealed)
  }
}

export function pairOf(secretKey: Uint8Array): Pair {
  const key = createPublicKey(privateOf(secretKey))
  return { secretKey, publicKey: key.export({ type: 'spki', format: 'der' }).subarray(-32) }
}

export function exchange(secretKey: Uint8Array, publicKey: Uint8Array): Uint8Array {
  const theirs = createPublicKey({ key: Buffer.concat([SPKI, publicKey]), format: 'der', type: 'spki' })
  return diffieHellman({ privateKey: privateOf(secretKey), publicKey: theirs })
}

const privateOf = (secretKey: Uint8Array) =>
  createPrivateKey({ key: Buffer.concat([PKCS8, secretKey]), format: 'der', type: 'pkcs8' })

const hash = (...parts: Uint8Array[]): Uint8Array => oneShot('blake2b512', Buffer.concat(parts), 'buffer')

function hkdf(ck: Uint8Array, input: Uint8Array, count: number): Uint8Array[] {
  const mac = hmacBy(hmacBy(ck)(input))
  const out: Uint8Array[] = []
  for (let i = 1; i <= count; i++) out.push(mac(out.at(-1) ?? NONE, Uint8Array.of(i)))
  return out
}

/** HMAC (RFC 2104), for a key no longer than a block: OpenSSL's own costs ten times as much to set up. */
function hmacBy(key: Uint8Array): (...parts: Uint8Array[]) => Uint8Array {
  const inner = Buffer.alloc(BLOCK_BYTES, 0x36)
  const outer = Buffer.alloc(BLOCK_BYTES, 0x5c)
  for (let i = 0; i < key.length; i++) {
    inner[i] = 0x36 ^ (key[i] as number)
    outer[i] = 0x5c ^ (key[i] as number)
  }
  return (...parts) => hash(outer, hash(inner, ...parts))
}

function nonceOf(counter: number): Uint8Array {
  const nonce = Buffer.alloc(12)
  nonce.writeBigUInt64LE(BigInt(counter), 4)
  return nonce
}

function seal(key: Uint8Array, counter: number, ad: Uint8Array, plain: Uint8Array): Uint8Array {
  const cipher = createCipheriv('chacha20-poly1305', key, nonceOf(counter), { authTagLength: 16 })
  cipher.setAAD(ad, { plaintextLength: plain.length })
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}

function open(key: Uint8Array, counter: number, ad: Uint8Array, sealed: Uint8Array): Uint8Array {
  const cipher = createDecipheriv('chacha20-poly1305', key, nonceOf(counter), { authTagLength: 16 })
  cipher.setAAD(ad, { plaintextLength: sealed.length - 16 })
  cipher.setAuthTag(sealed.subarray(-16))
  return Buffer.concat([cipher.update(sealed.subarray(0, -16)), cipher.final()])
}

function must<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the handshake has no such key or message')
  return value
}
