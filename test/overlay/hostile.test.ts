import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import type { MessageStream } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import type { Overlay } from '../../src/overlay/node.ts'
import { DATA, frame, GO_AWAY, PING, SYN, WINDOW_UPDATE } from './frames.ts'
import { deadline, startNode, until } from './nodes.ts'

/** A peer that is trusted and writes what it likes beneath its muxer. */
class Attacker implements AsyncDisposable {
  readonly connection: MessageStream
  readonly #node: AsyncDisposable

  private constructor(connection: MessageStream, node: AsyncDisposable) {
    this.connection = connection
    this.#node = node
  }

  static async connect(victim: Overlay): Promise<Attacker> {
    const secured = Promise.withResolvers<MessageStream>()
    const node = await createLibp2p({
      transports: [tcp()],
      connectionEncrypters: [noise()],
      connectionMonitor: { enabled: false },
      streamMuxers: [
        () => {
          const factory = yamux({ enableKeepAlive: false })()
          return {
            protocol: factory.protocol,
            createStreamMuxer(connection) {
              secured.resolve(connection)
              // Its own muxer must not spoil the attack by what it makes of the answers.
              connection.addEventListener('message', (event) => event.stopImmediatePropagation())
              return factory.createStreamMuxer(connection)
            },
          }
        },
      ],
    })
    await node.dial(victim.addresses().map((address) => multiaddr(address)))
    return new Attacker(await secured.promise, { [Symbol.asyncDispose]: async () => await node.stop() })
  }

  /** Sends as fast as it goes, and answers with how many bytes went out before the victim closed. */
  async flood(chunk: Uint8Array, bytes: number): Promise<number> {
    let sent = 0
    while (sent < bytes && this.connection.status === 'open') {
      if (!this.connection.send(chunk))
        await until(() => this.connection.status !== 'open' || !this.connection.writableNeedsDrain)
      sent += chunk.length
      await nextTurn()
    }
    return sent
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#node[Symbol.asyncDispose]()
  }
}

async function attacked(): Promise<
  { victim: Overlay; attacker: Attacker; cut: Promise<unknown> } & AsyncDisposable
> {
  const stack = new AsyncDisposableStack()
  const victim = stack.use(await startNode())
  const connected = once(victim, 'connect', { signal: deadline() })
  const attacker = stack.use(await Attacker.connect(victim))
  await connected
  const cut = once(victim, 'disconnect', { signal: deadline() })
  return { victim, attacker, cut, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

test('a trusted peer that announces a frame of 4 GiB is cut off at the announcement', async () => {
  await using scene = await attacked()
  scene.attacker.connection.send(frame({ type: DATA, flags: SYN, stream: 1, length: 0xffff_ffff }))
  await scene.cut
  assert.deepEqual(scene.victim.paths(), [])
})

test('what follows the announcement is not kept: 64 MiB cost less than 20 MB', async () => {
  await using scene = await attacked()
  const { attacker, victim, cut } = scene
  const before = process.memoryUsage()
  attacker.connection.send(frame({ type: DATA, flags: SYN, stream: 1, length: 0xffff_ffff }))
  const sent = await attacker.flood(randomBytes(64 * 1024), 64 * 1024 * 1024)
  await cut
  const after = process.memoryUsage()
  assert.ok(sent < 20e6, `${sent} bytes went out before the connection ended`)
  assert.ok(after.arrayBuffers - before.arrayBuffers < 20e6)
  assert.ok(after.rss - before.rss < 20e6, `rss grew by ${after.rss - before.rss}`)
  assert.deepEqual(victim.paths(), [])
})

for (const [name, one] of [
  ['new streams', frame({ type: WINDOW_UPDATE, flags: SYN, stream: 1, length: 0 })],
  ['pings', frame({ type: PING, flags: SYN, stream: 0, length: 7 })],
] as const) {
  test(`a trusted peer that floods us with ${name} is cut off`, async () => {
    await using scene = await attacked()
    await scene.attacker.flood(Buffer.concat(Array(100).fill(one)), 1e6)
    await scene.cut
  })
}

test('a peer that closes the muxer but not the connection is disconnected', async () => {
  await using scene = await attacked()
  scene.attacker.connection.send(frame({ type: GO_AWAY, stream: 0, length: 0 }))
  await scene.cut
  assert.deepEqual(scene.victim.paths(), [])
})

test('others do not notice', async () => {
  await using scene = await attacked()
  await using friend = await startNode({ listen: [] })
  await scene.victim.handle('/echo/1', (stream) => void stream.pipe(stream))
  const { stream } = await friend.open(scene.victim.peerId, '/echo/1', {
    addresses: scene.victim.addresses(),
    signal: deadline(),
  })
  scene.attacker.connection.send(frame({ type: DATA, flags: SYN, stream: 1, length: 0xffff_ffff }))
  await scene.cut
  stream.write('still here')
  const [echo] = await once(stream, 'data', { signal: deadline() })
  assert.equal(String(echo), 'still here')
})
