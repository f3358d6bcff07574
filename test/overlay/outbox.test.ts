import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { Outbox } from '../../src/overlay/outbox.ts'
import { DATA } from './frames.ts'

const GO_AWAY = 3
const KIB = 1024

/** A connection that takes what it is given until it is told to be full. */
class Connection extends EventTarget {
  readonly sent: Buffer[] = []
  readonly writeStatus = 'writable'
  writableNeedsDrain = false
  takesMore = true

  send(bytes: Uint8Array): boolean {
    this.sent.push(Buffer.from(bytes))
    if (!this.takesMore) this.writableNeedsDrain = true
    return this.takesMore
  }

  drain(): void {
    this.writableNeedsDrain = false
    this.dispatchEvent(new Event('drain'))
  }

  abort(error: Error): void {
    throw error
  }
}

function outbox(): { connection: Connection; outbox: Outbox; goesOn: number[] } {
  const connection = new Connection()
  const goesOn: number[] = []
  return { connection, goesOn, outbox: new Outbox(connection as never, (streamID) => goesOn.push(streamID)) }
}

const data = (streamID: number, bytes: number | string) => {
  const content = typeof bytes === 'string' ? Buffer.from(bytes) : Buffer.alloc(bytes)
  return { type: DATA, flag: 0, streamID, length: content.length, data: content }
}

test('what is sent in one turn leaves as one piece', async () => {
  const { connection, outbox: box } = outbox()
  for (const streamID of [1, 3, 5]) assert.equal(box.push(data(streamID, 'x')), true)
  assert.equal(connection.sent.length, 0)
  await immediate()
  assert.equal(connection.sent.length, 1)
  assert.equal(connection.sent[0]?.length, 3 * 13)
})

test('a full connection keeps what waits here, where a keystroke still overtakes it', async () => {
  const { connection, outbox: box, goesOn } = outbox()
  connection.takesMore = false
  // One that is told to stop has to.
  assert.equal(box.push(data(1, 15 * KIB)), true)
  assert.equal(box.push(data(1, 64 * KIB)), false)
  await immediate()
  const before = connection.sent.length
  assert.equal(before, 1)
  assert.deepEqual(goesOn, [])
  assert.equal(box.push(data(3, 'x')), true)
  await immediate()
  assert.equal(connection.sent.length, before, 'nothing more is put into a full connection')
  connection.takesMore = true
  connection.drain()
  assert.equal(connection.sent[before]?.readUInt32BE(4), 3)
  assert.equal(
    connection.sent.reduce((sum, { length }) => sum + length, 0) >= 79 * KIB,
    true,
    'and the rest follows',
  )
  assert.deepEqual(goesOn, [1])
})

test('on a slow path less leaves at once, so that nobody waits long', async (t) => {
  let nowMs = 0
  t.mock.method(performance, 'now', () => nowMs)
  const { connection, outbox: box } = outbox()
  connection.takesMore = false
  box.push(data(1, 1024 * KIB))
  await immediate()
  const sizes = []
  for (let i = 0; i < 8; i++) {
    sizes.push(connection.sent.at(-1)?.length ?? 0)
    nowMs += 130
    connection.drain()
  }
  assert.equal(sizes[0], 48 * KIB)
  assert.equal(sizes.at(-1), 1536)
})

test('the last word goes behind everything, whether there is room or not', async () => {
  const { connection, outbox: box } = outbox()
  connection.takesMore = false
  box.push(data(1, 100 * KIB))
  await immediate()
  box.push({ type: GO_AWAY, flag: 0, streamID: 0, length: 0 })
  const all = Buffer.concat(connection.sent)
  assert.ok(all.length > 100 * KIB)
  assert.equal(all.readUInt8(all.length - 11), GO_AWAY)
})
