import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { mock, test } from 'node:test'
import { yamux } from '@chainsafe/libp2p-yamux'
import type { MessageStream } from '@libp2p/interface'
import { FarportError } from '../../src/errors.ts'
import type { Overlay } from '../../src/overlay/node.ts'
import { peerIdOf } from '../../src/trust/identity.ts'
import { addressOf, freePort, Network, SilentServer } from './network.ts'
import { closed, deadline, startNode, until } from './nodes.ts'

const ECHO = '/echo/1'

async function startEcho(options: Parameters<typeof startNode>[0] = {}): Promise<Overlay> {
  const node = await startNode(options)
  await node.handle(ECHO, (stream) => void stream.pipe(stream))
  return node
}

async function openEcho(from: Overlay, to: Overlay, addresses = to.addresses()): Promise<Duplex> {
  const { stream } = await from.open(to.peerId, ECHO, { addresses, signal: deadline() })
  return stream
}

async function assertEchoes(stream: Duplex): Promise<void> {
  stream.write('hello')
  const [answer] = await once(stream, 'data', { signal: deadline() })
  assert.equal(String(answer), 'hello')
}

/** The address without the PeerID, as people put it into trusted_peers. */
function bare(node: Overlay): string {
  return (node.addresses()[0] as string).replace(/\/p2p\/.*/, '')
}

const fails =
  (code: string, ...parts: (string | RegExp)[]) =>
  (error: unknown) => {
    assert.ok(error instanceof FarportError, String(error))
    assert.equal(error.code, code)
    for (const part of parts) assert.match(error.message, new RegExp(part))
    return true
  }

test('a node is known by the PeerID of its seed and tells where it listens', async () => {
  const seed = randomBytes(32)
  await using node = await startNode({ seed, announce: ['/dns4/farport.example/tcp/4001'] })
  assert.equal(node.peerId, peerIdOf(seed))
  assert.equal(node.addresses()[0], `/dns4/farport.example/tcp/4001/p2p/${node.peerId}`)
  assert.match(
    node.addresses()[1] as string,
    new RegExp(`^/ip4/127.0.0.1/tcp/[1-9][0-9]*/p2p/${node.peerId}$`),
  )
})

test('a path says how the peer is connected, at both ends; both are told when it comes and goes', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  const atFar = once(far, 'connect', { signal: deadline() })
  const stream = await openEcho(near, far, [bare(far)])
  const [path] = near.paths(far.peerId)
  assert.ok(path)
  assert.equal(path.peerId, far.peerId)
  assert.equal(path.remoteAddress, bare(far))
  assert.equal(path.kind, 'direct')
  assert.equal(path.direction, 'outbound')
  assert.equal(path.encryption, '/noise')
  assert.equal(path.muxer, '/yamux/1.0.0')
  assert.ok(Math.abs(path.openedAt - Date.now()) < 10_000)

  const [seen] = await atFar
  assert.equal(seen.peerId, near.peerId)
  assert.equal(seen.direction, 'inbound')
  assert.deepEqual(far.paths(near.peerId), [seen])

  const goes = [near, far].map((node) => once(node, 'disconnect', { signal: deadline() }))
  await far.disconnect(near.peerId, 'test')
  assert.deepEqual(
    (await Promise.all(goes)).map(([gone]) => gone),
    [path, seen],
  )
  assert.deepEqual([near.paths(), far.paths()], [[], []])
  assert.ok(await closed(stream))
})

test('what serves a stream is told which peer it is from', async () => {
  await using far = await startNode()
  await using near = await startNode({ listen: [] })
  const from = Promise.withResolvers<string>()
  await far.handle('/who/1', (_stream, path) => from.resolve(path.peerId))
  await near.open(far.peerId, '/who/1', { addresses: far.addresses(), signal: deadline() })
  assert.equal(await from.promise, near.peerId)
})

