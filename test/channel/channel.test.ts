import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { Channel, type ChannelOptions } from '../../src/channel/channel.ts'
import { type Frame, FrameDecoder } from '../../src/channel/frames.ts'
import { FarportError } from '../../src/errors.ts'
import { type CarrierOptions, CarrierPair, randomFrom } from '../support/carrier.ts'

const KIB = 1024

const carriers: CarrierPair[] = []

function newCarrier(options?: CarrierOptions): CarrierPair {
  const carrier = new CarrierPair(options)
  carriers.push(carrier)
  return carrier
}

/** Two ends of a channel, on a first carrier. */
function pair(t: TestContext, options: ChannelOptions & { carrier?: CarrierOptions } = {}) {
  const a = new Channel(options)
  const b = new Channel(options)
  const carrier = join(a, b, options.carrier)
  t.after(() => over(a, b))
  return { a, b, carrier }
}

/**
 * Leaves nothing behind: a timer that was set under one test's mock and cleared under the next test's would take one of
 * those along.
 */
async function over(...channels: Channel[]): Promise<void> {
  for (const channel of channels) channel.on('error', () => {}).destroy()
  for (const carrier of carriers.splice(0)) carrier.cut()
  await turn()
}

/** Puts both ends on a new carrier, as two hellos would. */
function join(a: Channel, b: Channel, options?: CarrierOptions, counts = { a: a.received, b: b.received }) {
  const carrier = newCarrier(options)
  a.attach(carrier.a, { peerReceived: counts.b })
  b.attach(carrier.b, { peerReceived: counts.a })
  return carrier
}

/** The stream that position alone describes: what is lost, repeated or moved shows. */
function pattern(from: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0; i < length; i++) bytes[i] = (from + i) * 31 + ((from + i) >> 8)
  return bytes
}

/** Reads all that comes, and checks each byte against the pattern as it does. */
function reading(channel: Channel) {
  const state = { bytes: 0, ended: false }
  channel.on('data', (chunk: Buffer) => {
    assert.deepEqual(chunk, pattern(state.bytes, chunk.length))
    state.bytes += chunk.length
  })
  channel.on('end', () => {
    state.ended = true
  })
  return state
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000
  while (!condition()) {
    assert.ok(performance.now() < deadline, `still waiting for ${condition}`)
    await turn()
  }
}

/** A channel whose peer is played by the test. */
function withStranger(t: TestContext, options: ChannelOptions = {}, carrierOptions: CarrierOptions = {}) {
  const channel = new Channel(options)
  const carrier = newCarrier(carrierOptions)
  const frames: Frame[] = []
  const decoder = new FrameDecoder()
  carrier.b.on('data', (chunk: Buffer) => frames.push(...decoder.push(Buffer.from(chunk))))
  channel.attach(carrier.a, { peerReceived: 0 })
  t.after(() => over(channel))
  const say = (hex: string) => carrier.b.write(Buffer.from(hex.replaceAll(' ', ''), 'hex'))
  return { channel, carrier, frames, say }
}

test('bytes go both ways, and each end ends when its bytes were taken', async (t) => {
  const { a, b } = pair(t)
  const detached = t.mock.fn()
  for (const end of [a, b]) end.on('detach', detached)
  const atA = reading(a)
  const atB = reading(b)
  a.end(pattern(0, 100_000))
  b.write(pattern(0, 70_000))
  await once(a, 'finish')
  assert.deepEqual(atB, { bytes: 100_000, ended: true })
  assert.equal(a.unacknowledged, 0)
  assert.equal(a.destroyed, false)
  b.end(pattern(70_000, 10))
  await Promise.all([once(a, 'close'), once(b, 'close')])
  assert.deepEqual(atA, { bytes: 70_010, ended: true })
  assert.deepEqual([a.state, b.state], ['ended', 'ended'])
  assert.deepEqual([a.retainedBytes, b.retainedBytes], [0, 0])
  assert.equal(detached.mock.callCount(), 0)
  assert.deepEqual([a.bytesSent, a.bytesReceived, a.bytesResent, a.attaches], [100_000, 70_010, 0, 1])
})

test('a write is one carrier write, in the same tick', async (t) => {
  const { a, carrier } = pair(t)
  await turn()
  const writes = t.mock.method(carrier.a, 'write')
  a.write('x')
  a.write('yz')
  assert.deepEqual(
    writes.mock.calls.map(({ arguments: [bytes] }) => (bytes as Buffer).toString('hex')),
    ['010000000000000001' + '78', '010000000000010002' + '797a'],
  )
})

test('corked writes share a frame', async (t) => {
  const { a, carrier } = pair(t)
  await turn()
  const writes = t.mock.method(carrier.a, 'write')
  a.cork()
  a.write('x')
  a.write('yz')
  a.uncork()
  assert.deepEqual(
    writes.mock.calls.map(({ arguments: [bytes] }) => (bytes as Buffer).toString('hex')),
    ['010000000000000003' + '78797a'],
  )
})

