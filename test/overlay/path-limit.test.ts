import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PathLimit } from '../../src/overlay/path-limit.ts'

const KIB = 1024

/** A path with a slowest link, before which bytes queue, fed as much as the limit allows; answers what it comes to. */
function saturate(
  limit: PathLimit,
  path: { bytesPerMs: number; delayMs: number; bufferBytes: number },
  seconds: number,
) {
  let smoothedMs = path.delayMs
  let underWayBytes = 0
  for (let nowMs = 0; nowMs < seconds * 1000; nowMs += 5) {
    const held = path.bytesPerMs * path.delayMs + path.bufferBytes
    underWayBytes = Math.min(limit.bytes, held)
    const queueMs = Math.max(0, underWayBytes / path.bytesPerMs - path.delayMs)
    smoothedMs += (path.delayMs + queueMs - smoothedMs) / 8
    limit.learn(
      { roundTripMs: smoothedMs, variationMs: 1, minRoundTripMs: path.delayMs, bytesAcked: 0 },
      underWayBytes,
      nowMs,
    )
  }
  return {
    queueMs: smoothedMs - path.delayMs,
    used: Math.min(1, underWayBytes / (path.bytesPerMs * path.delayMs)),
  }
}

for (const [name, path] of Object.entries({
  '10 Mbit/s, 40 ms': { bytesPerMs: 1250, delayMs: 40, bufferBytes: 125_000 },
  '1 Mbit/s, 40 ms': { bytesPerMs: 125, delayMs: 40, bufferBytes: 32 * KIB },
  '100 Mbit/s, 10 ms': { bytesPerMs: 12_500, delayMs: 10, bufferBytes: 1_250_000 },
}))
  test(`the queue of a path stays short, and the path in use: ${name}`, () => {
    const { queueMs, used } = saturate(new PathLimit(), path, 20)
    assert.ok(queueMs < 40, `${queueMs} ms`)
    assert.ok(used >= 0.99, `${used}`)
  })

test('a path without a queue is not limited, and one that becomes faster is limited less', () => {
  const limit = new PathLimit()
  const state = { roundTripMs: 42, variationMs: 1, minRoundTripMs: 40, bytesAcked: 0 }
  limit.learn(state, 1024 * KIB, 0)
  assert.equal(limit.bytes, Number.POSITIVE_INFINITY)
  saturate(limit, { bytesPerMs: 125, delayMs: 40, bufferBytes: 32 * KIB }, 10)
  const slow = limit.bytes
  assert.ok(slow < 16 * KIB)
  // Ten times as fast now.
  for (let nowMs = 100_000; nowMs < 110_000; nowMs += 60) limit.learn(state, limit.bytes, nowMs)
  assert.ok(limit.bytes > 4 * slow, `${limit.bytes} after ${slow}`)
})

test('acknowledgements that are late because little is sent are no queue', () => {
  const limit = new PathLimit()
  limit.learn({ roundTripMs: 80, variationMs: 1, minRoundTripMs: 40, bytesAcked: 0 }, 500, 0)
  assert.equal(limit.bytes, Number.POSITIVE_INFINITY)
})

test('a path that delays some packets is no queue', () => {
  const limit = new PathLimit()
  limit.learn({ roundTripMs: 110, variationMs: 30, minRoundTripMs: 40, bytesAcked: 0 }, 256 * KIB, 0)
  assert.equal(limit.bytes, Number.POSITIVE_INFINITY)
})