test('streams opened at the same time share one dial and one connection, also with later ones', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  let accepted = 0
  far.on('connect', () => accepted++)
  const streams = await Promise.all(Array.from({ length: 8 }, () => openEcho(near, far)))
  streams.push(await openEcho(near, far))
  await Promise.all(streams.map(assertEchoes))
  assert.equal(accepted, 1)
  assert.equal(near.paths().length, 1)
})

test('the peer that was dialed can open streams on the same connection', async () => {
  await using far = await startEcho()
  await using near = await startEcho({ listen: [] })
  await openEcho(near, far)
  await assertEchoes(await openEcho(far, near, []))
  assert.equal(far.paths().length, 1)
})

test('many streams can be open at a time', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  const streams = await Promise.all(Array.from({ length: 200 }, () => openEcho(near, far)))
  await Promise.all(streams.map(assertEchoes))
})

test('a peer that is not admitted gets no muxer, and learns that it is not known', async () => {
  const created: string[] = []
  const factory = Object.getPrototypeOf(yamux()())
  const original = factory.createStreamMuxer
  const spy = mock.method(factory, 'createStreamMuxer', function (this: unknown, connection: MessageStream) {
    created.push(connection.direction)
    return original.call(this, connection)
  })
  try {
    await using far = await startEcho({ admits: () => false })
    await using near = await startNode({ listen: [] })
    let connected = 0
    far.on('connect', () => connected++)
    await assert.rejects(
      openEcho(near, far),
      fails('ERR_NOT_TRUSTED', far.peerId, 'does not know', near.peerId),
    )
    assert.ok(created.includes('outbound'), 'the stranger got as far as its own muxer')
    assert.ok(!created.includes('inbound'), 'a stranger got a muxer')
    assert.equal(connected, 0)
    assert.deepEqual(far.paths(), [])

    // The same place sees a peer that is admitted.
    await using open = await startEcho()
    await openEcho(near, open)
    assert.ok(created.includes('inbound'))
  } finally {
    spy.mock.restore()
  }
})

test('opens that run at the same time are all told that the peer does not know us', async () => {
  await using far = await startEcho({ admits: () => false })
  await using near = await startNode({ listen: [] })
  const results = await Promise.allSettled([1, 2, 3, 4].map(() => openEcho(near, far)))
  for (const result of results) {
    assert.equal(result.status, 'rejected')
    fails('ERR_NOT_TRUSTED', 'does not know')(result.reason)
  }
})

test('a peer that is admitted later gets in', async () => {
  let known = false
  await using far = await startEcho({ admits: () => known })
  await using near = await startNode({ listen: [] })
  await assert.rejects(openEcho(near, far), fails('ERR_NOT_TRUSTED'))
  known = true
  await assertEchoes(await openEcho(near, far))
})

test('a peer that is just closing is gone, not distrustful', async () => {
  const far: Overlay = await startEcho({
    admits: () => {
      void far[Symbol.asyncDispose]()
      return false
    },
  })
  await using near = await startNode({ listen: [] })
  await assert.rejects(openEcho(near, far), fails('ERR_PEER_UNREACHABLE', 'connection refused'))
})

test('a peer we do not know ourselves is not dialed', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [], admits: () => false })
  let knocks = 0
  far.on('connect', () => knocks++)
  await assert.rejects(openEcho(near, far), fails('ERR_NOT_TRUSTED', 'trusted_peers'))
  assert.equal(knocks, 0)
})

test('a peer that stops being admitted during the handshake is cut off', async () => {
  const answers = [true, false]
  await using far = await startEcho({ admits: () => answers.shift() ?? false })
  await using near = await startNode({ listen: [] })
  await assert.rejects(openEcho(near, far), fails('ERR_NOT_TRUSTED'))
  assert.deepEqual(far.paths(), [])
})

test('disconnect cuts every stream of the peer and leaves other peers alone', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  await using other = await startNode({ listen: [] })
  const cut = await Promise.all([openEcho(near, far), openEcho(near, far)])
  const kept = await openEcho(other, far)
  await far.disconnect(near.peerId, 'revoked')
  for (const stream of cut) assert.ok(await closed(stream))
  await assertEchoes(kept)
})

