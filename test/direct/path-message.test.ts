import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  encodePathMessage,
  MAX_ADDRESSES,
  MAX_MESSAGE_BYTES,
  PathDecoder,
  type PathMessage,
} from '../../src/direct/path-message.ts'
import { FarportError } from '../../src/errors.ts'

const plain = { noNullPrototype: true }
const endpoint = fc.record({ address: fc.ipV4(), port: fc.integer({ min: 1, max: 65_535 }) }, plain)
const message: fc.Arbitrary<PathMessage> = fc.oneof(
  fc.record(
    {
      type: fc.constant('hello' as const),
      addresses: fc.array(fc.string({ maxLength: 200 }), { maxLength: MAX_ADDRESSES }),
    },
    plain,
  ),
  fc.record({ type: fc.constantFrom('offer', 'answer'), mapped: endpoint, varies: fc.boolean() }, plain),
  fc.record({ type: fc.constant('decline' as const), reason: fc.string({ maxLength: 200 }) }, plain),
  fc.constantFrom<PathMessage>({ type: 'go' }, { type: 'changed' }),
)

function decode(chunks: readonly Uint8Array[]): PathMessage[] {
  const decoder = new PathDecoder()
  return chunks.flatMap((chunk) => [...decoder.push(chunk)])
}

function frame(body: unknown): Buffer {
  const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
  const header = Buffer.alloc(2)
  header.writeUInt16BE(bytes.length)
  return Buffer.concat([header, bytes])
}

const isProtocolError = (error: unknown) => error instanceof FarportError && error.code === 'ERR_PROTOCOL'

test('the format is as the comment says', () => {
  const bytes = Buffer.from(encodePathMessage({ type: 'go' }))
  assert.equal(bytes.toString('latin1'), '\x00\x0d{"type":"go"}')
})

test('messages come out as they went in, however the stream is cut', () => {
  fc.assert(
    fc.property(fc.array(message, { maxLength: 5 }), fc.array(fc.nat(2000)), (messages, cuts) => {
      const wire = Buffer.concat(messages.map(encodePathMessage))
      const points = [...new Set([0, ...cuts.map((cut) => Math.min(cut, wire.length)), wire.length])]
      points.sort((a, b) => a - b)
      const chunks = points.slice(1).map((end, k) => wire.subarray(points[k], end))
      assert.deepEqual(decode(chunks), messages)
    }),
  )
})

test('hostile bytes give messages or ERR_PROTOCOL, never another error', () => {
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map(frame),
    fc.record({ type: fc.constantFrom('hello', 'offer', 'answer', 'go'), mapped: fc.anything() }).map(frame),
  )
  fc.assert(
    fc.property(fc.array(hostile, { maxLength: 4 }), (chunks) => {
      try {
        decode(chunks)
      } catch (error) {
        assert.ok(isProtocolError(error), String(error))
      }
    }),
  )
})

const refused: [string, Uint8Array][] = [
  ['a message of no length', Buffer.from([0, 0])],
  ['one longer than the cap, at its header', Buffer.from([(MAX_MESSAGE_BYTES + 1) >> 8, 1])],
  ['what is not JSON', frame('{')],
  ['what is no object', frame('"hello"')],
  ['an unknown type', frame({ type: 'please' })],
  [
    'too many addresses',
    frame({ type: 'hello', addresses: Array(MAX_ADDRESSES + 1).fill('/ip4/192.0.2.1/tcp/1') }),
  ],
  ['an address without end', frame({ type: 'hello', addresses: ['x'.repeat(281)] })],
  ['a reason without end', frame({ type: 'decline', reason: 'x'.repeat(201) })],
  [
    'a name where an IP address is due',
    frame({ type: 'offer', mapped: { address: 'localhost', port: 9 }, varies: false }),
  ],
  ['IPv6 there', frame({ type: 'offer', mapped: { address: '2001:db8::1', port: 9 }, varies: false })],
  ['port 0', frame({ type: 'answer', mapped: { address: '192.0.2.1', port: 0 }, varies: false })],
  ['port 65536', frame({ type: 'answer', mapped: { address: '192.0.2.1', port: 65_536 }, varies: false })],
  ['half a port', frame({ type: 'answer', mapped: { address: '192.0.2.1', port: 1.5 }, varies: false })],
]
for (const [name, bytes] of refused) {
  test(`refused: ${name}`, () => {
    assert.throws(() => decode([bytes]), isProtocolError)
  })
}

test('unknown keys are for later versions', () => {
  assert.deepEqual(decode([frame({ type: 'go', soon: true })]), [{ type: 'go' }])
})

test('a header alone does not make room for what it announces', () => {
  assert.deepEqual(decode([Buffer.from([MAX_MESSAGE_BYTES >> 8, 0])]), [])
})
