import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ipBytes, ipText } from '../../src/stun/ip-address.ts'
import {
  decodeMessage,
  encodeMessage,
  MAX_MESSAGE_BYTES,
  messageBytes,
  StunError,
  type StunMessage,
} from '../../src/stun/message.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex')

/** The samples of RFC 5769 §2.1 to 2.3; all share one transaction id. */
const id = hex('b7e7a701 bc34d686 fa87dfae')
const sampleRequest = hex(`
  0001 0058 2112a442 b7e7a701 bc34d686 fa87dfae
  8022 0010 5354554e 20746573 7420636c 69656e74
  0024 0004 6e0001ff
  8029 0008 932ff9b1 51263b36
  0006 0009 6576746a 3a683676 59202020
  0008 0014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2
  8028 0004 e57a3bcf`)
const sampleIPv4 = hex(`
  0101 003c 2112a442 b7e7a701 bc34d686 fa87dfae
  8022 000b 74657374 20766563 746f7220
  0020 0008 0001a147 e112a643
  0008 0014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7
  8028 0004 c07d4c96`)
const sampleIPv6 = hex(`
  0101 0048 2112a442 b7e7a701 bc34d686 fa87dfae
  8022 000b 74657374 20766563 746f7220
  0020 0014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9
  0008 0014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41
  8028 0004 c8fb0b4c`)

const vectors: { name: string; bytes: Buffer; message: StunMessage }[] = [
  {
    name: 'a request with ICE attributes, of which PRIORITY would have to be understood',
    bytes: sampleRequest,
    message: { type: 'request', transactionId: id, unknown: [0x0024] },
  },
  {
    name: 'an IPv4 answer',
    bytes: sampleIPv4,
    message: { type: 'success', transactionId: id, mapped: { address: '192.0.2.1', port: 32853 } },
  },
  {
    name: 'an IPv6 answer',
    bytes: sampleIPv6,
    message: {
      type: 'success',
      transactionId: id,
      mapped: { address: '2001:db8:1234:5678:11:2233:4455:6677', port: 32853 },
    },
  },
]
for (const { name, bytes, message } of vectors) {
  test(`RFC 5769: ${name}`, () => assert.deepEqual(decodeMessage(bytes), message))
}

const ours: { name: string; bytes: string; message: StunMessage }[] = [
  {
    name: 'request',
    bytes: '0001 0000 2112a442 b7e7a701 bc34d686 fa87dfae',
    message: { type: 'request', transactionId: id },
  },
  {
    name: 'request to answer from the other address and port',
    bytes: '0001 0008 2112a442 b7e7a701 bc34d686 fa87dfae  0003 0004 00000006',
    message: { type: 'request', transactionId: id, change: { address: true, port: true } },
  },
  {
    name: 'success',
    bytes: `0101 0024 2112a442 b7e7a701 bc34d686 fa87dfae  0020 0008 0001a147 e112a643
            802b 0008 00010d96 c0000202  802c 0008 00010d97 c0000203`,
    message: {
      type: 'success',
      transactionId: id,
      mapped: { address: '192.0.2.1', port: 32853 },
      origin: { address: '192.0.2.2', port: 3478 },
      other: { address: '192.0.2.3', port: 3479 },
    },
  },
  {
    name: 'error',
    bytes: '0111 0010 2112a442 b7e7a701 bc34d686 fa87dfae  0009 0004 00000414  000a 0002 00030000',
    message: { type: 'error', transactionId: id, code: 420, unknown: [3] },
  },
]
for (const { name, bytes, message } of ours) {
  test(`${name}, byte by byte, both ways`, () => {
    assert.deepEqual(encodeMessage(message), hex(bytes))
    assert.deepEqual(decodeMessage(hex(bytes)), message)
  })
}

test('the plain MAPPED-ADDRESS of old servers is read too', () => {
  const answer = decodeMessage(
    hex('0101 000c 2112a442 b7e7a701 bc34d686 fa87dfae 0001 0008 00018055 c0000201'),
  )
  assert.equal(answer.type === 'success' && answer.mapped.address, '192.0.2.1')
})

