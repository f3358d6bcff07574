import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  allocData,
  DATA_HEADER_BYTES,
  encodeAck,
  encodeClose,
  encodeEnd,
  encodeMark,
  encodePing,
  encodePong,
  type Frame,
  FrameDecoder,
  FrameError,
} from '../../src/channel/frames.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')

function encode(frame: Frame): Buffer {
  switch (frame.type) {
    case 'data': {
      const bytes = allocData(frame.offset, frame.payload.length)
      frame.payload.copy(bytes, DATA_HEADER_BYTES)
      return bytes
    }
    case 'end':
      return encodeEnd(frame.offset)
    case 'mark':
      return encodeMark(frame.offset)
    case 'ack':
      return encodeAck(frame.consumed, frame.window)
    case 'ping':
      return encodePing(frame.token)
    case 'pong':
      return encodePong(frame.token)
    case 'close':
      return encodeClose(frame.reason)
  }
}

function decode(chunks: Buffer[]): Frame[] {
  const decoder = new FrameDecoder()
  return joined(chunks.flatMap((chunk) => [...decoder.push(chunk)]))
}

/** Joins the pieces of DATA that follow each other: chunks may split them, the meaning must not change. */
function joined(frames: Frame[]): Frame[] {
  const out: Frame[] = []
  for (const frame of frames) {
    const last = out.at(-1)
    if (frame.type === 'data' && last?.type === 'data' && frame.offset === last.offset + last.payload.length)
      out.splice(-1, 1, { ...last, payload: Buffer.concat([last.payload, frame.payload]) })
    else out.push(frame)
  }
  return out
}

function cutAt(wire: Buffer, places: number[]): Buffer[] {
  const cuts = [0, ...places.map((place) => place % (wire.length + 1)).sort((x, y) => x - y), wire.length]
  return cuts.slice(1).map((end, k) => wire.subarray(cuts[k], end))
}

const vectors: { wire: string; frame: Frame }[] = [
  { wire: '01 000000000000 0001 61', frame: { type: 'data', offset: 0, payload: hex('61') } },
  {
    wire: '01 010203040506 0003 ff00ff',
    frame: { type: 'data', offset: 0x010203040506, payload: hex('ff00ff') },
  },
  { wire: '02 00000001e240', frame: { type: 'end', offset: 123456 } },
  { wire: '07 00000001e240', frame: { type: 'mark', offset: 123456 } },
  { wire: '03 000000001000 00004000', frame: { type: 'ack', consumed: 4096, window: 16384 } },
  { wire: '03 ffffffffffff ffffffff', frame: { type: 'ack', consumed: 2 ** 48 - 1, window: 2 ** 32 - 1 } },
  { wire: '04 00000007', frame: { type: 'ping', token: 7 } },
  { wire: '05 ffffffff', frame: { type: 'pong', token: 0xffffffff } },
  { wire: '06 0000', frame: { type: 'close', reason: '' } },
  { wire: '06 000a 4552525f582067c3bc6e', frame: { type: 'close', reason: 'ERR_X gün' } },
]
for (const { wire, frame } of vectors) {
  test(`${frame.type} is ${wire}`, () => {
    assert.equal(encode(frame).toString('hex'), hex(wire).toString('hex'))
    assert.deepEqual(decode([hex(wire)]), [frame])
  })
}

const offset = fc.maxSafeNat().map((n) => n % 2 ** 40)
const u32 = fc.nat(2 ** 32 - 1)
const plain = { noNullPrototype: true }
const frame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record(
    {
      type: fc.constant('data' as const),
      offset,
      payload: fc.uint8Array({ minLength: 1, maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
    },
    plain,
  ),
  fc.record({ type: fc.constantFrom('end' as const, 'mark' as const), offset }, plain),
  fc.record({ type: fc.constant('ack' as const), consumed: offset, window: u32 }, plain),
  fc.record({ type: fc.constantFrom('ping' as const, 'pong' as const), token: u32 }, plain),
  fc.record(
    { type: fc.constant('close' as const), reason: fc.string({ unit: 'grapheme', maxLength: 100 }) },
    plain,
  ),
)

test('frames come back as they were, wherever the stream is cut', () => {
  fc.assert(
    fc.property(fc.array(frame), fc.array(fc.nat()), (frames, cuts) => {
      assert.deepEqual(decode(cutAt(Buffer.concat(frames.map(encode)), cuts)), joined(frames))
    }),
  )
})

test('hostile bytes give frames or a FrameError, never another error', () => {
  const byte = fc.oneof(fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 7), fc.nat(255))
  fc.assert(
    fc.property(fc.array(fc.array(byte)), (chunks) => {
      try {
        decode(chunks.map((chunk) => Buffer.from(chunk)))
      } catch (error) {
        assert.ok(error instanceof FrameError)
      }
    }),
  )
})

const malformed = [
  { name: 'type 0', wire: '00' },
  { name: 'an unknown type', wire: '08' },
  { name: 'DATA of no bytes', wire: '01 000000000000 0000' },
  { name: 'DATA of 16385 bytes', wire: '01 000000000000 4001' },
  { name: 'DATA that outgrows the numbers', wire: '01 ffffffffffff 0001' },
  { name: 'CLOSE of 1025 bytes', wire: '06 0401' },
  { name: 'CLOSE that is not UTF-8', wire: '06 0001 ff' },
]
for (const { name, wire } of malformed) {
  test(`${name} is refused as soon as it shows`, () => {
    assert.throws(() => decode([hex(wire)]), FrameError)
  })
}

test('a reason that is too long is cut at a character', () => {
  const [close] = decode([encodeClose(`x${'ü'.repeat(2000)}`)])
  assert.deepEqual(close, { type: 'close', reason: `x${'ü'.repeat(511)}` })
})
