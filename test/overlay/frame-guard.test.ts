import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FrameError, FrameGuard, MAX_DATA_BYTES } from '../../src/overlay/frame-guard.ts'
import { DATA, frame, GO_AWAY, PING, SYN, WINDOW_UPDATE } from './frames.ts'

/** Gives the guard `bytes` cut at `cuts`. */
function push(guard: FrameGuard, bytes: Uint8Array, cuts: number[] = [], nowMs = 0): void {
  const points = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  for (const [i, end] of points.entries()) guard.push(bytes.subarray(points[i - 1] ?? 0, end), nowMs)
}

const honestFrame = fc.oneof(
  fc
    .uint8Array({ maxLength: 300 })
    .map((data) => frame({ type: DATA, stream: 1, length: data.length, data })),
  // In these, the length counts no bytes that follow.
  fc.nat(0xffff_ffff).map((length) => frame({ type: WINDOW_UPDATE, stream: 1, length })),
  fc.nat(0xffff_ffff).map((length) => frame({ type: PING, stream: 0, length })),
  fc.nat(2).map((length) => frame({ type: GO_AWAY, stream: 0, length })),
)
const cuts = fc.array(fc.nat(), { maxLength: 20 })

test('honest frames pass, however they are cut', () => {
  fc.assert(
    fc.property(fc.array(honestFrame, { maxLength: 30 }), cuts, (frames, cuts) => {
      push(new FrameGuard(), Buffer.concat(frames), cuts)
    }),
  )
})

test('a frame as long as the window passes, one byte more does not, and neither does 4 GiB', () => {
  push(new FrameGuard(), frame({ type: DATA, stream: 1, length: MAX_DATA_BYTES }))
  for (const length of [MAX_DATA_BYTES + 1, 0x8000_0000, 0xffff_ffff])
    assert.throws(() => push(new FrameGuard(), frame({ type: DATA, stream: 1, length })), FrameError)
})

test('a frame that is too long is found behind any honest frames, at its header', () => {
  fc.assert(
    fc.property(fc.array(honestFrame, { maxLength: 20 }), cuts, (frames, cuts) => {
      const bad = frame({ type: DATA, stream: 3, length: 0xffff_ffff })
      const guard = new FrameGuard()
      push(guard, Buffer.concat([...frames, bad.subarray(0, 11)]), cuts)
      assert.throws(() => push(guard, bad.subarray(11)), FrameError)
    }),
  )
})

test('what looks like a header inside data is data', () => {
  const inner = frame({ type: DATA, stream: 3, length: 0xffff_ffff })
  push(new FrameGuard(), frame({ type: DATA, stream: 1, length: inner.length, data: inner }))
})

test('streams and pings may come in bursts, and again later, but not without end', () => {
  for (const one of [
    frame({ type: WINDOW_UPDATE, flags: SYN, stream: 1, length: 0 }),
    frame({ type: DATA, flags: SYN, stream: 1, length: 0 }),
    frame({ type: PING, flags: SYN, stream: 0, length: 7 }),
  ]) {
    const guard = new FrameGuard()
    for (let i = 0; i < 64; i++) push(guard, one, [], 1_000)
    const flood = () => {
      for (let i = 0; i < 10_000; i++) push(guard, one, [], 1_000)
    }
    assert.throws(flood, FrameError)
  }
  const patient = new FrameGuard()
  for (let second = 0; second < 10_000; second++)
    push(patient, frame({ type: PING, flags: SYN, stream: 0, length: second }), [], second * 1_000)
})

test('any bytes are passed on or refused with a FrameError, nothing else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2_000 }), cuts, (bytes, cuts) => {
      try {
        push(new FrameGuard(), bytes, cuts)
      } catch (error) {
        assert.ok(error instanceof FrameError)
      }
    }),
  )
})
