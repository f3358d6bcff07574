import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import NoiseState from 'noise-handshake'
import dh, { type KeyPair } from 'noise-handshake/dh.js'
import {
  generateStaticKey,
  MAX_NOISE_MESSAGE_BYTES,
  NoiseError,
  NoiseHandshake,
} from '../../src/trust/noise.ts'

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'))
const hex = (data: Uint8Array | undefined) => data && Buffer.from(data).toString('hex')
const text = (data: string) => new Uint8Array(Buffer.from(data))

const psk = bytes('05'.repeat(32))
const prologue = text('what both have seen')
const staticKey = generateStaticKey()
const initiatorOf = (of = {}) =>
  new NoiseHandshake({ role: 'initiator', psk, prologue, staticKey: generateStaticKey(), ...of })
const responderOf = (of = {}) =>
  new NoiseHandshake({ role: 'responder', psk, prologue, staticKey: generateStaticKey(), ...of })

/** The two, and their three messages so far as `upTo`. */
function talk(initiator: NoiseHandshake, responder: NoiseHandshake, upTo = 3): Uint8Array[] {
  const messages: Uint8Array[] = []
  for (let i = 0; i < upTo; i++) {
    const [from, to] = i % 2 === 0 ? [initiator, responder] : [responder, initiator]
    const message = from.write(text(`payload ${i}`))
    messages.push(Uint8Array.from(message))
    assert.equal(Buffer.from(to.read(message)).toString(), `payload ${i}`)
  }
  return messages
}

const vector = JSON.parse(
  readFileSync(new URL('../vectors/xxpsk0-vector.json', import.meta.url), 'utf8'),
) as Record<string, string>
const of = (name: string) => bytes(vector[name] ?? '')

/** The message of a side whose ephemeral key is not left to chance. */
function writeWith(t: TestContext, ephemeral: KeyPair, side: NoiseHandshake, payload = ''): Uint8Array {
  const random = t.mock.method(dh, 'generateKeyPair', () => ephemeral)
  try {
    return side.write(text(payload))
  } finally {
    random.mock.restore()
  }
}

test('the golden vector, both sides', (t) => {
  const shared = { psk: of('psk'), prologue: of('prologue') }
  const initiator = initiatorOf({ ...shared, staticKey: dh.generateKeyPair(of('init_static')) })
  const responder = responderOf({ ...shared, staticKey: dh.generateKeyPair(of('resp_static')) })
  for (const [i, payload] of ['one', 'two', 'three'].entries()) {
    const [from, to] = i % 2 === 0 ? [initiator, responder] : [responder, initiator]
    const ephemeral = dh.generateKeyPair(of(i % 2 === 0 ? 'init_ephemeral' : 'resp_ephemeral'))
    const message = writeWith(t, ephemeral, from, payload)
    assert.equal(hex(message), vector[`m${i + 1}`])
    assert.equal(Buffer.from(to.read(message)).toString(), payload)
  }
  for (const side of [initiator, responder]) {
    assert.equal(side.state, 'complete')
    assert.equal(hex(side.hash), vector.hash)
  }
  assert.equal(hex(initiator.remoteStatic), hex(dh.generateKeyPair(of('resp_static')).publicKey))
  assert.equal(hex(responder.remoteStatic), hex(dh.generateKeyPair(of('init_static')).publicKey))
})

test('messages have the sizes of the protocol', () => {
  const [initiator, responder] = [initiatorOf(), responderOf()]
  const first = initiator.write()
  responder.read(first)
  const second = responder.write()
  initiator.read(second)
  assert.deepEqual([first.length, second.length, initiator.write().length], [48, 96, 64])
})

for (const [name, wrong] of [
  ['missing', undefined],
  ['null', null],
  ['empty', new Uint8Array(0)],
  ['a byte short', psk.subarray(1)],
  ['a byte long', new Uint8Array(33).fill(5)],
  ['twice as long', new Uint8Array(64).fill(5)],
  ['all zero', new Uint8Array(32)],
  ['text', 'a password of thirty-two letters'],
] as const) {
  test(`a psk that is ${name} throws before a byte leaves`, () => {
    for (const role of ['initiator', 'responder'] as const)
      assert.throws(
        () => new NoiseHandshake({ role, psk: wrong as Uint8Array, prologue, staticKey }),
        NoiseError,
      )
  })
}

