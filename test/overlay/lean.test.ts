import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { ConnectionEncrypter, MessageStream, MultiaddrConnection, Stream } from '@libp2p/interface'
import { multiaddrConnectionPair } from '@libp2p/utils'
import fc from 'fast-check'
import { createLog } from '../../src/log.ts'
import { leanNoise } from '../../src/overlay/lean-noise.ts'
import { libp2pLog } from '../../src/overlay/libp2p-log.ts'
import { boundedYamux } from '../../src/overlay/yamux.ts'
import { until } from '../support/until.ts'
import { DATA, frame, SYN, WINDOW_UPDATE } from './frames.ts'

const logger = libp2pLog(createLog('silent'))

/** Two ends of a connection, for as long as the test takes; bytes arrive in pieces of the lengths given, over and over. */
function pair(t: TestContext, cuts: readonly number[] = []): [MultiaddrConnection, MultiaddrConnection] {
  const ends = multiaddrConnectionPair()
  t.after(() => {
    for (const end of ends) end.abort(new Error('the test is over'))
  })
  for (const end of cuts.length === 0 ? [] : ends) {
    const inside = end as unknown as { onData(data: { subarray(): Uint8Array }): void }
    const onData = inside.onData.bind(end)
    let next = 0
    inside.onData = (data) => {
      // A copy: what arrives is decrypted in place, and the other end's test still compares what it sent.
      for (let left = Uint8Array.from(data.subarray()); left.length > 0; next++) {
        const cut = cuts[next % cuts.length] ?? 1
        onData(left.subarray(0, cut))
        left = left.subarray(cut)
      }
    }
  }
  return ends
}

/** What comes on a stream; resolves once that many bytes are there, rejects when it closes first. */
async function received(stream: MessageStream, bytes: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  let all = Buffer.alloc(0)
  stream.addEventListener('message', ({ data }) => {
    all = Buffer.concat([all, data.subarray()])
    if (all.length >= bytes) resolve(all)
  })
  stream.addEventListener('close', ({ error }) => reject(error ?? new Error('closed')))
  if (bytes === 0) resolve(all)
  return await promise
}

/** As much at a time as there is room for. */
function sendAll(stream: Stream, bytes: Uint8Array): void {
  let at = 0
  const send = () => {
    for (; at < bytes.length && !stream.writableNeedsDrain && stream.writeBufferLength === 0; at += 16 * 1024)
      stream.send(Uint8Array.from(bytes.subarray(at, at + 16 * 1024)))
  }
  stream.addEventListener('drain', () => queueMicrotask(send))
  send()
}

async function encrypters(kinds: readonly [boolean, boolean]): Promise<ConnectionEncrypter[]> {
  return await Promise.all(
    kinds.map(async (lean) => {
      const privateKey = await generateKeyPair('Ed25519')
      const components = { privateKey, logger, upgrader: { getStreamMuxers: () => new Map() } } as never
      return (lean ? leanNoise() : noise())(components) as ConnectionEncrypter
    }),
  )
}

async function secure(
  kinds: readonly [boolean, boolean],
  [near, far]: readonly [MultiaddrConnection, MultiaddrConnection],
): Promise<[MessageStream, MessageStream]> {
  const [ours, theirs] = await encrypters(kinds)
  const both = await Promise.all([ours?.secureOutbound(near), theirs?.secureInbound(far)])
  return both.map((end) => end?.connection) as [MessageStream, MessageStream]
}

const kinds = fc.constantFrom<[boolean, boolean][]>([true, true], [true, false], [false, true])
const cuts = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 5 })
const lengths = fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 70_000 })), {
  maxLength: 6,
})

test('lean Noise and the package’s understand each other, wherever the bytes are cut', async (t) => {
  await fc.assert(
    fc.asyncProperty(kinds, cuts, lengths, lengths, async (which, pieces, there, back) => {
      const ends = await secure(which, pair(t, pieces))
      const sent = [there, back].map((sizes) => sizes.map((size) => randomBytes(size)))
      const arriving = [
        received(ends[1], Buffer.concat(sent[0] ?? []).length),
        received(ends[0], Buffer.concat(sent[1] ?? []).length),
      ]
      for (const [side, messages] of sent.entries())
        for (const message of messages) ends[side]?.send(Uint8Array.from(message))
      for (const [side, bytes] of (await Promise.all(arriving)).entries())
        assert.ok(bytes.equals(Buffer.concat(sent[side] ?? [])))
    }),
    { numRuns: 30 },
  )
})

