/** What others have published to find mistakes in arithmetic that we take from libraries. See test/vectors/README.md. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import fc from 'fast-check'
import NoiseState from 'noise-handshake'
import dh, { type KeyPair } from 'noise-handshake/dh.js'
import { NoiseError, NoiseHandshake } from '../../src/trust/noise.ts'
import { exchange, NoiseOracle, pairOf } from './noise-oracle.ts'

const bytes = (digits = '') => new Uint8Array(Buffer.from(digits, 'hex'))
const hex = (data: Uint8Array) => Buffer.from(data).toString('hex')
const read = (name: string) =>
  JSON.parse(readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8'))

// Noise.

interface NoiseVector {
  protocol_name: string
  init_prologue: string
  init_psks?: string[]
  init_static?: string
  init_ephemeral?: string
  init_remote_static?: string
  resp_prologue: string
  resp_psks?: string[]
  resp_static?: string
  resp_ephemeral?: string
  resp_remote_static?: string
  handshake_hash?: string
  messages: { payload: string; ciphertext: string }[]
}

const published = ['cacophony', 'snow'].flatMap((origin) =>
  (read(`noise/${origin}.json`).vectors as NoiseVector[]).map((vector) => ({ origin, vector })),
)

const optional = (digits?: string) => (digits === undefined ? undefined : bytes(digits))

/** Messages after the handshake go by turns too, but for patterns in which only the initiator speaks. */
const fromInitiator = (vector: NoiseVector, index: number) =>
  /^Noise_[NKX](psk\d)?_/.test(vector.protocol_name) || index % 2 === 0

test('the oracle gives the bytes of every published vector, on both sides', () => {
  assert.equal(published.length, 110)
  for (const { origin, vector } of published) {
    const what = `${origin} ${vector.protocol_name}`
    const initiator = new NoiseOracle(vector.protocol_name, {
      initiator: true,
      prologue: bytes(vector.init_prologue),
      psks: (vector.init_psks ?? []).map(bytes),
      staticKey: optional(vector.init_static),
      ephemeral: optional(vector.init_ephemeral),
      remoteStatic: optional(vector.init_remote_static),
    })
    const responder = new NoiseOracle(vector.protocol_name, {
      initiator: false,
      prologue: bytes(vector.resp_prologue),
      psks: (vector.resp_psks ?? []).map(bytes),
      staticKey: optional(vector.resp_static),
      ephemeral: optional(vector.resp_ephemeral),
      remoteStatic: optional(vector.resp_remote_static),
    })
    for (const [i, { payload, ciphertext }] of vector.messages.entries()) {
      const first = fromInitiator(vector, i)
      const [from, to] = first ? [initiator, responder] : [responder, initiator]
      const way = first ? 0 : 1
      const sealed = from.transport?.[way].seal(bytes(payload)) ?? from.write(bytes(payload))
      assert.equal(hex(sealed), ciphertext, `${what}, message ${i}`)
      // Written first, so that the handshake's last message is read as one.
      const plain = to.transport?.[way].open(sealed) ?? to.read(sealed)
      assert.equal(hex(plain), payload, `${what}, message ${i}`)
    }
    for (const side of [initiator, responder])
      if (vector.handshake_hash !== undefined) assert.equal(hex(side.hash), vector.handshake_hash, what)
  }
})

/** noise-handshake as it is, for patterns that our wrapper does not offer. */
type AnyNoise = Omit<InstanceType<typeof NoiseState>, 'initialise' | 'e'> & {
  e: KeyPair | null
  initialise(prologue: Uint8Array, remoteStatic?: Uint8Array): void
}
const AnyNoiseState = NoiseState as unknown as new (
  pattern: string,
  initiator: boolean,
  staticKey?: KeyPair,
  options?: { psk?: Uint8Array },
) => AnyNoise