test('a static key that is none throws', () => {
  const { publicKey, secretKey } = staticKey
  const zero = new Uint8Array(32)
  for (const wrong of [
    { publicKey, secretKey: zero },
    { publicKey: zero, secretKey },
    { publicKey, secretKey: secretKey.subarray(1) },
  ])
    assert.throws(() => initiatorOf({ staticKey: wrong }), NoiseError)
})

test('a side that is not in turn throws, and is destroyed', () => {
  const cases: (() => NoiseHandshake)[] = [
    () => initiatorOf(),
    () => responderOf(),
    () => {
      const initiator = initiatorOf()
      initiator.write()
      return initiator
    },
    () => {
      const [initiator, responder] = [initiatorOf(), responderOf()]
      talk(initiator, responder, 1)
      return responder
    },
  ]
  for (const make of cases) {
    const side = make()
    const inTurn = side.state
    assert.throws(() => (inTurn === 'writing' ? side.read(new Uint8Array(96)) : side.write()), NoiseError)
    assert.equal(side.state, 'destroyed')
    assert.throws(() => (inTurn === 'writing' ? side.write() : side.read(new Uint8Array(96))), NoiseError)
  }
})

test('nothing can be read or written after completion', () => {
  for (const role of ['initiator', 'responder'] as const) {
    const [initiator, responder] = [initiatorOf(), responderOf()]
    const messages = talk(initiator, responder)
    const side = role === 'initiator' ? initiator : responder
    assert.equal(side.state, 'complete')
    assert.throws(() => side.write(), NoiseError)
    assert.throws(() => side.read(messages[0] as Uint8Array), NoiseError)
  }
})

test('a flipped bit in any byte of any message ends the side that reads it', () => {
  for (const index of [0, 1, 2]) {
    const length = (talk(initiatorOf(), responderOf())[index] as Uint8Array).length
    for (let at = 0; at < length; at++) {
      const [initiator, responder] = [initiatorOf(), responderOf()]
      talk(initiator, responder, index)
      const [from, to] = index % 2 === 0 ? [initiator, responder] : [responder, initiator]
      const message = from.write(text(`payload ${index}`))
      // The topmost bit of an X25519 key is not part of it (RFC 7748), but the hash still sees it.
      message[at] = (message[at] as number) ^ 0x80
      assert.throws(() => to.read(message), NoiseError, `message ${index}, byte ${at}`)
      assert.equal(to.state, 'destroyed')
      assert.equal(to.hash, undefined)
    }
  }
})

test('a message cut short, drawn out, empty or of another handshake ends the side that reads it', () => {
  const other = talk(initiatorOf(), responderOf())
  for (const index of [0, 1, 2]) {
    const whole = other[index] as Uint8Array
    const wrong = [
      new Uint8Array(0),
      whole.subarray(0, 15),
      whole.subarray(0, 31),
      whole.subarray(0, -1),
      new Uint8Array([...whole, 0]),
      new Uint8Array(MAX_NOISE_MESSAGE_BYTES),
      new Uint8Array(MAX_NOISE_MESSAGE_BYTES + 1),
      ...(index === 0 ? [] : [whole]),
    ]
    for (const message of wrong) {
      const [initiator, responder] = [initiatorOf(), responderOf()]
      talk(initiator, responder, index)
      assert.throws(() => (index % 2 === 0 ? responder : initiator).read(message), NoiseError)
    }
  }
})

test('a message of more than 1024 bytes is refused, however genuine', () => {
  for (const length of [MAX_NOISE_MESSAGE_BYTES, MAX_NOISE_MESSAGE_BYTES + 1]) {
    const peer = new NoiseState('XXpsk0', true, generateStaticKey(), { psk })
    peer.initialise(prologue)
    const message = peer.send(new Uint8Array(length - 48))
    assert.equal(message.length, length)
    const responder = responderOf()
    if (length === MAX_NOISE_MESSAGE_BYTES) assert.equal(responder.read(message).length, length - 48)
    else assert.throws(() => responder.read(message), NoiseError)
  }
})

test('a psk or a prologue that differs in one bit fails at the first message', () => {
  for (const other of [{ psk: bytes(`${'05'.repeat(31)}04`) }, { prologue: text('what both have seem') }])
    assert.throws(() => responderOf(other).read(initiatorOf().write()), NoiseError)
})

/** Points of small order on the curve and its twist (RFC 7748, section 7), and encodings of them that are not canonical. */
const LOW_ORDER = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
]
for (const point of LOW_ORDER) {
  test(`an ephemeral key of small order is refused, also from one who has the psk: ${point.slice(0, 8)}`, (t) => {
    const ephemeral = { publicKey: bytes(point), secretKey: bytes('07'.repeat(32)) }
    const first = writeWith(t, ephemeral, initiatorOf())
    const responder = responderOf()
    // The first message has no Diffie-Hellman in it yet.
    responder.read(first)
    assert.throws(() => responder.write(), NoiseError)
    assert.equal(responder.state, 'destroyed')
  })
}