test('a protocol the peer does not speak is told apart from an unreachable peer', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  const open = () => near.open(far.peerId, '/nothing/1', { addresses: far.addresses(), signal: deadline() })
  await assert.rejects(open(), fails('ERR_PROTOCOL', '/nothing/1'))
  await assert.rejects(open(), fails('ERR_PROTOCOL', '/nothing/1'))
  await assertEchoes(await openEcho(near, far))
})

test('every address that was tried is named with what happened there, in words', async () => {
  await using other = await startEcho()
  await using near = await startNode({ listen: [] })
  const stranger = peerIdOf(randomBytes(32))
  const silentFriend = await freePort()
  const addresses = [
    `/ip4/127.0.0.1/tcp/${silentFriend}`,
    bare(other),
    `${bare(other)}/p2p/${other.peerId}`,
    '/ip4/127.0.0.1/udp/4001',
    'somewhere',
  ]
  await assert.rejects(
    near.open(stranger, ECHO, { addresses, signal: deadline() }),
    fails(
      'ERR_PEER_UNREACHABLE',
      `tcp/${silentFriend}: connection refused`,
      `${bare(other)}: another key answers there`,
      `${other.peerId}: it is the address of another peer`,
      'udp/4001: not an address of a kind we can dial',
      'somewhere: ',
    ),
  )
  await assert.rejects(
    near.open(stranger, ECHO, { addresses: [], signal: deadline() }),
    fails('ERR_PEER_UNREACHABLE', 'no address'),
  )
})

test('one good address among bad ones is enough', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  await using silent = await SilentServer.start()
  const addresses = [`/ip4/127.0.0.1/tcp/${await freePort()}`, silent.address, bare(far)]
  await assertEchoes(await openEcho(near, far, addresses))
  assert.equal(near.paths().length, 1)
  await until(() => silent.sockets.every((socket) => socket.destroyed))
})

test('a service that is no farport is told apart', async () => {
  await using near = await startNode({ listen: [] })
  const server = createServer((socket) => socket.end('SSH-2.0-OpenSSH_9.9\r\n'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    await assert.rejects(
      near.open(peerIdOf(randomBytes(32)), ECHO, { addresses: [addressOf(server)], signal: deadline() }),
      fails('ERR_PEER_UNREACHABLE', 'did not finish the handshake'),
    )
  } finally {
    server.close()
  }
})

test('opening ends when the caller gives up, with its reason, and nothing is left behind', async () => {
  await using near = await startNode({ listen: [] })
  await using silent = await SilentServer.start()
  const stop = new AbortController()
  const reason = new Error('enough')
  const options = { addresses: [silent.address], signal: stop.signal }
  const opening = near.open(peerIdOf(randomBytes(32)), ECHO, options)
  await until(() => silent.sockets.length === 1)
  stop.abort(reason)
  await assert.rejects(opening, reason)
  await assert.rejects(near.open(near.peerId, ECHO, options), reason)
  await until(() => silent.sockets.every((socket) => socket.destroyed))
})

test('one caller that gives up does not end the dial of another', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  const stop = new AbortController()
  const addresses = far.addresses()
  const first = near.open(far.peerId, ECHO, { addresses, signal: stop.signal })
  const second = openEcho(near, far)
  stop.abort()
  await assert.rejects(first, { name: 'AbortError' })
  await assertEchoes(await second)
})

test('a connection outlives the signal of the call that dialed it', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  const stop = new AbortController()
  const { stream } = await near.open(far.peerId, ECHO, { addresses: far.addresses(), signal: stop.signal })
  stop.abort()
  await assertEchoes(stream)
  await assertEchoes(await openEcho(near, far))
  assert.equal(near.paths().length, 1)
})