test('a buffer may be used again once its write is done', async (t) => {
  const { a, b } = pair(t, { resumeMs: 10_000 })
  const atB = reading(b)
  const buffer = pattern(0, 100)
  a.write(buffer, () => buffer.fill(0))
  await until(() => buffer[1] === 0)
  a.end()
  await until(() => atB.ended)
  assert.equal(atB.bytes, 100)
})

// The heart of it: whatever happens to carriers, each byte arrives once and in order.

type Step =
  | { do: 'write'; end: 'a' | 'b'; bytes: number }
  | { do: 'pause' | 'resume'; end: 'a' | 'b' }
  | { do: 'window'; end: 'a' | 'b'; bytes: number }
  | { do: 'cut' | 'stall' | 'flow' | 'count' }
  | { do: 'attach'; stale: boolean }
  | { do: 'attach-one'; end: 'a' | 'b' }
  | { do: 'move'; stale: boolean; turns: number; goes: boolean }
  | { do: 'wait'; turns: number }

const end = fc.constantFrom('a' as const, 'b' as const)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      end,
      bytes: fc.oneof(fc.nat(20), fc.nat(40_000)),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('wait' as const), turns: fc.nat(30) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('pause' as const, 'resume' as const), end }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('window' as const), end, bytes: fc.nat(64 * KIB) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('cut' as const, 'stall' as const, 'flow' as const, 'count' as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('attach' as const), stale: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('attach-one' as const), end }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('move' as const),
      stale: fc.boolean(),
      turns: fc.nat(10),
      goes: fc.boolean(),
    }),
  },
)

test('over any carriers, nothing is lost, repeated or moved, and memory stays bounded', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), fc.nat(), async (steps, seed) => {
      const random = randomFrom(seed)
      const carrierOptions = (): CarrierOptions => ({ random, capacityBytes: 1 + random(64 * KIB) })
      const ends = { a: new Channel(), b: new Channel() }
      const { a, b } = ends
      const seen = { a: reading(a), b: reading(b) }
      const written = { a: 0, b: 0 }
      const largestWindow = { a: 16 * KIB, b: 16 * KIB }
      let carrier = join(a, b, carrierOptions())
      let counts = { a: 0, b: 0 }

      for (const step of steps) {
        switch (step.do) {
          case 'write':
            ends[step.end].write(pattern(written[step.end], step.bytes))
            written[step.end] += step.bytes
            break
          case 'wait':
            for (let i = 0; i < step.turns; i++) await turn()
            break
          case 'pause':
          case 'resume':
            ends[step.end][step.do]()
            break
          case 'window':
            ends[step.end].window = step.bytes
            largestWindow[step.end] = Math.max(largestWindow[step.end], step.bytes)
            break
          case 'cut':
          case 'stall':
          case 'flow':
            carrier[step.do]()
            break
          case 'count':
            counts = { a: a.received, b: b.received }
            break
          case 'attach':
            carrier = join(a, b, carrierOptions(), step.stale ? counts : undefined)
            break
          case 'attach-one': {
            // The other end's hello got lost: it will never answer on this carrier.
            const dead = newCarrier(carrierOptions())
            ends[step.end].attach(dead.a, { peerReceived: ends[step.end === 'a' ? 'b' : 'a'].received })
            dead.b.resume()
            break
          }
          case 'move': {
            // b's half is in reserve while a's hello is answered; a may never come.
            const next = newCarrier(carrierOptions())
            const hello = step.stale ? counts : { a: a.received, b: b.received }
            b.reserve(next.b, { peerReceived: hello.a })
            const welcome = b.received
            for (let i = 0; i < step.turns; i++) await turn()
            if (step.goes) {
              a.attach(next.a, { peerReceived: welcome })
              carrier = next
            } else next.cut()
            break
          }
        }
        for (const name of ['a', 'b'] as const) {
          assert.ok(ends[name].bufferedBytes <= largestWindow[name])
          assert.ok(ends[name].retainedBytes <= 256 * KIB + 41 * KIB, `${ends[name].retainedBytes} retained`)
        }
      }

      for (const channel of [a, b]) channel.resume().end()
      join(a, b, carrierOptions())
      await until(() => a.closed && b.closed)
      assert.equal(seen.b.bytes, written.a)
      assert.equal(seen.a.bytes, written.b)
      assert.deepEqual([a.errored, b.errored], [null, null])
      await over(a, b)
    }),
  )
})