test('a static key of small order is refused', () => {
  for (const point of LOW_ORDER.slice(1)) {
    const evil = { publicKey: bytes(point), secretKey: bytes('07'.repeat(32)) }
    const [initiator, responder] = [initiatorOf({ staticKey: evil }), responderOf()]
    talk(initiator, responder, 2)
    const third = initiator.write()
    assert.throws(() => responder.read(third), NoiseError)
  }
})

test('its own reflection is refused', () => {
  // With one static key in both roles the arithmetic works out.
  const [one, other] = [initiatorOf({ staticKey }), responderOf({ staticKey })]
  other.read(one.write())
  const second = other.write()
  assert.throws(() => one.read(second), NoiseError)

  const initiator = initiatorOf()
  const first = initiator.write()
  assert.throws(() => initiator.read(first), NoiseError)
})

test('neither keeps nor changes what it is given', () => {
  const given = {
    psk: Uint8Array.from(psk),
    prologue: Uint8Array.from(prologue),
    staticKey: generateStaticKey(),
  }
  const key = { ...given.staticKey }
  const copies = [given.psk, given.prologue, key.publicKey, key.secretKey].map(hex)
  const [initiator, responder] = [initiatorOf(given), responderOf()]
  const first = initiator.write()
  const before = hex(first)
  responder.read(first)
  const second = responder.write()
  const secondBefore = hex(second)
  initiator.read(second)
  const third = initiator.write()
  // noise-handshake would overwrite the ephemeral keys in the first two messages now.
  responder.read(third)
  assert.equal(hex(first), before)
  assert.equal(hex(second), secondBefore)
  assert.deepEqual([given.psk, given.prologue, key.publicKey, key.secretKey].map(hex), copies)

  const mine = initiator.remoteStatic as Uint8Array
  mine.fill(0)
  assert.notEqual(hex(initiator.remoteStatic), hex(mine))

  const untouched = initiatorOf(given)
  for (const array of [given.psk, given.prologue, key.publicKey, key.secretKey]) array.fill(1)
  talk(untouched, responderOf())
})

test('its copies of secrets are overwritten at the end, be it good or bad', (t) => {
  const kept: Uint8Array[] = []
  const from = Uint8Array.from
  const watch = () =>
    t.mock.method(Uint8Array, 'from', (source: Uint8Array) => {
      const copy = from.call(Uint8Array, source)
      if ([hex(psk), hex(staticKey.secretKey)].includes(hex(copy))) kept.push(copy)
      return copy
    })
  const zero = '00'.repeat(32)
  const make = (side: typeof initiatorOf) => {
    kept.length = 0
    const spy = watch()
    const made = side({ staticKey })
    spy.mock.restore()
    assert.equal(kept.length, 2)
    return made
  }

  talk(make(initiatorOf), responderOf())
  assert.deepEqual(kept.map(hex), [zero, zero])

  talk(initiatorOf(), make(responderOf), 1)
  assert.equal(kept.map(hex).filter((secret) => secret === zero).length, 1, 'the psk goes first')

  const failing = make(responderOf)
  assert.throws(() => failing.read(new Uint8Array(48)), NoiseError)
  assert.deepEqual(kept.map(hex), [zero, zero])

  make(initiatorOf)[Symbol.dispose]()
  assert.deepEqual(kept.map(hex), [zero, zero])
})

test('a payload that leaves no room for the rest throws', () => {
  const longest = new Uint8Array(928)
  const [initiator, responder] = [initiatorOf(), responderOf()]
  responder.read(initiator.write(longest))
  const second = responder.write(longest)
  assert.equal(second.length, MAX_NOISE_MESSAGE_BYTES)
  initiator.read(second)
  assert.throws(() => initiator.write(new Uint8Array(929)), NoiseError)
})

test('any bytes at any turn are read or end it with a NoiseError', () => {
  fc.assert(
    fc.property(fc.nat(2), fc.uint8Array({ maxLength: 200 }), (index, message) => {
      const [initiator, responder] = [initiatorOf(), responderOf()]
      talk(initiator, responder, index)
      assert.throws(() => (index % 2 === 0 ? responder : initiator).read(message), NoiseError)
    }),
  )
})