test('a peer that restarts on the same port is reached again', async () => {
  const seed = randomBytes(32)
  await using near = await startNode({ listen: [] })
  const first = await startEcho({ seed })
  const address = bare(first)
  const stream = await openEcho(near, first, [address])
  await first[Symbol.asyncDispose]()
  assert.ok(await closed(stream))
  await assert.rejects(openEcho(near, first, [address]), fails('ERR_PEER_UNREACHABLE', 'connection refused'))

  await using second = await startEcho({ seed, listen: [address] })
  await assertEchoes(await openEcho(near, second, [address]))
})

test('a connection that has died without a word is replaced within seconds', async () => {
  await using far = await startEcho()
  await using near = await startNode({ listen: [] })
  await using network = await Network.start(bare(far))
  await assertEchoes(await openEcho(near, far, [network.address]))
  network.freeze()
  const started = performance.now()
  await assertEchoes(await openEcho(near, far, [network.address]))
  assert.ok(performance.now() - started < 4_000)
  assert.equal(near.paths().length, 2, 'the old one may be just slow, and is asked first')
  await assertEchoes(await openEcho(near, far, [network.address]))
})

test('a connection on which nothing arrives any more is ended, one that is merely idle is not', async () => {
  mock.timers.enable({ apis: ['setInterval'] })
  try {
    await using far = await startEcho()
    await using near = await startNode({ listen: [] })
    await using network = await Network.start(bare(far))
    const stream = await openEcho(near, far, [network.address])
    mock.timers.tick(11_000)
    await assertEchoes(stream)
    mock.timers.tick(11_000)
    await assertEchoes(stream)

    network.freeze()
    mock.timers.tick(12_000)
    assert.deepEqual([near.paths().length, far.paths().length], [1, 1])
    mock.timers.tick(2_000)
    assert.deepEqual([near.paths().length, far.paths().length], [0, 0])
    assert.ok(await closed(stream))
  } finally {
    mock.timers.reset()
  }
})

test('a listen address that is taken, or is none, is said in words', async () => {
  await using node = await startNode()
  await assert.rejects(startNode({ listen: [bare(node)] }), fails('ERR_IN_USE', bare(node), 'in use'))
  for (const address of [
    '4001',
    '/ip4/127.0.0.1',
    '/ip4/300.0.0.1/tcp/1',
    '/ip4/127.0.0.1/udp/1',
    '/ip4/127.0.0.1/tcp/99999',
  ])
    await assert.rejects(startNode({ listen: [address] }), fails('ERR_USAGE', address, 'is not an address'))
  await assert.rejects(
    startNode({ listen: ['/ip4/192.0.2.1/tcp/0'] }),
    fails('ERR_USAGE', 'not one of this machine'),
  )
})

test('a node that is closed ends its streams and opens no others', async () => {
  await using far = await startEcho()
  const near = await startNode({ listen: [] })
  await using silent = await SilentServer.start()
  const stream = await openEcho(near, far)
  const opening = near.open(peerIdOf(randomBytes(32)), ECHO, {
    addresses: [silent.address],
    signal: deadline(),
  })
  const refused = assert.rejects(opening, fails('ERR_PEER_UNREACHABLE', 'closing'))
  await near[Symbol.asyncDispose]()
  await refused
  assert.ok(stream.destroyed)
  await assert.rejects(openEcho(near, far), fails('ERR_PEER_UNREACHABLE', 'closing'))
  await until(() => far.paths().length === 0)
})

test('after both nodes are closed the process ends by itself', async () => {
  const script = `
    import { startNode } from ${JSON.stringify(new URL('nodes.ts', import.meta.url).href)}
    const far = await startNode()
    const near = await startNode({ listen: [] })
    await far.handle('/x/1', (stream) => stream.resume())
    const { stream } = await near.open(far.peerId, '/x/1', { addresses: far.addresses(), signal: AbortSignal.timeout(60_000) })
    stream.write('x')
    await near[Symbol.asyncDispose]()
    await far[Symbol.asyncDispose]()
    process.send('closed')
  `
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  await once(child, 'message', { signal: deadline(20_000) })
  child.disconnect()
  const [code] = await once(child, 'exit', { signal: deadline(2_000) })
  assert.equal(code, 0)
})
