import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import type { Connection } from '@libp2p/interface'
import { FarportError } from '../../src/errors.ts'
import { toDuplex } from '../../src/overlay/duplex.ts'
import { pathOf } from '../../src/overlay/path.ts'
import { peerIdOf } from '../../src/trust/identity.ts'
import { deadline, until } from './nodes.ts'
import { SocketNode, socketPair } from './socket-nodes.ts'

const ECHO = '/echo/1'

const unreachable = (error: unknown) => {
  assert.ok(error instanceof FarportError, String(error))
  assert.equal(error.code, 'ERR_PEER_UNREACHABLE')
  return true
}

/** Who connects with TCP and who dials in libp2p's sense need not be the same. */
async function join(
  dialer: SocketNode,
  listener: SocketNode,
  [a, b]: [Socket, Socket],
): Promise<[Connection, Connection]> {
  return await Promise.all([
    dialer.upgrade(a, { peerId: listener.peerId, role: 'dialer' }),
    listener.upgrade(b, { peerId: dialer.peerId, role: 'listener' }),
  ])
}

async function assertEchoes(connection: Connection): Promise<void> {
  const stream = toDuplex(await connection.newStream(ECHO, { signal: deadline() }))
  const sent = randomBytes(200_000)
  stream.write(sent)
  const received: Buffer[] = []
  let length = 0
  for await (const chunk of stream) {
    received.push(chunk)
    length += chunk.length
    if (length >= sent.length) break
  }
  assert.ok(Buffer.concat(received).equals(sent))
}

for (const swapped of [false, true]) {
  test(`a socket becomes a connection with fixed roles${swapped ? ', also against who called whom' : ''}`, async () => {
    await using near = await SocketNode.start()
    await using far = await SocketNode.start()
    await near.echo(ECHO)
    await far.echo(ECHO)
    const [a, b] = await socketPair()
    const [dialed, accepted] = await join(near, far, swapped ? [b, a] : [a, b])

    const path = pathOf(dialed)
    assert.equal(path.peerId, far.peerId)
    assert.equal(path.kind, 'direct')
    assert.equal(path.direction, 'outbound')
    assert.match(path.remoteAddress, /^\/ip4\/127\.0\.0\.1\/tcp\/\d+$/)
    assert.equal(path.encryption, '/noise')
    assert.equal(path.muxer, '/yamux/1.0.0')
    assert.equal(pathOf(accepted).peerId, near.peerId)
    assert.equal(pathOf(accepted).direction, 'inbound')
    // Both know of it as of any other, and either may open streams.
    assert.deepEqual(near.libp2p.getConnections(), [dialed])
    assert.deepEqual(far.libp2p.getConnections(), [accepted])
    await Promise.all([assertEchoes(dialed), assertEchoes(accepted)])
  })
}

test('another key at the other end is refused, in either role', async () => {
  for (const role of ['dialer', 'listener'] as const) {
    await using near = await SocketNode.start()
    await using far = await SocketNode.start()
    const [a, b] = await socketPair()
    const other = role === 'dialer' ? 'listener' : 'dialer'
    const refused = near.upgrade(a, { peerId: peerIdOf(randomBytes(32)), role })
    // What the other end sees depends on how far it was.
    const there = far.upgrade(b, { peerId: near.peerId, role: other }).catch(() => undefined)
    await assert.rejects(refused, unreachable)
    await there
    assert.deepEqual(near.libp2p.getConnections(), [])
    await until(() => a.destroyed && b.destroyed && far.libp2p.getConnections().length === 0)
  }
})

test('a peer that is not admitted is refused by whichever side does not admit it', async () => {
  for (const role of ['dialer', 'listener'] as const) {
    await using near = await SocketNode.start({ admits: () => false })
    await using far = await SocketNode.start()
    const [a, b] = await socketPair()
    const other = role === 'dialer' ? 'listener' : 'dialer'
    const there = far.upgrade(b, { peerId: near.peerId, role: other }).catch(() => undefined)
    await assert.rejects(near.upgrade(a, { peerId: far.peerId, role }), unreachable)
    await there
    assert.deepEqual(near.libp2p.getConnections(), [])
    await until(() => b.destroyed && far.libp2p.getConnections().length === 0)
  }
})