test('noise-handshake gives the bytes of every published vector whose pattern it has', () => {
  const known = /^Noise_(NN|NNpsk0|XX|IK|XK)_/
  const vectors = published.filter(({ vector }) => known.test(vector.protocol_name))
  assert.equal(vectors.length, 9)
  for (const { origin, vector } of vectors) {
    const pattern = known.exec(vector.protocol_name)?.[1] ?? ''
    const sideOf = (role: 'init' | 'resp') => {
      const secret = vector[`${role}_static`]
      const [psk] = vector[`${role}_psks`] ?? []
      const side = new AnyNoiseState(
        pattern,
        role === 'init',
        secret === undefined ? undefined : dh.generateKeyPair(bytes(secret)),
        psk === undefined ? {} : { psk: bytes(psk) },
      )
      side.e = dh.generateKeyPair(bytes(vector[`${role}_ephemeral`]))
      side.initialise(bytes(vector[`${role}_prologue`]), optional(vector[`${role}_remote_static`]))
      return side
    }
    const [initiator, responder] = [sideOf('init'), sideOf('resp')]
    for (const [i, { payload, ciphertext }] of vector.messages.entries()) {
      if (initiator.complete) break
      const [from, to] = i % 2 === 0 ? [initiator, responder] : [responder, initiator]
      const message = from.send(bytes(payload))
      assert.equal(hex(message), ciphertext, `${origin} ${vector.protocol_name}, message ${i}`)
      assert.equal(hex(to.recv(Uint8Array.from(message))), payload)
    }
    assert.ok(initiator.complete && responder.complete)
    if (vector.handshake_hash !== undefined)
      for (const { hash } of [initiator, responder])
        assert.equal(hex(hash as Uint8Array), vector.handshake_hash)
  }
})

test('our XXpsk0, of which nobody has published a vector, gives the bytes of the oracle, in both roles', (t) => {
  const key = fc
    .uint8Array({ minLength: 32, maxLength: 32 })
    .filter((secret) => secret.some((byte) => byte !== 0))
  const payload = fc.uint8Array({ maxLength: 100 })
  const drawn: KeyPair[] = []
  const make = dh.generateKeyPair
  t.mock.method(dh, 'generateKeyPair', (secret?: Uint8Array) => (secret ? make(secret) : drawn.shift()))
  fc.assert(
    fc.property(
      fc.record({ psk: key, prologue: payload, statics: fc.tuple(key, key), ephemerals: fc.tuple(key, key) }),
      fc.tuple(payload, payload, payload),
      fc.boolean(),
      ({ psk, prologue, statics, ephemerals }, payloads, oursBegins) => {
        const mine = oursBegins ? 0 : 1
        const secret = (secrets: [Uint8Array, Uint8Array], index: number) => secrets[index] as Uint8Array
        const role = oursBegins ? 'initiator' : 'responder'
        const ours = new NoiseHandshake({ role, psk, prologue, staticKey: pairOf(secret(statics, mine)) })
        const oracle = new NoiseOracle('Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b', {
          initiator: !oursBegins,
          prologue,
          psks: [psk],
          staticKey: secret(statics, 1 - mine),
          ephemeral: secret(ephemerals, 1 - mine),
        })
        drawn.splice(0, drawn.length, make(Uint8Array.from(secret(ephemerals, mine))))
        for (const [i, said] of payloads.entries()) {
          const [from, to] = (i % 2 === 0) === oursBegins ? [ours, oracle] : [oracle, ours]
          assert.equal(hex(to.read(from.write(said))), hex(said))
        }
        assert.equal(hex(ours.hash as Uint8Array), hex(oracle.hash))
        assert.equal(hex(ours.remoteStatic as Uint8Array), hex(pairOf(secret(statics, 1 - mine)).publicKey))
      },
    ),
    { numRuns: 60 },
  )
})

// Wycheproof.

interface Group<Test> {
  tests: (Test & { tcId: number; result: 'valid' | 'invalid' | 'acceptable'; flags: string[] })[]
}

const groupsOf = <Extra, Test>(name: string, total: number) => {
  const file = read(`wycheproof/${name}.json`) as { testGroups: (Extra & Group<Test>)[] }
  assert.equal(file.testGroups.flatMap(({ tests }) => tests).length, total)
  return file.testGroups
}

const requireAsNoise = createRequire(import.meta.resolve('noise-handshake'))

