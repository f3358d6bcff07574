import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { DirectPaths, type DirectPathsOptions, PATH_PROTOCOL } from '../../src/direct/direct-paths.ts'
import { createLog } from '../../src/log.ts'
import type { Overlay } from '../../src/overlay/node.ts'
import { closed, deadline, startNode, until } from '../overlay/nodes.ts'
import { StunServers } from '../overlay/stun-servers.ts'

const ECHO = '/echo/1'

interface Site {
  agent: Overlay
  client: Overlay
  /** The agent's address through the relay. */
  viaRelay: string[]
  agentPaths: DirectPaths
  clientPaths: DirectPaths
}

/** An agent that a client knows by its relay only. All run on the loopback, which is therefore dialed. */
async function site(
  t: TestContext,
  { agentListens = false, ...some }: Partial<DirectPathsOptions> & { agentListens?: boolean } = {},
): Promise<Site> {
  const own = new AsyncDisposableStack()
  t.after(() => own.disposeAsync())
  const relay = own.use(await startNode({ relayPolicy: { mayReserve: () => true, mayCall: () => true } }))
  const agent = own.use(await startNode({ relays: relay.addresses(), ...(!agentListens && { listen: [] }) }))
  const client = own.use(await startNode({ listen: [] }))
  await agent.handle(ECHO, (stream) => void stream.pipe(stream))
  const isRelayed = (address: string) => address.includes('/p2p-circuit')
  await until(() => agent.addresses().some(isRelayed))
  const options: DirectPathsOptions = {
    stun: () => [],
    trusts: (peerId) => peerId !== relay.peerId,
    mayDial: () => true,
    log: createLog('silent'),
    ...some,
  }
  const agentPaths = own.use(await DirectPaths.start(agent, options))
  const clientPaths = own.use(await DirectPaths.start(client, options))
  return { agent, client, viaRelay: agent.addresses().filter(isRelayed), agentPaths, clientPaths }
}

async function openEcho({ client, agent, viaRelay }: Site) {
  return await client.open(agent.peerId, ECHO, { addresses: viaRelay, signal: deadline() })
}

async function assertEchoes(stream: NodeJS.ReadWriteStream): Promise<void> {
  const sent = randomBytes(20).toString('hex')
  stream.write(sent)
  assert.equal(String((await once(stream, 'data', { signal: deadline() }))[0]), sent)
}

const kinds = ({ client, agent }: Site) => client.paths(agent.peerId).map(({ kind }) => kind)

test('what begins on the relay gets a direct path, and the relayed one goes on', async (t) => {
  const all = await site(t, { agentListens: true })
  const { stream, path } = await openEcho(all)
  assert.equal(path.kind, 'relayed')
  await until(() => kinds(all)[0] === 'direct')
  assert.deepEqual(kinds(all), ['direct', 'relayed'])
  await until(() => all.clientPaths.state(all.agent.peerId)?.state === 'direct')
  await assertEchoes(stream)
  const again = await openEcho(all)
  assert.equal(again.path.kind, 'direct')
  await assertEchoes(again.stream)
})

test('nobody listens: the port that waits is one of the round', async (t) => {
  await using stays = await StunServers.start()
  await using varies = await StunServers.start((port, server) => port ^ server)
  let asked = 0
  // The first to ask is the client, whose NAT is the difficult one.
  const all = await site(t, { stun: () => (asked++ === 0 ? varies : stays).addresses })
  await openEcho(all)
  await until(() => kinds(all)[0] === 'direct')
  const [path] = all.client.paths(all.agent.peerId)
  assert.equal(path?.direction, 'outbound')
  const again = await openEcho(all)
  assert.equal(again.path.id, path?.id)
  await assertEchoes(again.stream)
})

test('a lost direct path is replaced', async (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() })
  const all = await site(t, { agentListens: true })
  await openEcho(all)
  await until(() => all.clientPaths.state(all.agent.peerId)?.state === 'direct')
  t.mock.timers.tick(60_000)
  const [first] = all.client.paths(all.agent.peerId)
  assert.ok(first)
  const { stream } = await openEcho(all)
  stream.on('error', () => {})
  // Cut at the far end, as a dead network looks in the end.
  await all.agent.disconnect(all.client.peerId, 'test')
  await until(() => !all.client.paths(all.agent.peerId).some(({ id }) => id === first.id))
  await openEcho(all)
  await until(() => kinds(all)[0] === 'direct')
  assert.notEqual(all.client.paths(all.agent.peerId)[0]?.id, first.id)
})

test('peers that are not ours get no rounds, and none are asked of them', async (t) => {
  const all = await site(t, { agentListens: true, trusts: () => false })
  await openEcho(all)
  assert.equal(all.clientPaths.state(all.agent.peerId), undefined)
  const { stream } = await all.client.open(all.agent.peerId, PATH_PROTOCOL, {
    addresses: all.viaRelay,
    signal: deadline(),
  })
  await closed(stream)
  assert.deepEqual(kinds(all), ['relayed'])
})

test('when nothing works the session stays as it is', async (t) => {
  const all = await site(t)
  const { stream } = await openEcho(all)
  await until(() => all.clientPaths.state(all.agent.peerId)?.state === 'waiting')
  await assertEchoes(stream)
  assert.deepEqual(kinds(all), ['relayed'])
})

test('the search ends when the peer is gone', async (t) => {
  const all = await site(t)
  const { stream } = await openEcho(all)
  stream.on('error', () => {})
  await until(() => all.clientPaths.state(all.agent.peerId) !== undefined)
  await all.client.disconnect(all.agent.peerId, 'test')
  await until(() => all.clientPaths.state(all.agent.peerId) === undefined)
})
