import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { peerIdFromString } from '@libp2p/peer-id'
import { FarportError } from '../../src/errors.ts'
import {
  decodeStopStatus,
  encodeStopConnect,
  STATUS,
  STOP_PROTOCOL,
} from '../../src/overlay/circuit-message.ts'
import { readCircuitMessage, writeCircuitMessage } from '../../src/overlay/circuit-stream.ts'
import type { Overlay } from '../../src/overlay/node.ts'
import { peerIdOf } from '../../src/trust/identity.ts'
import { Network } from './network.ts'
import { closed, deadline, readAll, startNode } from './nodes.ts'
import { assertEchoes, ECHO, openEcho, relayIs, startAgent, startRelay } from './relay-nodes.ts'

const bare = (address: string) => address.replace(/\/p2p\/.*/, '')

test('an agent that nobody can reach is reached through its relay, and both ends see how', async () => {
  await using relay = await startRelay()
  await using agent = await startAgent(relay.addresses())
  await using client = await startNode({ listen: [] })
  const { address, reason } = await relayIs(agent, 'reserved')
  assert.equal(address, relay.addresses()[0])
  assert.equal(reason, undefined)
  assert.deepEqual(agent.addresses(), [`${relay.addresses()[0]}/p2p-circuit/p2p/${agent.peerId}`])

  const connected = once(agent, 'connect', { signal: deadline() })
  await assertEchoes(await openEcho(client, agent))
  const [path] = client.paths(agent.peerId)
  assert.ok(path)
  assert.equal(path.kind, 'relayed')
  assert.equal(path.encryption, '/noise')
  assert.equal(path.remoteAddress, `${relay.addresses()[0]}/p2p-circuit`)
  const [seen] = await connected
  assert.equal(seen.peerId, client.peerId)
  assert.equal(seen.kind, 'relayed')
  assert.equal(seen.direction, 'inbound')
  assert.match(seen.remoteAddress, new RegExp(`/p2p/${relay.peerId}/p2p-circuit$`))
})

test('every address of a relay that has reserved is told, and none of one that has not', async () => {
  await using relay = await startRelay()
  await using network = await Network.start(bare(relay.addresses()[0] as string))
  const second = `${network.address}/p2p/${relay.peerId}`
  const absent = `/ip4/127.0.0.1/tcp/1/p2p/${peerIdOf(randomBytes(32))}`
  await using agent = await startNode({ relays: [...relay.addresses(), second, absent] })
  while (!agent.relays().some(({ state }) => state === 'reserved'))
    await once(agent, 'relay', { signal: deadline() })
  const suffix = `/p2p-circuit/p2p/${agent.peerId}`
  assert.deepEqual(
    agent.addresses().filter((address) => address.includes('p2p-circuit')),
    [`${relay.addresses()[0]}${suffix}`, `${second}${suffix}`],
  )
  assert.equal(agent.addresses().length, 3)
})

test('a relay serves whom its policy names, and nobody else', async () => {
  const seeds = { agent: randomBytes(32), friend: randomBytes(32) }
  const agentId = peerIdOf(seeds.agent)
  const friendId = peerIdOf(seeds.friend)
  await using relay = await startRelay({
    relayPolicy: {
      mayReserve: (peerId) => peerId === agentId,
      mayCall: (source, destination) => source === friendId && destination === agentId,
    },
  })
  await using agent = await startAgent(relay.addresses(), { seed: seeds.agent })
  await using friend = await startNode({ seed: seeds.friend, listen: [] })
  await using stranger = await startAgent(relay.addresses())
  await relayIs(agent, 'reserved')
  await assertEchoes(await openEcho(friend, agent))

  const { reason } = await relayIs(stranger, 'refused')
  assert.match(reason ?? '', /may not serve us/)
  assert.deepEqual(stranger.addresses(), [])
  await assert.rejects(
    openEcho(stranger, agent),
    (error) =>
      error instanceof FarportError &&
      error.code === 'ERR_PEER_UNREACHABLE' &&
      /that relay does not let us call it/.test(error.message),
  )
  // Who may not call does not learn who is there.
  const nobody = `${relay.addresses()[0]}/p2p-circuit/p2p/${friendId}`
  await assert.rejects(
    stranger.open(friendId, ECHO, { addresses: [nobody], signal: deadline() }),
    /that relay does not let us call it/,
  )
})

