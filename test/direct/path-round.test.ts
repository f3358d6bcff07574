import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type Duplex, duplexPair } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { encodePathMessage, PathDecoder, type PathMessage } from '../../src/direct/path-message.ts'
import { answerRound, askForRound, type PathMeans } from '../../src/direct/path-round.ts'
import { PathStream } from '../../src/direct/path-stream.ts'
import { FarportError } from '../../src/errors.ts'
import { deadline, until } from '../overlay/nodes.ts'
import { SocketNode } from '../overlay/socket-nodes.ts'
import { StunServers } from '../overlay/stun-servers.ts'

const nowhere = new FarportError('ERR_PEER_UNREACHABLE', 'nobody there')

/** Can't do anything, unless told otherwise. */
function means(some: Partial<PathMeans> = {}): PathMeans {
  return {
    addresses: () => [],
    stun: () => [],
    dialDirect: async () => {
      throw nowhere
    },
    adopt: async () => {
      throw nowhere
    },
    mayDial: () => true,
    ...some,
  }
}

interface Ends {
  near: PathStream
  far: PathStream
  nearStream: Duplex
  farStream: Duplex
}

function ends(): Ends {
  const [nearStream, farStream] = duplexPair()
  for (const stream of [nearStream, farStream]) stream.on('error', () => {})
  return { near: new PathStream(nearStream), far: new PathStream(farStream), nearStream, farStream }
}

const failsWith = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof FarportError, String(error))
  assert.equal(error.code, code)
  assert.match(error.message, text)
  return true
}

const fails = failsWith('ERR_PEER_UNREACHABLE', /./)

test('both tell where they can be dialed, and the asker dials first', async () => {
  const { near, far } = ends()
  const dialed: string[][] = []
  const answering = answerRound(
    far,
    means({ addresses: () => ['/ip4/192.0.2.2/tcp/2'], dialDirect: async (to) => void dialed.push([...to]) }),
    deadline(),
  )
  const way = await askForRound(
    near,
    means({ addresses: () => ['/ip4/192.0.2.1/tcp/1'], dialDirect: async (to) => void dialed.push([...to]) }),
    deadline(),
  )
  near[Symbol.dispose]()
  assert.equal(way, 'dialed')
  // The other side does not dial any more, since the round has ended.
  await assert.rejects(answering)
  assert.deepEqual(dialed, [['/ip4/192.0.2.2/tcp/2']])
})

test('when the asker can not dial, the other side does', async () => {
  const { near, far } = ends()
  const dialed = Promise.withResolvers<readonly string[]>()
  const answering = answerRound(far, means({ dialDirect: async (to) => dialed.resolve(to) }), deadline())
  // That it worked shows as a connection, of which the round does not know.
  const asking = askForRound(near, means({ addresses: () => ['/ip4/192.0.2.1/tcp/1'] }), deadline())
  await assert.rejects(asking, failsWith('ERR_PEER_UNREACHABLE', /no STUN server/))
  assert.deepEqual(await dialed.promise, ['/ip4/192.0.2.1/tcp/1'])
  near[Symbol.dispose]()
  await assert.rejects(answering)
})

test('addresses that are not to be dialed are neither told nor dialed', async () => {
  const { near, far } = ends()
  const bad = '/ip4/192.0.2.1/tcp/22'
  const mayDial = (address: string) => address !== bad
  const dialed: string[] = []
  const dialDirect = async (to: readonly string[]) => void dialed.push(...to)
  // The one who tells does not know better; the one who dials does.
  const answering = answerRound(far, means({ addresses: () => [bad, '/dns/a/tcp/80'] }), deadline())
  await askForRound(near, means({ addresses: () => [bad], mayDial, dialDirect }), deadline())
  near[Symbol.dispose]()
  await assert.rejects(answering)
  assert.deepEqual(dialed, ['/dns/a/tcp/80'])
})

/** What each side's NAT does: nothing, or another port for each destination. */
const cases = [
  { asker: 'varies', answerer: 'stays' },
  { asker: 'stays', answerer: 'varies' },
] as const
for (const { asker, answerer } of cases) {
  test(`punched: the asker's mapping ${asker}, the answerer's ${answerer}`, async () => {
    await using near = await SocketNode.start()
    await using far = await SocketNode.start()
    const nat = { varies: (port: number, server: number) => port ^ server, stays: (port: number) => port }
    await using nearStun = await StunServers.start(nat[asker])
    await using farStun = await StunServers.start(nat[answerer])
    const path = ends()
    const [way] = await Promise.all([
      askForRound(
        path.near,
        means({
          stun: () => nearStun.addresses,
          adopt: (socket, options) => near.upgrade(socket, { peerId: far.peerId, ...options }),
        }),
        deadline(),
      ),
      answerRound(
        path.far,
        means({
          stun: () => farStun.addresses,
          adopt: (socket, options) => far.upgrade(socket, { peerId: near.peerId, ...options }),
        }),
        deadline(),
      ),
    ])
    assert.equal(way, 'punched')
    const [connection] = near.libp2p.getConnections()
    // Who asked has the dialer's part, whoever called.
    assert.equal(connection?.direction, 'outbound')
    assert.equal(far.libp2p.getConnections()[0]?.direction, 'inbound')
    // Nothing of the round is left but the connection.
    await until(() => nearStun.sockets.size + farStun.sockets.size === 0)
  })
}

