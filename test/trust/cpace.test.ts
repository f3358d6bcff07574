import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import sodium from 'libsodium-wrappers-sumo'
import { Cpace, CpaceError, lvCat, SHARE_BYTES } from '../../src/trust/cpace.ts'
import { oracleGenerator, oracleKey, pointOf } from './cpace-oracle.ts'

interface Vector {
  PRS: string
  CI: string
  sid: string
  generator_string: string
  g: string
  ADa: string
  ya: string
  Ya: string
  ADb: string
  yb: string
  Yb: string
  ISK_ir: string
}

const { vectors, points } = JSON.parse(
  readFileSync(new URL('../vectors/cpace-ristretto255.json', import.meta.url), 'utf8'),
) as { vectors: Vector[]; points: Record<string, string> }

const bytes = (hex = '') => new Uint8Array(Buffer.from(hex, 'hex'))
const hex = (data: Uint8Array) => Buffer.from(data).toString('hex')
const input = { password: bytes('aa'), channel: bytes('bb'), session: bytes('cc') }
const data = { initiatorData: bytes('01'), responderData: bytes('02') }

/** A side whose scalar is not left to chance. */
function withScalar(t: TestContext, scalar: string, of: typeof input): Cpace {
  const random = t.mock.method(sodium, 'crypto_core_ristretto255_scalar_random', () => bytes(scalar))
  const cpace = new Cpace(of)
  assert.equal(random.mock.callCount(), 1)
  random.mock.restore()
  return cpace
}

for (const [i, vector] of vectors.entries()) {
  test(`draft-irtf-cfrg-cpace, vector ${i}`, (t) => {
    const of = { password: bytes(vector.PRS), channel: bytes(vector.CI), session: bytes(vector.sid) }
    const a = withScalar(t, vector.ya, of)
    const b = withScalar(t, vector.yb, of)
    assert.equal(hex(a.share), vector.Ya)
    assert.equal(hex(b.share), vector.Yb)
    const ad = { initiatorData: bytes(vector.ADa), responderData: bytes(vector.ADb) }
    const keyOfA = a.finish({ role: 'initiator', theirShare: bytes(vector.Yb), ...ad })
    const keyOfB = b.finish({ role: 'responder', theirShare: bytes(vector.Ya), ...ad })
    assert.equal(hex(keyOfA), vector.ISK_ir)
    assert.equal(hex(keyOfB), vector.ISK_ir)
  })
}

test('the points of the draft: a good one, a bad encoding and the identity', (t) => {
  const side = () => withScalar(t, points.s ?? '', input)
  const finish = (point = '') => side().finish({ role: 'initiator', theirShare: bytes(point), ...data })
  const said = [side().share, data.initiatorData, bytes(points.X), data.responderData]
  const product = bytes(points.scalar_mult_vfy)
  const expected = lvCat(Buffer.from('CPaceRistretto255_ISK'), input.session, product, ...said)
  assert.equal(hex(finish(points.X)), createHash('sha512').update(expected).digest('hex'))
  assert.throws(() => finish(points.invalid_Y1), CpaceError)
  assert.throws(() => finish(points.invalid_Y2_identity), CpaceError)
})

/** RFC 9496, appendix A.3: what must not decode. */
const NOT_POINTS = {
  'non-canonical field element': 'f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'another one': 'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'negative field element': '0100000000000000000000000000000000000000000000000000000000000000',
  'non-square x²': '26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371',
  'negative xy': '3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e',
  's = -1, which makes y = 0': 'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  identity: '00'.repeat(32),
  empty: '',
  'a byte short': '00'.repeat(31),
  'a byte long': 'e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d7600',
}
for (const [name, point] of Object.entries(NOT_POINTS)) {
  test(`refuses a share that is no element: ${name}`, () => {
    const cpace = new Cpace(input)
    assert.throws(() => cpace.finish({ role: 'responder', theirShare: bytes(point), ...data }), CpaceError)
  })
}

test('agrees with @noble/curves on any input', () => {
  const field = fc.uint8Array({ maxLength: 300 })
  fc.assert(
    fc.property(field, field, field, field, field, fc.bigInt(1n, 2n ** 252n), (p, c, s, a, b, scalar) => {
      const of = { password: p, channel: c, session: s }
      const ad = { initiatorData: a, responderData: b }
      const ours = new Cpace(of)
      const theirs = oracleGenerator(of).multiply(scalar).toBytes()
      const product = pointOf(ours.share).multiply(scalar).toBytes()
      const expected = oracleKey(s, product, [theirs, a, ours.share, b])
      assert.equal(hex(ours.finish({ role: 'responder', theirShare: theirs, ...ad })), hex(expected))
    }),
    { numRuns: 25 },
  )
})

test('the key depends on everything: password, channel, session, each side’s data, who began', () => {
  const cases = {
    password: { ...input, password: bytes('ab') },
    channel: { ...input, channel: bytes('bc') },
    session: { ...input, session: bytes('cd') },
  }
  const key = (of: typeof input, ad: typeof data, role: 'initiator' | 'responder') => {
    const a = new Cpace(input)
    const b = new Cpace(of)
    const ofA = a.finish({ role: 'initiator', theirShare: b.share, ...data })
    return [hex(ofA), hex(b.finish({ role, theirShare: a.share, ...ad }))]
  }
  const [same, alike] = key(input, data, 'responder')
  assert.equal(same, alike)
  for (const [name, of] of Object.entries(cases)) {
    const [one, other] = key(of, data, 'responder')
    assert.notEqual(one, other, name)
  }
  for (const [one, other] of [
    key(input, { ...data, initiatorData: bytes('03') }, 'responder'),
    key(input, { ...data, responderData: bytes('03') }, 'responder'),
    key(input, data, 'initiator'),
  ])
    assert.notEqual(one, other)
})

test('is good for one key: then, and when refused or given up, the scalar is gone', (t) => {
  const scalar = new Uint8Array(32)
  t.mock.method(sodium, 'crypto_core_ristretto255_scalar_random', () => scalar)
  const side = () => {
    scalar.set(bytes(points.s))
    return new Cpace(input)
  }
  const finish = (cpace: Cpace, point = '') =>
    cpace.finish({ role: 'initiator', theirShare: bytes(point), ...data })
  const gone = () => assert.equal(hex(scalar), '00'.repeat(32))

  const once = side()
  finish(once, points.X)
  gone()
  assert.throws(() => finish(once, points.X), CpaceError)

  side()[Symbol.dispose]()
  gone()

  assert.throws(() => finish(side(), points.invalid_Y1), CpaceError)
  gone()
})

test('lv_cat: the length is LEB128, and the generator string is the draft’s', () => {
  assert.equal(hex(lvCat()), '')
  assert.equal(hex(lvCat(bytes(''), bytes('61'))), '000161')
  assert.equal(hex(lvCat(new Uint8Array(128)).subarray(0, 3)), '800100')
  assert.equal(hex(lvCat(new Uint8Array(16384)).subarray(0, 4)), '80800100')
  const vector = vectors[0] as Vector
  const parts = [Buffer.from('CPaceRistretto255'), bytes(vector.PRS), new Uint8Array(100)]
  assert.equal(hex(lvCat(...parts, bytes(vector.CI), bytes(vector.sid))), vector.generator_string)
})

test('any bytes as a share give a key of 64 bytes or a CpaceError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (theirShare) => {
      try {
        const key = new Cpace(input).finish({ role: 'initiator', theirShare, ...data })
        assert.equal(key.length, 64)
        assert.equal(theirShare.length, SHARE_BYTES)
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error
        assert.ok(error instanceof CpaceError)
      }
    }),
  )
})