test('one wrong bit in a value is found by the FINGERPRINT', () => {
  const values = [...Array(12).keys()]
    .map((k) => 8 + k)
    .concat([24, 40, 41, 42, 43, 44, 45, 46, 47, 52, 71, 76, 77, 78, 79])
  for (const at of values) {
    for (let bit = 0; bit < 8; bit++) {
      const bytes = Buffer.from(sampleIPv4)
      bytes[at] = (bytes[at] as number) ^ (1 << bit)
      assert.throws(() => decodeMessage(bytes), { name: 'StunError', message: 'wrong FINGERPRINT' })
    }
  }
})

const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((b) => Buffer.from(b))
const address = fc
  .oneof(bytes(4), bytes(16))
  .map(ipText)
  .map((text) => ipText(ipBytes(text)))
const endpoint = fc.record({ address, port: fc.nat(0xffff) }, { noNullPrototype: true })
const transactionId = bytes(12)
const message: fc.Arbitrary<StunMessage> = fc.oneof(
  fc.record(
    {
      type: fc.constant('request' as const),
      transactionId,
      change: fc.record({ address: fc.boolean(), port: fc.boolean() }, { noNullPrototype: true }),
    },
    { requiredKeys: ['type', 'transactionId'], noNullPrototype: true },
  ),
  fc.record(
    {
      type: fc.constant('success' as const),
      transactionId,
      mapped: endpoint,
      origin: endpoint,
      other: endpoint,
    },
    { requiredKeys: ['type', 'transactionId', 'mapped'], noNullPrototype: true },
  ),
  fc.record(
    {
      type: fc.constant('error' as const),
      transactionId,
      code: fc.integer({ min: 300, max: 699 }),
      unknown: fc.array(fc.nat(0xffff), { maxLength: 20 }),
    },
    { requiredKeys: ['type', 'transactionId', 'code'], noNullPrototype: true },
  ),
) as fc.Arbitrary<StunMessage>

test('every message comes back as it was, and says its own length from 8 bytes on', () => {
  fc.assert(
    fc.property(message, (sent) => {
      const wire = encodeMessage(sent)
      assert.deepEqual(decodeMessage(wire), sent)
      for (let n = 0; n <= wire.length; n++)
        assert.equal(messageBytes(wire.subarray(0, n)), n < 8 ? undefined : wire.length)
    }),
  )
})

test('hostile bytes give a message or a StunError, never another error', () => {
  const damaged = fc
    .record({
      message,
      cut: fc.nat(80),
      changes: fc.array(fc.tuple(fc.nat(100), fc.nat(255)), { maxLength: 4 }),
    })
    .map(({ message, cut, changes }) => {
      const wire = Buffer.concat([encodeMessage(message), Buffer.alloc(cut > 76 ? 4 : 0)])
      for (const [at, byte] of changes) if (at < wire.length) wire[at] = byte
      return wire.subarray(0, Math.max(0, wire.length - (cut > 40 ? 0 : cut)))
    })
  const anything = fc.uint8Array({ maxLength: 2 * MAX_MESSAGE_BYTES }).map((b) => Buffer.from(b))
  const framed = fc.uint8Array({ maxLength: 60 }).map((b) => {
    const body = Buffer.from(b.subarray(0, b.length & ~3))
    const head = hex('0101 0000 2112a442 b7e7a701 bc34d686 fa87dfae')
    head.writeUInt16BE(body.length, 2)
    return Buffer.concat([head, body])
  })
  fc.assert(
    fc.property(fc.oneof(damaged, anything, framed), (wire) => {
      for (const read of [decodeMessage, messageBytes]) {
        try {
          read(wire)
        } catch (error) {
          assert.ok(error instanceof StunError, String(error))
        }
      }
    }),
    { numRuns: 1000 },
  )
})

test('a message longer than the cap is refused at its eighth byte', () => {
  const head = hex('0101 0214 2112a442')
  assert.throws(() => messageBytes(head), StunError)
  head.writeUInt16BE(MAX_MESSAGE_BYTES - 20, 2)
  assert.equal(messageBytes(head), MAX_MESSAGE_BYTES)
})

test('addresses go to bytes and back as RFC 5952 writes them', () => {
  for (const [text, expected] of [
    ['203.0.113.9', '203.0.113.9'],
    ['::', '::'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ] as const)
    assert.equal(ipText(ipBytes(text)), expected)
  assert.throws(() => ipBytes('farport.example'), RangeError)
  fc.assert(
    fc.property(fc.oneof(bytes(4), bytes(16)), (ip) =>
      assert.deepEqual(ipBytes(ipText(ip)), ipBytes(ipText(ipBytes(ipText(ip))))),
    ),
  )
})