test('the count of a hello may be older than the newest acknowledgement', async (t) => {
  const { a, b } = pair(t)
  const atB = reading(b)
  const stale = { a: a.received, b: b.received }
  a.write(pattern(0, 10_000))
  await until(() => a.unacknowledged < 10_000)
  join(a, b, {}, stale)
  a.end(pattern(10_000, 5))
  await until(() => atB.ended)
  assert.equal(atB.bytes, 10_005)
})

test('what a replaced carrier still delivers is nothing', async (t) => {
  const { a, b, carrier: first } = pair(t)
  const atB = reading(b)
  a.write(pattern(0, 10))
  await until(() => atB.bytes === 10)
  join(a, b)
  assert.ok(first.b.destroyed)
  first.b.emit('data', Buffer.from('01 00000000000a 0001 00'.replaceAll(' ', ''), 'hex'))
  first.b.emit('data', Buffer.from('ff', 'hex'))
  first.b.emit('error', new Error('late'))
  first.b.emit('close')
  a.write(pattern(10, 10))
  await until(() => atB.bytes === 20)
  assert.equal(b.state, 'attached')
})

// Moving while the old carrier works

/** b keeps a carrier in reserve. */
function reserving(a: Channel, b: Channel) {
  const next = newCarrier()
  b.reserve(next.b, { peerReceived: a.received })
  return {
    next,
    move: (
      (received) => () =>
        a.attach(next.a, { peerReceived: received })
    )(b.received),
  }
}

test('a carrier in reserve changes nothing until the peer is heard on it', async (t) => {
  const { a, b, carrier } = pair(t)
  const [atA, atB] = [reading(a), reading(b)]
  const detached = t.mock.fn()
  for (const end of [a, b]) end.on('detach', detached)
  const { next, move } = reserving(a, b)
  a.write(pattern(0, 5000))
  b.write(pattern(0, 5000))
  await until(() => atA.bytes === 5000 && atB.bytes === 5000)
  assert.deepEqual([a.attaches, b.attaches], [1, 1])
  move()
  a.write(pattern(5000, 5000))
  b.write(pattern(5000, 5000))
  await until(() => atA.bytes === 10_000 && atB.bytes === 10_000)
  assert.deepEqual([a.attaches, b.attaches], [2, 2])
  assert.ok(carrier.a.destroyed && carrier.b.destroyed)
  assert.ok(!next.a.destroyed && !next.b.destroyed)
  // What b says between a's move and its own is lost and sent again. Of what a had by then nothing is: a's ACK came first.
  await until(() => a.unacknowledged === 0 && b.unacknowledged === 0)
  assert.equal(b.bytesResent, 5000)
})

test('a reserve that fails, ends, waits too long or is replaced leaves the carrier in use alone', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  const { a, b } = pair(t, { clock: Date.now })
  const detached = t.mock.fn()
  for (const end of [a, b]) end.on('detach', detached)
  const failing = reserving(a, b).next
  failing.cut()
  await until(() => failing.b.destroyed)
  const ending = reserving(a, b).next
  ending.a.resume().end()
  await until(() => ending.b.destroyed)
  const replaced = reserving(a, b).next
  const late = reserving(a, b).next
  assert.ok(replaced.b.destroyed && !late.b.destroyed)
  for (let ms = 0; ms < 10_000; ms += 500) {
    t.mock.timers.tick(500)
    for (let i = 0; i < 5; i++) await turn()
  }
  assert.ok(late.b.destroyed)
  const atB = reading(b)
  a.write(pattern(0, 100))
  await until(() => atB.bytes === 100)
  assert.deepEqual([a.attaches, b.attaches, detached.mock.callCount()], [1, 1, 0])
})

test('a reserve outlives the carrier in use', async (t) => {
  const { a, b, carrier } = pair(t)
  const [atA, atB] = [reading(a), reading(b)]
  const { move } = reserving(a, b)
  carrier.cut()
  await until(() => a.state === 'detached' && b.state === 'detached')
  move()
  a.write(pattern(0, 100))
  b.write(pattern(0, 100))
  await until(() => atA.bytes === 100 && atB.bytes === 100)
})

test('a detached channel has no use for a reserve: it attaches', async (t) => {
  const { a, b, carrier } = pair(t)
  carrier.cut()
  await until(() => b.state === 'detached')
  const { next } = reserving(a, b)
  assert.equal(b.state, 'attached')
  // And an attached one gives it up for what it is attached to.
  const { next: second } = reserving(a, b)
  join(a, b)
  assert.ok(next.b.destroyed && second.b.destroyed)
})

test('the last words go to the reserve too, for the peer may be there already', async (t) => {
  const { a, b } = pair(t)
  a.on('error', () => {})
  b.on('error', () => {})
  const { move } = reserving(a, b)
  move()
  b.destroy(new FarportError('ERR_NOT_GRANTED', 'this peer may no longer use gps'))
  const [error] = await once(a, 'error')
  assert.equal(error.code, 'ERR_NOT_GRANTED')
})