test('what answers with anything else, or ends, is no peer; the socket is closed', async () => {
  await using near = await SocketNode.start()
  for (const act of [(s: Socket) => s.end('HTTP/1.1 400 Bad Request\r\n\r\n'), (s: Socket) => s.end()]) {
    const [a, b] = await socketPair()
    b.on('error', () => {}).resume()
    act(b)
    await assert.rejects(near.upgrade(a, { peerId: peerIdOf(randomBytes(32)), role: 'dialer' }), unreachable)
    assert.ok(a.destroyed)
  }
})

test('a silent peer is given up with the signal; after that the signal does nothing', async () => {
  await using near = await SocketNode.start()
  await using far = await SocketNode.start()
  const [a, b] = await socketPair()
  b.on('error', () => {})
  const giveUp = new AbortController()
  const reason = new Error('enough')
  const refused = near.upgrade(a, { peerId: far.peerId, role: 'dialer', signal: giveUp.signal })
  giveUp.abort(reason)
  await assert.rejects(refused, (error) => error === reason)
  assert.ok(a.destroyed)

  await near.echo(ECHO)
  const [c, d] = await socketPair()
  const late = new AbortController()
  const [, connection] = await Promise.all([
    near.upgrade(c, { peerId: far.peerId, role: 'dialer', signal: late.signal }),
    far.upgrade(d, { peerId: near.peerId, role: 'listener' }),
  ])
  late.abort()
  await assertEchoes(connection)
})

test('closing is seen at the other end, as is the loss of the socket', async () => {
  await using near = await SocketNode.start()
  await using far = await SocketNode.start()
  const [dialed, accepted] = await join(near, far, await socketPair())
  const seen = once(accepted as never, 'close', { signal: deadline() })
  await dialed.close()
  await seen
  assert.notEqual(accepted.status, 'open')

  const [a, b] = await socketPair()
  const [kept, lost] = await join(near, far, [a, b])
  b.destroy()
  await until(() => kept.status !== 'open' && lost.status !== 'open')
  assert.ok(a.destroyed)
})

test('what one write of a stream becomes leaves in one system call', async () => {
  await using near = await SocketNode.start()
  await using far = await SocketNode.start()
  await far.echo(ECHO)
  const [a, b] = await socketPair()
  const [dialed] = await join(near, far, [a, b])
  const stream = toDuplex(await dialed.newStream(ECHO, { signal: deadline() }))
  stream.write('first')
  await once(stream, 'data', { signal: deadline() })

  const writes = writesOf(a)
  stream.write('x')
  await once(stream, 'data', { signal: deadline() })
  // Noise's length and tag, yamux's header, one byte. Further calls are of the answer's window update.
  assert.equal(writes[0], 2 + 16 + 12 + 1)
})

/** How many bytes each system call takes from now on. */
function writesOf(socket: Socket): number[] {
  const sizes: number[] = []
  const generic = socket as unknown as Record<'_write' | '_writev', (...args: unknown[]) => void>
  for (const name of ['_write', '_writev'] as const) {
    const original = generic[name].bind(socket)
    generic[name] = (chunks, ...rest) => {
      const parts =
        name === '_write' ? [chunks as Buffer] : (chunks as { chunk: Buffer }[]).map((c) => c.chunk)
      sizes.push(parts.reduce((sum, part) => sum + part.length, 0))
      original(chunks, ...rest)
    }
  }
  return sizes
}

test('bulk in both directions at once arrives as it was sent, with the sender held back', async () => {
  await using near = await SocketNode.start()
  await using far = await SocketNode.start()
  const [a, b] = await socketPair()
  const [dialed] = await join(near, far, [a, b])
  const inbound = Promise.withResolvers<ReturnType<typeof toDuplex>>()
  await far.libp2p.handle('/bulk/1', (stream) => inbound.resolve(toDuplex(stream)))
  const out = toDuplex(await dialed.newStream('/bulk/1', { signal: deadline() }))
  out.write('go')
  const into = await inbound.promise
  await once(into, 'readable', { signal: deadline() })

  // Nobody reads beyond the first chunk: what is sent stays in bounds all along.
  const chunk = randomBytes(64 * 1024)
  let sent = 0
  while (out.write(chunk) && sent++ < 1000);
  await until(() => out.writableNeedDrain)
  assert.ok(sent < 100, `${sent} chunks went out`)
  assert.ok(a.writableLength < 2 * 1024 * 1024)
})