test('Wycheproof, X25519: each product is right, and one that is zero is refused', () => {
  const { dh: multiply } = dh as unknown as {
    dh(publicKey: Uint8Array, pair: { secretKey: Uint8Array }): Uint8Array
  }
  const tests = groupsOf<object, { public: string; private: string; shared: string }>('x25519', 518)
  let zeros = 0
  for (const { tcId, ...of } of tests.flatMap(({ tests }) => tests)) {
    const work = () => multiply(bytes(of.public), { secretKey: bytes(of.private) })
    if (/^0+$/.test(of.shared)) {
      zeros++
      assert.throws(work, `${tcId}`)
    } else {
      assert.equal(hex(work()), of.shared, `${tcId}`)
      assert.equal(hex(exchange(bytes(of.private), bytes(of.public))), of.shared, `oracle, ${tcId}`)
    }
  }
  assert.equal(zeros, tests.flatMap(({ tests }) => tests).filter(({ shared }) => /^0+$/.test(shared)).length)
  assert.ok(zeros > 20)
})

test('Wycheproof, X25519: no ephemeral key that leads to zero gets through a handshake', (t) => {
  const points = groupsOf<object, { public: string; shared: string }>('x25519', 518)
    .flatMap(({ tests }) => tests)
    .filter(({ shared }) => /^0+$/.test(shared))
  const [psk, prologue] = [bytes('05'.repeat(32)), new Uint8Array(0)]
  const make = dh.generateKeyPair
  for (const of of points) {
    const side = (role: 'initiator' | 'responder') =>
      new NoiseHandshake({ role, psk, prologue, staticKey: make() })
    const [initiator, responder] = [side('initiator'), side('responder')]
    const evil = { publicKey: bytes(of.public), secretKey: bytes('07'.repeat(32)) }
    const drawing = t.mock.method(dh, 'generateKeyPair', () => evil)
    const first = initiator.write()
    drawing.mock.restore()
    // The first message has no Diffie-Hellman in it yet.
    responder.read(first)
    assert.throws(() => responder.write(), NoiseError, `${of.tcId}`)
  }
})

test('Wycheproof, ChaCha20-Poly1305: what is right opens and is sealed alike, what is forged does not open', () => {
  const sodium = requireAsNoise('sodium-universal') as Record<
    string,
    (...args: (Uint8Array | null)[]) => void
  >
  const seal = sodium.crypto_aead_chacha20poly1305_ietf_encrypt
  const open = sodium.crypto_aead_chacha20poly1305_ietf_decrypt
  assert.ok(seal !== undefined && open !== undefined)
  type Aead = { key: string; iv: string; aad: string; msg: string; ct: string; tag: string }
  for (const { ivSize, tests } of groupsOf<{ ivSize: number }, Aead>('chacha20_poly1305', 325))
    for (const { tcId, result, ...of } of tests) {
      const sealed = bytes(of.ct + of.tag)
      const plain = new Uint8Array(bytes(of.ct).length)
      const opening = () => open(plain, null, sealed, bytes(of.aad), bytes(of.iv), bytes(of.key))
      if (result !== 'valid' || ivSize !== 96) {
        assert.equal(result, 'invalid')
        assert.throws(opening, `${tcId}`)
        continue
      }
      opening()
      assert.equal(hex(plain), of.msg, `${tcId}`)
      const again = new Uint8Array(sealed.length)
      seal(again, bytes(of.msg), bytes(of.aad), null, bytes(of.iv), bytes(of.key))
      assert.equal(hex(again), hex(sealed), `${tcId}`)
    }
})

test('Wycheproof, Ed25519: the signatures on which PeerIDs rest', async () => {
  const groups = groupsOf<{ publicKey: { pk: string } }, { msg: string; sig: string }>('ed25519', 151)
  for (const { publicKey, tests } of groups)
    for (const { tcId, msg, sig, result } of tests) {
      const verify = async () => publicKeyFromRaw(bytes(publicKey.pk)).verify(bytes(msg), bytes(sig))
      // Some implementations throw for a signature that can't be one; that is a no.
      const verified = await verify().catch(() => false)
      assert.equal(verified, result === 'valid', `${tcId}`)
    }
})