test('a peer that breaks the rules on a reserve has broken them', async (t) => {
  const { a, b } = pair(t)
  a.on('error', () => {})
  const { next } = reserving(a, b)
  const failed = once(b, 'error')
  next.a.write(Buffer.from('ff', 'hex'))
  assert.equal((await failed)[0].code, 'ERR_PROTOCOL')
})

test('a reader that stalls holds the sender back, and nothing else', async (t) => {
  const { a, b, carrier } = pair(t, { sendBufferBytes: 64 * KIB })
  const atA = reading(a)
  let accepted = 0
  const feed = (): void => {
    while (accepted < 300_000) {
      const more = a.write(pattern(accepted, 1000))
      accepted += 1000
      if (!more) {
        a.once('drain', feed)
        return
      }
    }
    a.end()
  }
  feed()
  b.write(pattern(0, 5000))
  await until(() => atA.bytes === 5000)
  for (let i = 0; i < 200; i++) await turn()
  assert.equal(b.bufferedBytes, 16_000)
  assert.ok(a.retainedBytes < 66 * KIB)
  assert.ok(accepted < 64 * KIB + a.writableHighWaterMark + 2000)
  assert.equal(a.unacknowledged, accepted)

  carrier.cut()
  await until(() => a.state === 'detached' && b.state === 'detached')
  join(a, b)
  const atB = reading(b)
  await until(() => atB.ended)
  assert.equal(atB.bytes, 300_000)
  assert.equal(a.bytesSent, 300_000)
})

test('a reader that pauses leaves no more than a piece in the stream itself', async (t) => {
  const { a, b } = pair(t)
  b.once('data', () => b.pause())
  a.write(pattern(0, 100_000))
  await until(() => b.received === 4 * KIB + 16 * KIB)
  assert.ok(b.readableLength <= 4 * KIB)
  assert.equal(b.bufferedBytes, 16 * KIB)
})

test('a stalled reader does not keep a PING from its answer', async (t) => {
  const { frames, say } = withStranger(t)
  say('01 000000000000 0003 616263')
  say('04 00000009')
  await until(() => frames.some((frame) => frame.type === 'pong' && frame.token === 9))
})

test('while the carrier takes no more, data waits and one frame of each other kind', async (t) => {
  const { channel, carrier, frames, say } = withStranger(t, {}, { capacityBytes: 1 })
  channel.resume()
  await until(() => frames.length === 2)
  carrier.stall()
  channel.write(Buffer.alloc(100))
  const heard = t.mock.method(carrier.a, 'write')
  channel.write(Buffer.alloc(100))
  // The carrier's own way in still works: only what leaves is stuck.
  for (let i = 0; i < 50; i++) {
    carrier.a.emit('data', Buffer.from(`05000000${(i + 16).toString(16)}`, 'hex'))
    carrier.a.emit('data', Buffer.from(`04000000${(i + 16).toString(16)}`, 'hex'))
  }
  assert.equal(heard.mock.callCount(), 0)
  carrier.flow()
  await until(() => frames.length === 5)
  assert.deepEqual(
    frames.slice(2).map((frame) => (frame.type === 'data' ? frame.payload.length : frame)),
    [100, { type: 'pong', token: 65 }, 100],
  )
  say('04 00000001')
  await until(() => frames.length === 6)
})

test('credit once given stays given', async (t) => {
  const { channel, frames, say } = withStranger(t)
  say('03 000000000000 00000000')
  await turn()
  await turn()
  channel.write(Buffer.alloc(20 * KIB))
  const sent = () =>
    frames.reduce((sum, frame) => sum + (frame.type === 'data' ? frame.payload.length : 0), 0)
  await until(() => sent() === 16 * KIB)
  say('03 000000004000 00000064')
  await until(() => sent() === 16 * KIB + 100)
})

test('what was taken is acknowledged every quarter of a window, every 256 frames, and after 200 ms', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { channel, frames, say } = withStranger(t)
  channel.on('data', () => {})
  const acknowledged = () => {
    const ack = frames.findLast(({ type }) => type === 'ack')
    return ack?.type === 'ack' ? ack.consumed : undefined
  }
  say(`01 000000000000 1000 ${'00'.repeat(4096)}`)
  await until(() => acknowledged() === 4096)
  for (let i = 0; i < 256; i++) say(`01 00000000${(4096 + i).toString(16)} 0001 00`)
  await until(() => acknowledged() === 4096 + 256)
  say('01 000000001100 0001 00')
  await until(() => channel.received === 4096 + 257)
  for (let i = 0; i < 10; i++) await turn()
  t.mock.timers.tick(199)
  for (let i = 0; i < 10; i++) await turn()
  assert.equal(acknowledged(), 4096 + 256)
  t.mock.timers.tick(1)
  await until(() => acknowledged() === 4096 + 257)
})

