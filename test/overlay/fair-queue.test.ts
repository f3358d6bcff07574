import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FairQueue, type Outgoing } from '../../src/overlay/fair-queue.ts'
import { DATA, WINDOW_UPDATE } from './frames.ts'

const HEADER_BYTES = 12
const KIB = 1024

function data(streamID: number, bytes: Uint8Array, flag = 0): Outgoing {
  return { type: DATA, flag, streamID, length: bytes.length, data: bytes }
}

/** What is on the wire, frame by frame. */
function frames(bytes: Uint8Array): { type: number; flag: number; streamID: number; data: Buffer }[] {
  const found = []
  const wire = Buffer.from(bytes)
  for (let at = 0; at < wire.length; ) {
    const type = wire.readUInt8(at + 1)
    const end = at + HEADER_BYTES + (type === DATA ? wire.readUInt32BE(at + 8) : 0)
    assert.ok(end <= wire.length, 'a frame is whole')
    found.push({
      type,
      flag: wire.readUInt16BE(at + 2),
      streamID: wire.readUInt32BE(at + 4),
      data: wire.subarray(at + HEADER_BYTES, end),
    })
    at = end
  }
  return found
}

test('what a stream sends arrives whole and in order, whatever is taken at a time', () => {
  const pushes = fc.array(
    fc.record({ streamID: fc.integer({ min: 1, max: 5 }), bytes: fc.integer({ min: 1, max: 20_000 }) }),
    { maxLength: 30 },
  )
  const takes = fc.array(fc.integer({ min: HEADER_BYTES + 1, max: 60_000 }), { minLength: 1, maxLength: 5 })
  fc.assert(
    fc.property(pushes, takes, (sent, sizes) => {
      const queue = new FairQueue()
      const expected = new Map<number, Buffer[]>()
      const arrived = new Map<number, Buffer[]>()
      let seed = 0
      const takeSome = (maxBytes: number) => {
        const bytes = queue.take(maxBytes)
        assert.ok(bytes.length <= maxBytes)
        for (const frame of frames(bytes))
          arrived.set(frame.streamID, [...(arrived.get(frame.streamID) ?? []), frame.data])
        return bytes.length
      }
      for (const [i, { streamID, bytes }] of sent.entries()) {
        const content = Buffer.from(Array.from({ length: bytes }, () => seed++ % 251))
        expected.set(streamID, [...(expected.get(streamID) ?? []), content])
        queue.push(data(streamID, content))
        if (i % 3 === 0) takeSome(sizes[i % sizes.length] as number)
      }
      while (!queue.isEmpty) assert.ok(takeSome(sizes[0] as number) > 0)
      for (const [streamID, parts] of expected) {
        assert.ok(Buffer.concat(arrived.get(streamID) ?? []).equals(Buffer.concat(parts)))
        assert.equal(queue.bytesOf(streamID), 0)
      }
    }),
  )
})

test('a keystroke goes before the transfers that wait, and they share what is left', () => {
  const queue = new FairQueue()
  for (const streamID of [1, 3, 5]) queue.push(data(streamID, Buffer.alloc(64 * KIB)))
  queue.take(4 * KIB)
  queue.push(data(7, Buffer.from('x')))
  const [first] = frames(queue.take(4 * KIB))
  assert.equal(first?.streamID, 7)
  const shares = new Map<number, number>()
  for (let i = 0; i < 30; i++)
    for (const { streamID, data } of frames(queue.take(4 * KIB)))
      shares.set(streamID, (shares.get(streamID) ?? 0) + data.length)
  const sizes = [1, 3, 5].map((streamID) => shares.get(streamID) ?? 0)
  assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 4 * KIB, `${sizes}`)
})

test('a stream that asks again and again has no more than its share', () => {
  const queue = new FairQueue()
  queue.push(data(1, Buffer.alloc(64 * KIB)))
  let bulk = 0
  for (let i = 0; i < 20; i++) {
    // Always something new, and never anything left.
    queue.push(data(3, Buffer.alloc(900)))
    for (const { streamID, data } of frames(queue.take(2 * KIB))) if (streamID === 1) bulk += data.length
  }
  assert.ok(bulk >= 18 * KIB, `${bulk} bytes`)
})

test('windows and pings overtake data; what opens a stream says so once', () => {
  const queue = new FairQueue()
  queue.push(data(1, Buffer.alloc(2 * KIB), 1))
  queue.pushUrgent({ type: WINDOW_UPDATE, flag: 0, streamID: 1, length: 500 })
  const all = []
  while (!queue.isEmpty) all.push(...frames(queue.take(600)))
  assert.equal(all[0]?.type, WINDOW_UPDATE)
  assert.deepEqual(
    all.slice(1).map(({ flag }) => flag),
    [1, 0, 0, 0],
  )
})

test('alone, a stream is not cut', () => {
  const queue = new FairQueue()
  queue.push(data(1, Buffer.alloc(16 * KIB)))
  queue.push(data(1, Buffer.alloc(16 * KIB)))
  assert.equal(frames(queue.take(48 * KIB)).length, 2)
  assert.ok(queue.isEmpty)
})