test('a message that was changed on its way, is too short, or comes twice ends the connection', async (t) => {
  for (const harm of [
    (message: Uint8Array) => [message.with(message.length - 1, (message.at(-1) ?? 0) ^ 1)],
    () => [Buffer.from([0, 5, 1, 2, 3, 4, 5])],
    (message: Uint8Array) => [message.slice(), message.slice()],
  ]) {
    const connections = pair(t)
    const [near, far] = await secure([true, true], connections)
    const raw = connections[0] as unknown as { sendData(data: { subarray(): Uint8Array }): unknown }
    const sendData = raw.sendData.bind(raw)
    let harmed = false
    raw.sendData = (data) => {
      if (harmed) return sendData(data)
      harmed = true
      let answer: unknown
      for (const bytes of harm(Uint8Array.from(data.subarray()))) answer = sendData(bytes)
      return answer
    }
    const lost = received(far, 1_000)
    near.send(Buffer.from('a secret'))
    await assert.rejects(lost)
    assert.equal(far.status, 'aborted')
  }
})

function muxers(
  which: readonly [boolean, boolean],
  ends: readonly [MultiaddrConnection, MultiaddrConnection],
) {
  return which.map((lean, side) => {
    const factory = lean ? boundedYamux()() : yamux({ streamOptions: { maxStreamWindowSize: 256 * 1024 } })()
    return factory.createStreamMuxer(ends[side] as MultiaddrConnection)
  })
}

async function openStream(
  which: readonly [boolean, boolean],
  ends: readonly [MultiaddrConnection, MultiaddrConnection],
): Promise<[Stream, Stream]> {
  const [near, far] = muxers(which, ends)
  const inbound = new Promise<Stream>((resolve) =>
    far?.addEventListener('stream', (event: CustomEvent<Stream>) => resolve(event.detail)),
  )
  const outbound = await near?.createStream()
  return [outbound as Stream, await inbound]
}

test('lean yamux and the package’s understand each other, wherever the bytes are cut', async (t) => {
  await fc.assert(
    fc.asyncProperty(kinds, cuts, lengths, lengths, async (which, pieces, there, back) => {
      const ends = await openStream(which, pair(t, pieces))
      const sent = [there, back].map((sizes) => sizes.map((size) => randomBytes(size)))
      const arriving = [
        received(ends[1], Buffer.concat(sent[0] ?? []).length),
        received(ends[0], Buffer.concat(sent[1] ?? []).length),
      ]
      for (const [side, messages] of sent.entries())
        for (const message of messages) ends[side]?.send(Uint8Array.from(message))
      for (const [side, bytes] of (await Promise.all(arriving)).entries())
        assert.ok(bytes.equals(Buffer.concat(sent[side] ?? [])))
    }),
    { numRuns: 30 },
  )
})

test('many windows go through, and a keystroke is not answered with a window update', async (t) => {
  const connections = pair(t)
  const types: number[] = []
  connections[0].addEventListener('message', ({ data }) => {
    types.push(data.subarray()[1] ?? 0)
  })
  const [near, far] = await openStream([true, true], connections)
  const keys = received(far, 100)
  for (let i = 0; i < 100; i++) near.send(Uint8Array.of(i))
  await keys
  // The one that accepts the stream.
  assert.equal(types.filter((type) => type === WINDOW_UPDATE).length, 1)

  const bytes = randomBytes(1024 * 1024)
  const bulk = received(far, bytes.length)
  sendAll(near, bytes)
  assert.ok((await bulk).equals(bytes))
  const updates = types.filter((type) => type === WINDOW_UPDATE).length
  assert.ok(updates >= 5 && updates <= 9, `${updates} window updates for eight half windows`)
})

test('a reader that pauses stops the sender at one window', async (t) => {
  for (const which of [
    [true, true],
    [true, false],
  ] as const) {
    const [near, far] = await openStream(which, pair(t))
    far.addEventListener('message', () => {})
    far.pause()
    sendAll(near, new Uint8Array(400_000))
    // More than that would end the connection.
    await until('a whole window arrived', () => far.readBufferLength === 256 * 1024)
    assert.equal(far.status, 'open')
  }
})

test('a frame of another version ends the connection', async (t) => {
  const [near, far] = pair(t)
  muxers([true, true], [near, far])
  const ended = received(far, 1_000)
  const bad = frame({ type: DATA, flags: SYN, stream: 1, length: 1, data: Buffer.from('x') })
  bad[0] = 1
  near.send(bad)
  await assert.rejects(ended)
})