test('small writes that have to wait share frames', async (t) => {
  const { a, b, carrier } = pair(t)
  carrier.cut()
  await until(() => a.state === 'detached')
  for (let i = 0; i < 3000; i++) a.write(pattern(i, 1))
  const next = newCarrier()
  const writes = t.mock.method(next.a, 'write')
  a.attach(next.a, { peerReceived: b.received })
  b.attach(next.b, { peerReceived: a.received })
  const atB = reading(b)
  await until(() => atB.bytes === 3000)
  assert.ok(writes.mock.callCount() < 10)
})

test('a write beyond the cap is done when there is room again', async (t) => {
  const { a, b } = pair(t, { sendBufferBytes: 20 * KIB })
  const done = t.mock.fn()
  a.write(pattern(0, 30 * KIB), done)
  for (let i = 0; i < 50; i++) await turn()
  assert.equal(done.mock.callCount(), 0)
  const atB = reading(b)
  await until(() => done.mock.callCount() === 1)
  assert.equal(done.mock.calls[0]?.arguments[0] ?? null, null)
  await until(() => atB.bytes === 30 * KIB)
})

test('a larger window lets more come at once; a smaller one takes effect behind what was promised', async (t) => {
  const { a, b } = pair(t)
  a.write(pattern(0, 200 * KIB))
  await until(() => b.bufferedBytes === 16 * KIB)
  b.window = 64 * KIB
  await until(() => b.bufferedBytes === 64 * KIB)
  b.window = 1 * KIB
  const chunks: number[] = []
  const atB = reading(b)
  b.on('data', () => chunks.push(b.received - atB.bytes))
  await until(() => atB.bytes === 200 * KIB)
  assert.ok(Math.max(...chunks.slice(-20)) <= 1 * KIB)
  b.window = 0
  assert.equal(b.window, 1 * KIB)
  b.window = 1e9
  assert.equal(b.window, 1024 * KIB)
})

// Marks

test('a mark overtakes what the reader has not taken, and says where that ends', async (t) => {
  const { a, b } = pair(t)
  const marks: number[] = []
  b.on('mark', (position) => marks.push(position))
  a.write(pattern(0, 100_000))
  await until(() => b.bufferedBytes === 16 * KIB)
  a.mark()
  await until(() => marks.length === 1)
  assert.deepEqual(marks, [100_000])
  a.mark()
  a.write(pattern(100_000, 5))
  const behind: number[] = []
  b.on('data', (chunk) => behind.push(b.position - chunk.length))
  const atB = reading(b)
  await until(() => atB.bytes === 100_005)
  assert.deepEqual(marks, [100_000])
  assert.equal(behind[0], 0)
  assert.equal(b.position, 100_005)
  a.mark()
  await until(() => marks.length === 2)
  assert.equal(marks[1], 100_005)
})

test('a mark covers what is held, is sent again on a new carrier, and counts once', async (t) => {
  const { a, b, carrier } = pair(t, { sendBufferBytes: 1 })
  const marks: number[] = []
  b.on('mark', (position) => marks.push(position))
  a.write(pattern(0, 10))
  a.write(pattern(10, 10))
  await until(() => b.received === 10)
  carrier.cut()
  await until(() => a.state === 'detached' && b.state === 'detached')
  a.mark()
  join(a, b)
  await until(() => marks.length === 1)
  join(a, b)
  const atB = reading(b)
  await until(() => atB.bytes === 20)
  join(a, b)
  for (let i = 0; i < 20; i++) await turn()
  assert.deepEqual(marks, [20])
})

test('a mark behind which all was taken is not repeated', async (t) => {
  const { a, b, carrier } = pair(t)
  reading(b)
  a.write(pattern(0, 10))
  a.mark()
  await until(() => a.unacknowledged === 0)
  carrier.cut()
  await until(() => a.state === 'detached')
  const next = newCarrier()
  const frames: Frame[] = []
  const decoder = new FrameDecoder()
  next.b.on('data', (chunk: Buffer) => frames.push(...decoder.push(chunk)))
  a.attach(next.a, { peerReceived: 10 })
  await until(() => frames.length === 2)
  for (let i = 0; i < 10; i++) await turn()
  assert.deepEqual(
    frames.map(({ type }) => type),
    ['ack', 'ping'],
  )
})

// Ends

test('the end waits for a new carrier like any byte', async (t) => {
  const { a, b, carrier } = pair(t)
  const atB = reading(b)
  a.write(pattern(0, 50))
  await until(() => atB.bytes === 50)
  carrier.stall()
  a.end()
  for (let i = 0; i < 10; i++) await turn()
  carrier.cut()
  await until(() => a.state === 'detached' && b.state === 'detached')
  assert.equal(atB.ended, false)
  join(a, b)
  await Promise.all([once(a, 'finish'), once(b, 'end')])
  b.end()
  a.resume()
  await Promise.all([once(a, 'close'), once(b, 'close')])
})

