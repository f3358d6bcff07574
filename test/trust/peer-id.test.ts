import assert from 'node:assert/strict'
import { test } from 'node:test'
import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id'
import fc from 'fast-check'
import { formatPeerId, peerIdProblem } from '../../src/trust/peer-id.ts'

const publicKey = fc.uint8Array({ minLength: 32, maxLength: 32 })
const ID = formatPeerId(new Uint8Array(32).fill(7))

test('writes the PeerID that libp2p writes', () => {
  const libp2p = (key: Uint8Array) => peerIdFromPublicKey(publicKeyFromRaw(key)).toString()
  for (const key of [new Uint8Array(32), new Uint8Array(32).fill(255)])
    assert.equal(formatPeerId(key), libp2p(key))
  fc.assert(fc.property(publicKey, (key) => assert.equal(formatPeerId(key), libp2p(key))))
})

test('every Ed25519 PeerID is 52 characters from 12D3KooW on, and passes', () => {
  for (const key of [new Uint8Array(32), new Uint8Array(32).fill(255)])
    assert.match(formatPeerId(key), /^12D3KooW.{44}$/)
  fc.assert(fc.property(publicKey, (key) => assert.equal(peerIdProblem(formatPeerId(key)), undefined)))
})

test('a key of another length is a mistake of ours', () => {
  assert.throws(() => formatPeerId(new Uint8Array(31)), RangeError)
})

test('agrees with libp2p about damaged PeerIDs', () => {
  const accepted = (text: string) => {
    try {
      const id = peerIdFromString(text)
      return id.type === 'Ed25519' && id.toString() === text
    } catch {
      return false
    }
  }
  const damaged = fc
    .tuple(publicKey, fc.nat(52), fc.nat(2), fc.string({ maxLength: 2, unit: 'grapheme' }))
    .map(([key, at, remove, insert]) => {
      const id = formatPeerId(key)
      return id.slice(0, at) + insert + id.slice(at + remove)
    })
  fc.assert(
    fc.property(fc.oneof(damaged, fc.string()), (text) =>
      assert.equal(peerIdProblem(text) === undefined, accepted(text), JSON.stringify(text)),
    ),
  )
})

test('near misses are told apart', () => {
  for (const [text, says] of [
    ['', /empty/],
    [`/ip4/10.0.0.1/tcp/4001/p2p/${ID}`, /behind the last \/p2p\//],
    ['QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N', /another kind of key/],
    ['bafzaajaiaejcbvzbx5r5dyrtm5jzpxu6dnpbuqxg2q5y5n3okoarnaey5a', /CID/],
    [ID.slice(0, -1), /51 characters/],
    [`${ID}x`, /53 characters/],
    [ID.toLowerCase().replaceAll(/[l0]/g, 'x'), /capital/],
    [`${ID.slice(0, 20)}0${ID.slice(21)}`, /position 21/],
    [`"${ID}"`, /position 1 /],
    [ID.replace('12D3KooW', '12D3KooZ'), /begin with 12D3KooW/],
    [`12D3KooW${'z'.repeat(44)}`, /mistyped/],
  ] as const)
    assert.match(peerIdProblem(text) ?? 'accepted', says, text)
})
