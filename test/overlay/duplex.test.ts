import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Stream } from '@libp2p/interface'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { toDuplex } from '../../src/overlay/duplex.ts'
import { Network } from './network.ts'
import { closed, deadline, NodePair, readAll, startNode } from './nodes.ts'

const MIB = 1024 * 1024

let pair: NodePair
before(async () => {
  pair = await NodePair.start()
})
after(async () => {
  await pair[Symbol.asyncDispose]()
})

test('8 MiB each way at the same time arrive as they were sent, and both sides close', async () => {
  const { near, far } = await pair.open()
  const up = randomBytes(8 * MIB)
  const down = randomBytes(8 * MIB)
  Readable.from(pieces(up)).pipe(near)
  Readable.from(pieces(down)).pipe(far)

  const [atFar, atNear] = await Promise.all([readAll(far), readAll(near)])

  assert.equal(hash(atFar), hash(up))
  assert.equal(hash(atNear), hash(down))
  assert.deepEqual(await Promise.all([closed(near), closed(far)]), [null, null])
})

test('however writes are cut, the bytes stay the same and in order', async () => {
  const chunks = fc.array(fc.uint8Array({ minLength: 1, maxLength: 40_000 }), { minLength: 1, maxLength: 12 })
  await fc.assert(
    fc.asyncProperty(chunks, async (written) => {
      const { near, far } = await pair.open()
      for (const chunk of written) near.write(chunk)
      near.end()
      assert.ok(Buffer.concat(written).equals(await readAll(far)))
      far.destroy()
    }),
    { numRuns: 25 },
  )
})

test('a reader that stops holds the writer, and nothing is lost when it goes on', async () => {
  const { near, far } = await pair.open()
  const sent: Buffer[] = []
  const got: Buffer[] = []
  for (let round = 0; round < 4; round++) {
    const taken = await pair.fill(near)
    assert.ok(taken.length < MIB, `${taken.length} bytes were taken although nobody reads`)
    sent.push(taken)
    // Enough that libp2p hands over what it kept, too little for all of that to be wanted.
    got.push(await take(far, 60_000))
  }
  near.end()
  got.push(await readAll(far))
  assert.equal(hash(Buffer.concat(got)), hash(Buffer.concat(sent)))
})

test('data sent before the end reaches a reader that comes after it', async () => {
  const { near, far } = await pair.open()
  const data = randomBytes(200_000)
  far.end(data)
  await pair.fence()
  assert.ok(
    near.readableLength < data.length,
    'some of it must still be kept by libp2p, or this tests nothing',
  )

  assert.equal(hash(await readAll(near)), hash(data))
  near.end('the other way is still open')
  assert.equal(String(await readAll(far)), 'the other way is still open')
  assert.deepEqual(await Promise.all([closed(near), closed(far)]), [null, null])
})

test('one side can finish while the other goes on', async () => {
  const { near, far } = await pair.open()
  near.end('question')
  assert.equal(String(await readAll(far)), 'question')
  far.write('answer, ')
  far.end('in parts')
  assert.equal(String(await readAll(near)), 'answer, in parts')
})

test('a stream that the peer destroys fails: it does not end', async () => {
  const { near, far } = await pair.open()
  near.resume()
  far.destroy()
  const error = await closed(near)
  assert.ok(error instanceof FarportError)
  assert.equal(error.code, 'ERR_PEER_UNREACHABLE')
  assert.equal(near.readableEnded, false)
})

test('a lost connection fails its streams, both when idle and in the middle of a write', async () => {
  await using lossy = await NodePair.start()
  const idle = await lossy.open()
  const busy = await lossy.open()
  await lossy.fill(busy.near)
  const written = Promise.withResolvers<unknown>()
  busy.near.write('the last', written.resolve)

  await lossy.far.disconnect(lossy.near.peerId, 'test')

  assert.ok((await written.promise) instanceof Error)
  for (const stream of [idle.near, idle.far, busy.near, busy.far]) {
    assert.ok((await closed(stream)) instanceof FarportError)
    assert.equal(stream.readableEnded, false)
  }
})