test('an end that the reader has not come to is not acknowledged', async (t) => {
  const { a, b } = pair(t)
  a.end('x')
  await until(() => b.received === 2)
  for (let i = 0; i < 20; i++) await turn()
  assert.equal(a.writableFinished, false)
  b.resume()
  await once(a, 'finish')
})

test('destroyed with an error, the peer is destroyed with the same', async (t) => {
  const { a, b, carrier } = pair(t)
  a.on('error', () => {})
  a.write('x')
  a.destroy(new FarportError('ERR_NOT_GRANTED', 'this peer may no longer use gps'))
  const [error] = await once(b, 'error')
  assert.ok(error instanceof FarportError)
  assert.equal(error.code, 'ERR_NOT_GRANTED')
  assert.equal(error.message, 'this peer may no longer use gps')
  await until(() => carrier.a.destroyed && carrier.b.destroyed)
})

test('destroyed without an error, the peer closes without one', async (t) => {
  const { a, b } = pair(t)
  const atB = reading(b)
  b.write('never read')
  await until(() => a.received === 10)
  a.destroy()
  assert.equal(a.bufferedBytes, 0)
  await once(b, 'close')
  assert.equal(b.errored, null)
  assert.equal(atB.ended, false)
  assert.equal(b.unacknowledged, 10)
})

test("'close' waits for the last words, so that what is disposed has said goodbye", async (t) => {
  const { a, carrier } = pair(t)
  await a[Symbol.asyncDispose]()
  assert.ok(carrier.a.writableFinished)
  await a[Symbol.asyncDispose]()
})

test('a peer that does not hang up keeps nobody waiting', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { channel, carrier, frames } = withStranger(t)
  channel.destroy()
  await once(channel, 'close')
  await until(() => frames.at(-1)?.type === 'close')
  assert.equal(carrier.a.destroyed, false)
  t.mock.timers.tick(1000)
  assert.ok(carrier.a.destroyed)
})

test('after both ends there is no more to say', async (t) => {
  const { channel, frames, say } = withStranger(t)
  channel.resume().end()
  say('02 000000000000')
  await until(() => frames.some(({ type }) => type === 'end'))
  say('03 000000000001 00004000')
  await once(channel, 'close')
  for (let i = 0; i < 10; i++) await turn()
  assert.deepEqual(
    frames.map(({ type }) => type).filter((type) => type !== 'ping'),
    ['ack', 'end', 'ack'],
  )
})

test('a peer that hangs up after both ends has detached nothing', async (t) => {
  const { channel, carrier, frames, say } = withStranger(t)
  const detached = t.mock.fn()
  channel.on('detach', detached).end()
  say('02 000000000000')
  await until(() => frames.some(({ type }) => type === 'end'))
  say('03 000000000001 00004000')
  await once(channel, 'finish')
  carrier.b.end()
  await until(() => carrier.a.destroyed)
  assert.equal(detached.mock.callCount(), 0)
  channel.resume()
  await once(channel, 'close')
})

test('last words that nobody takes are given up', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { a, carrier } = pair(t)
  carrier.stall()
  const closed = once(a, 'close')
  a.destroy()
  await turn()
  assert.equal(a.closed, false)
  t.mock.timers.tick(1000)
  await closed
  assert.ok(carrier.a.destroyed)
})

test('a held write fails when the channel is destroyed', async (t) => {
  const { a } = pair(t, { sendBufferBytes: 1 })
  const written = new Promise((resolve) => a.write('x', resolve))
  a.destroy()
  assert.ok((await written) instanceof FarportError)
  await until(() => a.closed)
  assert.equal(a.unacknowledged, 1)
})

test('a carrier for a channel that has ended is destroyed', async (t) => {
  const { a } = pair(t)
  a.destroy()
  const late = newCarrier()
  a.attach(late.a, { peerReceived: 0 })
  assert.ok(late.a.destroyed)
  assert.equal(a.attaches, 1)
})

// Carriers that go away

test('a carrier that ends, fails or was dead already detaches, and says why', async (t) => {
  const { a, b, carrier } = pair(t)
  const why: unknown[] = []
  a.on('detach', (reason, cause) => why.push([reason, cause?.code]))
  b.on('attach', () => why.push('b attached'))
  carrier.cut()
  await until(() => a.state === 'detached')
  join(a, b)
  const stranger = newCarrier()
  a.attach(stranger.a, { peerReceived: 0 })
  stranger.b.resume().end()
  await until(() => a.state === 'detached')
  assert.ok(stranger.a.destroyed)
  a.attach(stranger.a, { peerReceived: 0 })
  assert.equal(a.state, 'attached')
  await until(() => a.state === 'detached')
  assert.deepEqual(why, [['failed', 'ECONNRESET'], 'b attached', ['ended', undefined], ['ended', undefined]])
  assert.equal(a.destroyed, false)
})

