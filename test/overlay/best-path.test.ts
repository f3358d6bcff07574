import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import type { Connection } from '@libp2p/interface'
import { Dialer } from '../../src/overlay/dial.ts'
import { Network } from './network.ts'
import { deadline, startNode, until } from './nodes.ts'
import { assertEchoes, ECHO, openEcho, relayIs, startAgent, startRelay } from './relay-nodes.ts'

const PEER = '12D3KooWGzBKmdZ4mBc5xFYrAYR5pUKDQmrsPFQyAFJeFZ3gcr2Z'
const DIRECT = `/ip4/192.0.2.1/tcp/4001/p2p/${PEER}`
const RELAYED = `/ip4/192.0.2.9/tcp/4001/p2p/${PEER}/p2p-circuit/p2p/${PEER}`
const bare = (address: string) => address.replace(/\/p2p\/.*/, '')

/** Dials that end when the test says so. */
function manualDialer(closed = new AbortController().signal) {
  const dials = new Map<string, { resolve(): Connection; signal: AbortSignal; aborted(): boolean }>()
  const dialer = new Dialer((address, { signal }) => {
    const { promise, resolve, reject } = Promise.withResolvers<Connection>()
    signal.addEventListener('abort', () => reject(signal.reason))
    let aborted = false
    const connection = { abort: () => (aborted = true) } as unknown as Connection
    const done = () => {
      resolve(connection)
      return connection
    }
    dials.set(address.toString(), { resolve: done, signal, aborted: () => aborted })
    return promise
  }, closed)
  const at = async (address: string) => {
    await until(() => dials.has(address))
    return dials.get(address) as NonNullable<ReturnType<typeof dials.get>>
  }
  return { dialer, at }
}

test('direct and relayed are dialed at once; when the relayed one wins, a later direct one is kept', async () => {
  const { dialer, at } = manualDialer()
  const dialed = dialer.dial(PEER, [DIRECT, RELAYED], deadline())
  const direct = await at(DIRECT)
  const relayed = (await at(RELAYED)).resolve()
  assert.equal(await dialed, relayed)
  assert.equal(direct.signal.aborted, false)
  direct.resolve()
  await new Promise(setImmediate)
  assert.equal(direct.aborted(), false)
})

test('when a direct one wins, the relayed one is not wanted any more', async () => {
  const { dialer, at } = manualDialer()
  const dialed = dialer.dial(PEER, [DIRECT, RELAYED], deadline())
  const relayed = await at(RELAYED)
  const direct = (await at(DIRECT)).resolve()
  assert.equal(await dialed, direct)
  assert.equal(relayed.signal.aborted, true)
})

test('a dial that nobody waits for, or whose node closes, ends both ways', async () => {
  const gaveUp = new AbortController()
  const closed = new AbortController()
  for (const [end, { dialer, at }] of [
    [gaveUp, manualDialer()],
    [closed, manualDialer(closed.signal)],
  ] as const) {
    const dialed = dialer.dial(PEER, [DIRECT, RELAYED], gaveUp === end ? gaveUp.signal : deadline())
    const dials = [await at(DIRECT), await at(RELAYED)]
    end.abort()
    await assert.rejects(dialed)
    assert.deepEqual(
      dials.map(({ signal }) => signal.aborted),
      [true, true],
    )
  }
})

test('a direct path made later is the best; when it dies, streams go through the relay, and it is ended', async () => {
  await using relay = await startRelay()
  await using agent = await startAgent(relay.addresses(), { listen: ['/ip4/127.0.0.1/tcp/0'] })
  await relayIs(agent, 'reserved')
  const [own = '', relayed = ''] = agent.addresses()
  await using network = await Network.start(bare(own))
  await using client = await startNode({ listen: [] })
  const first = await openEcho(client, agent, [relayed])
  const path = await client.dialDirect(agent.peerId, [relayed, network.address], deadline())
  assert.equal(path.kind, 'direct')
  assert.deepEqual(
    client.paths(agent.peerId).map(({ kind }) => kind),
    ['direct', 'relayed'],
  )
  assert.equal(client.paths(agent.peerId)[0]?.id, path.id)
  // What runs on the relayed path goes on there.
  await assertEchoes(first)

  network.freeze()
  const ended = once(client, 'disconnect', { signal: deadline() })
  const started = performance.now()
  const opened = await client.open(agent.peerId, ECHO, { addresses: [relayed], signal: deadline() })
  assert.equal(opened.path.kind, 'relayed')
  assert.ok(performance.now() - started < 3_000)
  await assertEchoes(opened.stream)
  const [gone] = await ended
  assert.equal(gone.id, path.id)
})

test('a path that is asked for a sign of life stays when it gives one, and ends when not', async () => {
  await using far = await startAgent([], { listen: ['/ip4/127.0.0.1/tcp/0'] })
  await using network = await Network.start(bare(far.addresses()[0] as string))
  await using near = await startNode({ listen: [] })
  await assertEchoes(await openEcho(near, far, [network.address]))
  const [path] = near.paths()
  assert.ok(path)
  near.check(path)
  // On the same connection, behind the question.
  await assertEchoes(await openEcho(near, far, []))
  assert.deepEqual(near.paths(), [path])

  network.freeze()
  const ended = once(near, 'disconnect', { signal: deadline() })
  near.check(path)
  const [gone] = await ended
  assert.equal(gone.id, path.id)
})