test('two that both vary do not even try', async () => {
  await using stun = await StunServers.start((port, server) => port ^ server)
  const { near, far } = ends()
  const both = means({ stun: () => stun.addresses })
  const asking = askForRound(near, both, deadline())
  const answering = answerRound(far, both, deadline())
  await assert.rejects(asking, failsWith('ERR_PEER_UNREACHABLE', /another port for each destination/))
  await assert.rejects(answering, fails)
})

test('the answerer says when it has no STUN server', async () => {
  await using stun = await StunServers.start()
  const { near, far } = ends()
  const asking = askForRound(near, means({ stun: () => stun.addresses }), deadline())
  const answering = answerRound(far, means(), deadline())
  await assert.rejects(asking, failsWith('ERR_PEER_UNREACHABLE', /the peer: no STUN server/))
  await assert.rejects(answering, fails)
})

test('nobody is made to call where the peer has no business', async () => {
  await using stun = await StunServers.start()
  const calls: string[] = []
  const mayDial = (address: string) => {
    calls.push(address)
    return false
  }
  const { near, far } = ends()
  const answering = answerRound(far, means({ stun: () => stun.addresses, mayDial }), deadline())
  near.send({ type: 'hello', addresses: [] })
  await near.expect(['hello'], deadline())
  near.send({ type: 'offer', mapped: { address: '192.0.2.1', port: 25 }, varies: false })
  await assert.rejects(answering, failsWith('ERR_PEER_UNREACHABLE', /192\.0\.2\.1:25/))
  assert.deepEqual(calls, ['/ip4/192.0.2.1/tcp/25'])
})

test('a message out of turn ends the round as ERR_PROTOCOL', async () => {
  for (const act of [
    (path: PathStream) => askForRound(path, means(), deadline()),
    (path: PathStream) => answerRound(path, means(), deadline()),
  ]) {
    const { near, far } = ends()
    const round = act(near)
    far.send({ type: 'go' })
    await assert.rejects(round, failsWith('ERR_PROTOCOL', /sent go where hello was due/))
  }
})

test('the end of the stream, and the signal, end the round', async () => {
  const act = [
    (path: PathStream, signal: AbortSignal) => askForRound(path, means(), signal),
    (path: PathStream, signal: AbortSignal) => answerRound(path, means(), signal),
  ]
  for (const round of act) {
    const { near, farStream } = ends()
    const ended = round(near, deadline())
    farStream.end()
    await assert.rejects(ended, fails)

    const reason = new Error('enough')
    const giveUp = new AbortController()
    const given = round(ends().near, giveUp.signal)
    giveUp.abort(reason)
    await assert.rejects(given, (error) => error === reason)
  }
})

test('whatever a peer sends, a round ends in a FarportError, and nothing is opened for it', async () => {
  const valid = fc.constantFrom<PathMessage>(
    { type: 'hello', addresses: [] },
    { type: 'offer', mapped: { address: '192.0.2.1', port: 9 }, varies: true },
    { type: 'answer', mapped: { address: '192.0.2.1', port: 9 }, varies: true },
    { type: 'decline', reason: '\u001b[2J' },
    { type: 'go' },
    { type: 'changed' },
  )
  const piece = fc.oneof(
    valid.map((message) => Buffer.from(encodePathMessage(message))),
    fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  )
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(piece, { maxLength: 6 }), async (asks, pieces) => {
      const { near, farStream } = ends()
      farStream.resume()
      const round: Promise<unknown> = (asks ? askForRound : answerRound)(near, means(), deadline())
      for (const bytes of pieces) farStream.write(bytes)
      farStream.end()
      await assert.rejects(round, (error) => error instanceof FarportError)
    }),
    { numRuns: 50 },
  )
})

test('who gives up waiting for a message does not lose it', async () => {
  const { near, far } = ends()
  await assert.rejects(near.receive(AbortSignal.timeout(1)))
  far.send({ type: 'changed' })
  assert.deepEqual(await near.receive(deadline()), { type: 'changed' })
})

test('a peer that sends without end is not read without end', async () => {
  const { near, far, farStream } = ends()
  far.send({ type: 'go' })
  assert.deepEqual(await near.receive(deadline()), { type: 'go' })
  let sent = 0
  const more = encodePathMessage({ type: 'decline', reason: randomBytes(50).toString('hex') })
  while (farStream.write(more) && sent++ < 10_000);
  assert.ok(sent < 2_000, `${sent} messages went through`)
  assert.equal([...new PathDecoder().push(more)].length, 1)
})