test('a connection that closes in good order has still cut its streams short', async () => {
  await using network = await Network.start(pair.far.addresses()[0] as string)
  await using near = await startNode({ listen: [] })
  const served = pair.next()
  const { stream } = await near.open(pair.far.peerId, '/test/1', {
    addresses: [network.address],
    signal: deadline(),
  })
  stream.resume()
  const far = (await served).resume()
  network.end()
  for (const end of [stream, far]) {
    assert.ok((await closed(end)) instanceof FarportError)
    assert.equal(end.readableEnded, false)
  }
})

test('a peer that has finished and is then lost has still failed whoever writes to it', async () => {
  await using lossy = await NodePair.start()
  const { near, far } = await lossy.open()
  far.end()
  near.resume()
  await once(near, 'end')
  await lossy.far.disconnect(lossy.near.peerId, 'test')
  assert.ok((await closed(near)) instanceof FarportError)
})

test('destroying a stream ends the write that waits for room, and room that comes later does no harm', async () => {
  const { near, far } = await pair.open()
  const written = Promise.withResolvers<unknown>()
  near.write(randomBytes(MIB), written.resolve)
  await pair.fence()
  near.on('error', () => assert.fail('destroying it ourselves is no error'))
  near.destroy()
  assert.ok((await written.promise) instanceof Error)
  far.resume()
  await closed(near)
  assert.ok((await closed(far)) instanceof FarportError)
  await pair.fence()
})

test('six streams on one connection keep their bytes apart', async () => {
  const streams = await Promise.all(Array.from({ length: 6 }, () => pair.open()))
  const data = streams.map(() => randomBytes(MIB))
  for (const [i, { near }] of streams.entries()) near.end(data[i])
  const got = await Promise.all(streams.map(async ({ far }) => hash(await readAll(far))))
  assert.deepEqual(got.sort(), data.map(hash).sort())
  assert.equal(pair.near.paths().length, 1)
})

test('a write is not done while part of it is kept, however little room the peer makes at a time', async () => {
  const stream = new FullStream()
  const duplex = toDuplex(stream as unknown as Stream)
  let written = false
  duplex.write(randomBytes(1000), () => {
    written = true
  })
  for (let kept = 1000; kept > 0; kept -= 13) {
    assert.equal(written, false)
    assert.ok(stream.writeBufferLength <= 1000, `${stream.writeBufferLength} bytes are kept`)
    stream.makeRoom(13)
    await nextTurn()
  }
  await nextTurn()
  assert.equal(written, true)
  duplex.destroy()
  stream.makeRoom(13)
})

/** As much of a libp2p stream as writing needs, with a peer that grants room in crumbs. */
class FullStream extends EventTarget {
  readonly status = 'open'
  readonly readStatus = 'readable'
  readonly remoteWriteStatus = 'writable'
  readonly readBufferLength = 0
  writableNeedsDrain = true
  writeBufferLength = 0

  send(bytes: Uint8Array): boolean {
    this.writeBufferLength += bytes.length
    return false
  }

  makeRoom(bytes: number): void {
    queueMicrotask(() => {
      this.writeBufferLength = Math.max(0, this.writeBufferLength - bytes)
      this.writableNeedsDrain = this.writeBufferLength > 0
    })
    this.dispatchEvent(new Event('drain'))
  }

  abort(): void {}
}

/** In the sizes that sockets and programs come with, some of them odd. */
function* pieces(bytes: Buffer): Generator<Buffer> {
  const sizes = [1, 16_384, 65_536, 13, 40_001]
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const end = at + (sizes[i % sizes.length] as number)
    yield bytes.subarray(at, end)
    at = end
  }
}

async function take(stream: Readable, length: number): Promise<Buffer> {
  const taken: Buffer[] = []
  for (let left = length; left > 0; ) {
    const chunk: Buffer | null = stream.read(Math.min(left, stream.readableLength || 1))
    if (chunk === null) await once(stream, 'readable')
    else {
      taken.push(chunk)
      left -= chunk.length
    }
  }
  return Buffer.concat(taken)
}

function hash(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