test('a carrier that goes silent is given up: after 3 s with bytes outstanding', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  const { a, b, carrier } = pair(t, { clock: Date.now })
  const detached = t.mock.fn()
  a.on('detach', detached)
  const measured = t.mock.fn()
  a.on('roundTrip', measured)
  await until(() => measured.mock.callCount() === 1)
  carrier.stall()
  a.write('x')
  for (let ms = 0; ms < 2990; ms += 10) t.mock.timers.tick(10)
  assert.equal(a.state, 'attached')
  t.mock.timers.tick(10)
  assert.equal(a.state, 'detached')
  assert.deepEqual(detached.mock.calls[0]?.arguments, ['silent', undefined])
  assert.ok(carrier.a.destroyed)
  join(a, b)
  const [chunk] = await once(b, 'data')
  assert.equal(String(chunk), 'x')
})

test('a carrier that goes silent is given up: after 15 s when idle', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  const { a, b, carrier } = pair(t, { clock: Date.now })
  const atB = reading(b)
  a.write(pattern(0, 100))
  await until(() => atB.bytes === 100)
  t.mock.timers.tick(200)
  await until(() => a.unacknowledged === 0)
  carrier.stall()
  for (let ms = 0; ms < 14_900; ms += 10) t.mock.timers.tick(10)
  assert.equal(a.state, 'attached')
  for (let ms = 0; ms < 200; ms += 10) t.mock.timers.tick(10)
  assert.equal(a.state, 'detached')
})

test('detached for too long, the channel is lost and says how much with it', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  const { a, b, carrier } = pair(t, { clock: Date.now, sendBufferBytes: 100, resumeMs: 5000 })
  b.on('error', () => {})
  carrier.cut()
  await until(() => a.state === 'detached')
  a.write('0123456789')
  a.write('0123456789')
  a.write('held in the stream')
  t.mock.timers.tick(4000)
  a.resumeMs = 6000
  t.mock.timers.tick(1999)
  assert.equal(a.destroyed, false)
  const failed = once(a, 'error')
  t.mock.timers.tick(1)
  const [error] = await failed
  assert.equal(error.code, 'ERR_CHANNEL_LOST')
  assert.equal(a.unacknowledged, 38)
})

test('a resume time in the past is over at once; one without end never', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  const a = new Channel({ clock: Date.now, resumeMs: Number.POSITIVE_INFINITY })
  t.mock.timers.tick(1_000_000)
  assert.equal(a.destroyed, false)
  const failed = once(a, 'error')
  a.resumeMs = 0
  t.mock.timers.tick(1)
  assert.equal((await failed)[0].code, 'ERR_CHANNEL_LOST')
})

/** Detached for good, after the peer ended and acknowledged `acknowledged` of our one byte and our end. */
async function abandoned(t: TestContext, { ends, acknowledged }: { ends: boolean; acknowledged: number }) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  const { channel, carrier, frames, say } = withStranger(t, { clock: Date.now })
  channel.resume()
  channel.write('x')
  if (ends) channel.end()
  say('02 000000000000')
  await until(() => frames.some(({ type }) => type === (ends ? 'end' : 'data')))
  say(`03 00000000000${acknowledged} 00004000`)
  await until(() => channel.readableEnded && channel.unacknowledged === 1 - acknowledged)
  assert.equal(channel.writableFinished, false)
  const errors: unknown[] = []
  channel.on('error', (error) => errors.push((error as FarportError).code))
  carrier.cut()
  await until(() => channel.state === 'detached')
  const closed = new Promise((resolve) => channel.once('close', resolve))
  t.mock.timers.tick(30_000)
  await closed
  return errors
}

test('when only the word on our end went missing, nothing was lost', async (t) => {
  assert.deepEqual(await abandoned(t, { ends: true, acknowledged: 1 }), [])
})

test('when the word on a byte went missing, it counts as lost', async (t) => {
  assert.deepEqual(await abandoned(t, { ends: true, acknowledged: 0 }), ['ERR_CHANNEL_LOST'])
})

test('a channel we had more to say on is lost', async (t) => {
  assert.deepEqual(await abandoned(t, { ends: false, acknowledged: 1 }), ['ERR_CHANNEL_LOST'])
})

// Peers that break the rules

