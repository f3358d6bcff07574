import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mock, test } from 'node:test'
import { createLog } from '../../src/log.ts'
import type { RelayStatus } from '../../src/overlay/node.ts'
import { Reservations } from '../../src/overlay/reservations.ts'
import { freePort, Network, SilentServer } from './network.ts'
import { startNode, until } from './nodes.ts'
import { assertEchoes, openEcho, relayIs, startAgent, startRelay } from './relay-nodes.ts'

const bare = (address: string) => address.replace(/\/p2p\/.*/, '')

test('an agent is back within seconds of its relay, again and again', async () => {
  const seed = randomBytes(32)
  const listen = [`/ip4/127.0.0.1/tcp/${await freePort()}`]
  const first = await startRelay({ seed, listen })
  await using agent = await startAgent(first.addresses())
  await relayIs(agent, 'reserved')
  await first[Symbol.asyncDispose]()
  const { reason } = await relayIs(agent, 'waiting')
  assert.match(reason ?? '', /the connection to the relay was lost/)
  assert.deepEqual(agent.addresses(), [])

  for (let restart = 0; restart < 2; restart++) {
    await using _relay = await startRelay({ seed, listen })
    const started = performance.now()
    await relayIs(agent, 'reserved')
    assert.ok(performance.now() - started < 6_000)
    await using client = await startNode({ listen: [] })
    await assertEchoes(await openEcho(client, agent))
  }
})

test('an agent starts without its relay, and finds it when it is there', async () => {
  const seed = randomBytes(32)
  const listen = [`/ip4/127.0.0.1/tcp/${await freePort()}`]
  const early = await startRelay({ seed, listen })
  const addresses = early.addresses()
  await early[Symbol.asyncDispose]()

  await using agent = await startAgent(addresses)
  const { reason } = await relayIs(agent, 'waiting')
  assert.match(reason ?? '', /connection refused/)
  await using _relay = await startRelay({ seed, listen })
  await relayIs(agent, 'reserved')
})

test('a relay whose first address is silent is reached by its second', async () => {
  await using silent = await SilentServer.start()
  await using relay = await startRelay()
  await using agent = await startAgent([`${silent.address}/p2p/${relay.peerId}`, ...relay.addresses()])
  const { address } = await relayIs(agent, 'reserved')
  assert.equal(address, relay.addresses()[0])
})

test('a relay that has gone silent is noticed and replaced', async () => {
  await using relay = await startRelay()
  await using network = await Network.start(bare(relay.addresses()[0] as string))
  mock.timers.enable({ apis: ['setInterval'] })
  try {
    await using agent = await startAgent([`${network.address}/p2p/${relay.peerId}`])
    await relayIs(agent, 'reserved')
    const [before] = agent.paths(relay.peerId)
    network.freeze()
    mock.timers.tick(14_000)
    assert.deepEqual(agent.paths(), [])
    await relayIs(agent, 'waiting')
    await relayIs(agent, 'reserved')
    assert.notEqual(agent.paths(relay.peerId)[0]?.id, before?.id)
  } finally {
    mock.timers.reset()
  }
})

test('when the network changes, a connection that did not survive it is replaced at once', async () => {
  await using relay = await startRelay()
  await using network = await Network.start(bare(relay.addresses()[0] as string))
  await using node = await startNode({ listen: [] })
  const changes: RelayStatus['state'][] = []
  await using reservations = new Reservations({
    relays: new Map([[relay.peerId, [`${network.address}/p2p/${relay.peerId}`]]]),
    connectionsTo: (peerId) => node.directTo(peerId),
    connect: (peerId, addresses, signal) => node.dial(peerId, addresses, signal),
    onChange: ({ state }) => changes.push(state),
    log: createLog('silent'),
  })
  reservations.start()
  await until(() => changes.length === 1)
  // One that did survive is kept.
  const [before] = node.paths(relay.peerId)
  reservations.networkChanged()
  await node
    .directTo(relay.peerId)[0]
    ?.newStream('/ipfs/ping/1.0.0')
    .catch(() => {})
  assert.deepEqual(node.paths(relay.peerId), [before])

  network.freeze()
  reservations.networkChanged()
  await until(() => changes.length === 3)
  assert.deepEqual(changes, ['reserved', 'waiting', 'reserved'])
})

test('what is not the address of a relay is said in words', async () => {
  for (const address of ['/ip4/127.0.0.1/tcp/4001', 'relay.example', `/ip4/127.0.0.1/tcp/1/p2p-circuit`])
    await assert.rejects(startNode({ relays: [address] }), {
      code: 'ERR_USAGE',
      message: /not the address of a relay/,
    })
})