test('a relay that does not know us is said to, and does not keep the agent from starting', async () => {
  await using relay = await startRelay({ admits: () => false })
  await using agent = await startAgent(relay.addresses())
  const { reason } = await relayIs(agent, 'refused')
  assert.match(reason ?? '', /does not know this machine's key/)
})

test('who comes through a relay is asked for like everybody else', async () => {
  const refused: string[] = []
  await using relay = await startRelay()
  await using agent = await startAgent(relay.addresses(), {
    admits: (peerId) => peerId === relay.peerId,
    onRefused: (peerId, address) => refused.push(`${peerId} ${address.includes('/p2p-circuit')}`),
  })
  await using client = await startNode({ listen: [] })
  await relayIs(agent, 'reserved')
  await assert.rejects(openEcho(client, agent), (error) => (error as FarportError).code === 'ERR_NOT_TRUSTED')
  assert.ok(refused.includes(`${client.peerId} true`))
})

test('a relay needs no trust to be used, and gets none by it', async () => {
  await using relay = await startRelay()
  await using agent = await startAgent(relay.addresses())
  await relayIs(agent, 'reserved')
  await using client = await startNode({ listen: [], admits: (peerId) => peerId === agent.peerId })
  await assertEchoes(await openEcho(client, agent))
  assert.deepEqual(
    client.paths(relay.peerId).map(({ direction }) => direction),
    ['outbound'],
  )

  await using other = await startNode({ admits: (peerId) => peerId === agent.peerId })
  await assert.rejects(
    relay.open(other.peerId, ECHO, { addresses: other.addresses(), signal: deadline() }),
    (error) => (error as FarportError).code === 'ERR_NOT_TRUSTED',
  )
})

test('no peer but a relay of ours can hand us callers', async () => {
  await using relay = await startRelay()
  await using ours = await startAgent(relay.addresses(), { listen: ['/ip4/127.0.0.1/tcp/0'] })
  await relayIs(ours, 'reserved')
  const caller = peerIdFromString(peerIdOf(randomBytes(32))).toMultihash().bytes
  const offer = async (from: Overlay) => {
    const addresses = ours.addresses().filter((address) => !address.includes('/p2p-circuit'))
    const { stream } = await from.open(ours.peerId, STOP_PROTOCOL, { addresses, signal: deadline() })
    writeCircuitMessage(stream, encodeStopConnect(caller))
    return stream
  }
  const taken = await offer(relay)
  assert.equal(decodeStopStatus(await readCircuitMessage(taken, deadline())), STATUS.OK)
  taken.destroy()

  await using other = await startRelay()
  const refused = await offer(other)
  assert.ok(await closed(refused))
  assert.equal(refused.read(), null)
})

test('a peer that did not ask a relay for it is not called through it', async () => {
  await using relay = await startRelay()
  await using agent = await startAgent([])
  await using client = await startNode({ listen: [] })
  // It is connected, but has reserved nothing.
  await assert.rejects(
    agent.open(relay.peerId, ECHO, { addresses: relay.addresses(), signal: deadline() }),
    (error) => (error as FarportError).code === 'ERR_PROTOCOL',
  )
  const addresses = [`${relay.addresses()[0]}/p2p-circuit/p2p/${agent.peerId}`]
  await assert.rejects(openEcho(client, agent, addresses), /it is not at that relay right now/)
})

test('an agent is called on its newest connection, and forgotten with its last', async () => {
  await using relay = await startRelay()
  await using network = await Network.start(bare(relay.addresses()[0] as string))
  const seed = randomBytes(32)
  await using agent = await startAgent([`${network.address}/p2p/${relay.peerId}`], { seed })
  await relayIs(agent, 'reserved')
  network.freeze()
  // The same machine, from another network: its old connection still looks alive to the relay.
  const again = await startAgent(relay.addresses(), { seed })
  await relayIs(again, 'reserved')
  await using client = await startNode({ listen: [] })
  await assertEchoes(await openEcho(client, again))

  const gone = once(relay, 'disconnect', { signal: deadline() })
  const addresses = again.addresses()
  await again[Symbol.asyncDispose]()
  await gone
  await using late = await startNode({ listen: [] })
  await assert.rejects(openEcho(late, agent, addresses), /it is not at that relay right now/)
})

test('half a stream ends through the relay, every byte arrives, a reset resets', async () => {
  await using relay = await startRelay()
  await using agent = await startAgent(relay.addresses())
  await relayIs(agent, 'reserved')
  await using client = await startNode({ listen: [] })
  const stream = await openEcho(client, agent)
  const sent = randomBytes(3_000_000)
  const echoed = readAll(stream)
  stream.end(sent)
  assert.ok(sent.equals(await echoed))

  const other = await openEcho(client, agent)
  await assertEchoes(other)
  await relay.disconnect(agent.peerId, 'test')
  assert.ok(await closed(other))
})

test('a slow reader behind the relay holds back the sender; the relay keeps no more than windows', async () => {
  await using relay = await startRelay()
  await using agent = await startNode({ listen: [], relays: relay.addresses() })
  await relayIs(agent, 'reserved')
  // Never reads.
  await agent.handle('/stuck/1', () => {})
  await agent.handle(ECHO, (stream) => void stream.pipe(stream))
  await using client = await startNode({ listen: [] })
  const { stream } = await client.open(agent.peerId, '/stuck/1', {
    addresses: agent.addresses(),
    signal: deadline(),
  })
  let taken = 0
  const chunk = Buffer.alloc(64 * 1024)
  for (let quiet = 0; quiet < 20; ) {
    if (stream.writableNeedDrain) {
      quiet++
      // A round trip on the same relayed connection: what could move has moved.
      const echo = await openEcho(client, agent)
      await assertEchoes(echo)
      echo.destroy()
    } else {
      quiet = 0
      stream.write(chunk)
      taken += chunk.length
      assert.ok(taken < 8_000_000, 'it takes without end')
    }
  }
  assert.ok(taken < 2_000_000, `${taken} bytes are under way to who reads none`)
})

test('a whole connection that is not read through the relay costs it no more than windows', async () => {
  await using relay = await startRelay()
  await using network = await Network.start(bare(relay.addresses()[0] as string))
  await using agent = await startAgent([`${network.address}/p2p/${relay.peerId}`])
  await relayIs(agent, 'reserved')
  await using client = await startNode({ listen: [] })
  const address = `${relay.addresses()[0]}/p2p-circuit/p2p/${agent.peerId}`
  const streams: Duplex[] = []
  for (let i = 0; i < 16; i++) streams.push(await openEcho(client, agent, [address]))
  network.freeze()
  let taken = 0
  const chunk = Buffer.alloc(64 * 1024)
  for (let turn = 0; turn < 400; turn++) {
    for (const stream of streams) {
      if (stream.writableNeedDrain) continue
      stream.write(chunk)
      taken += chunk.length
    }
    await nextTurn()
  }
  assert.ok(streams.every(({ destroyed }) => !destroyed))
  assert.ok(taken < 4_000_000, `${taken} bytes are under way to who reads none`)
})