const violations: { name: string; says: string }[] = [
  { name: 'an unknown frame', says: 'ff' },
  { name: 'a gap', says: '01 000000000001 0001 61' },
  {
    name: 'a byte beyond the credit',
    says: '01 000000000000 4000'.concat('61'.repeat(16384), '01 000000004000 0001 61'),
  },
  { name: 'an acknowledgement of what was never sent', says: '03 000000000004 00004000' },
  { name: 'an acknowledgement taken back', says: '03 000000000003 00004000 03 000000000002 00004000' },
  { name: 'an end before bytes that came', says: '01 000000000000 0002 6162 02 000000000001' },
  { name: 'an end behind bytes that did not come', says: '02 000000000001' },
  { name: 'a byte behind the end', says: '02 000000000000 01 000000000000 0001 61' },
]
for (const { name, says } of violations) {
  test(`a peer that sends ${name} is told so, and the channel is over`, async (t) => {
    const { channel, frames, say } = withStranger(t)
    channel.write('abc')
    await until(() => frames.some(({ type }) => type === 'data'))
    const failed = once(channel, 'error')
    say(says)
    const [error] = await failed
    assert.ok(error instanceof FarportError)
    assert.equal(error.code, 'ERR_PROTOCOL')
    const last = frames.at(-1)
    assert.ok(last?.type === 'close' && last.reason.startsWith('ERR_PROTOCOL the peer '))
  })
}

for (const peerReceived of [4, -1, Number.NaN, 2 ** 48]) {
  test(`a peer that says it received ${peerReceived} of 3 bytes is not believed`, async (t) => {
    const { channel, frames } = withStranger(t)
    channel.write('abc')
    await until(() => frames.some(({ type }) => type === 'data'))
    const failed = once(channel, 'error')
    const next = newCarrier()
    next.b.resume()
    channel.attach(next.a, { peerReceived })
    assert.equal((await failed)[0].code, 'ERR_PROTOCOL')
  })
}

test('repeated bytes are no fault, and pass once', async (t) => {
  const { channel, say } = withStranger(t)
  const got: Buffer[] = []
  channel.on('data', (chunk) => got.push(chunk))
  say('01 000000000000 0003 616263')
  say('01 000000000000 0003 616263')
  say('01 000000000001 0003 626364')
  say('02 000000000004 02 000000000004 01 000000000002 0002 6364')
  await once(channel, 'end')
  assert.equal(Buffer.concat(got).toString(), 'abcd')
})

test('any bytes from a peer end the channel with ERR_PROTOCOL, or not at all', async (t) => {
  const field = fc.oneof(fc.nat(4), fc.nat(70_000), fc.nat(2 ** 32 - 1))
  const u = (value: number, bytes: number) => value.toString(16).padStart(bytes * 2, '0')
  const frame = fc.oneof(
    fc.tuple(field, fc.nat(40)).map(([at, n]) => `01${u(at, 6)}${u(n, 2)}${'61'.repeat(n)}`),
    fc.tuple(fc.constantFrom('02', '07'), field).map(([type, at]) => type + u(at, 6)),
    fc.tuple(field, field).map(([consumed, window]) => `03${u(consumed, 6)}${u(window, 4)}`),
    fc.tuple(fc.constantFrom('04', '05'), field).map(([type, token]) => type + u(token, 4)),
    fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('hex')),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 8 }), fc.boolean(), async (frames, read) => {
      const { channel, say } = withStranger(t)
      let failure: Error | undefined
      channel.on('error', (error) => {
        failure = error
      })
      if (read) channel.resume()
      channel.write('abc')
      for (const frame of frames) say(frame)
      for (let i = 0; i < 10 + frames.length; i++) await turn()
      assert.ok(failure === undefined || (failure instanceof FarportError && failure.code !== 'ERR_INTERNAL'))
      channel.destroy()
    }),
  )
})

test('readers of every kind get every byte, and their taking is acknowledged', async (t) => {
  const readers: Record<string, (channel: Channel) => Promise<number>> = {
    'for await': async (channel) => {
      let bytes = 0
      for await (const chunk of channel) bytes += chunk.length
      return bytes
    },
    readable: async (channel) => {
      let bytes = 0
      channel.on('readable', () => {
        for (;;) {
          const chunk = channel.read(7) ?? channel.read()
          if (chunk === null) break
          bytes += chunk.length
        }
      })
      await once(channel, 'end')
      return bytes
    },
    'pause and resume': async (channel) => {
      let bytes = 0
      channel.on('data', (chunk) => {
        bytes += chunk.length
        channel.pause()
        setImmediate(() => channel.resume())
      })
      await once(channel, 'end')
      return bytes
    },
  }
  for (const [name, read] of Object.entries(readers)) {
    await t.test(name, async (t) => {
      const { a, b } = pair(t)
      const bytes = read(b)
      a.write(Buffer.alloc(1))
      await until(() => a.unacknowledged === 0)
      a.end(Buffer.alloc(100_000))
      await once(a, 'finish')
      assert.equal(await bytes, 100_001)
    })
  }
})
