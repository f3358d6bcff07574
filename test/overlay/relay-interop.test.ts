import assert from 'node:assert/strict'
import { test } from 'node:test'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { serviceCapabilities } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { createLibp2p, type Libp2pOptions } from 'libp2p'
import { startNode } from './nodes.ts'
import { assertEchoes, openEcho, relayIs, startAgent, startRelay } from './relay-nodes.ts'

/** libp2p as it comes, told that there is an identify, which its circuit relay asks for and does not use. */
async function startStock(listen: string[], services: NonNullable<Libp2pOptions['services']> = {}) {
  return await createLibp2p({
    addresses: { listen },
    transports: [tcp(), circuitRelayTransport()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: () => ({ [serviceCapabilities]: ['@libp2p/identify'] }), ...services },
  })
}

test("libp2p's own relay serves us", async () => {
  const relay = await startStock(['/ip4/127.0.0.1/tcp/0'], {
    relay: circuitRelayServer({ reservations: { applyDefaultLimit: false } }),
  })
  try {
    const addresses = relay.getMultiaddrs().map(String)
    await using agent = await startAgent(addresses)
    await relayIs(agent, 'reserved')
    await using client = await startNode({ listen: [] })
    await assertEchoes(await openEcho(client, agent))
  } finally {
    await relay.stop()
  }
})

test("our relay serves libp2p's own agents", async () => {
  await using relay = await startRelay()
  const agent = await startStock([`${relay.addresses()[0]}/p2p-circuit`])
  try {
    await agent.handle('/echo/1', (stream) => {
      stream.addEventListener('message', ({ data }) => void stream.send(data))
    })
    await using client = await startNode({ listen: [] })
    const addresses = [`${relay.addresses()[0]}/p2p-circuit/p2p/${agent.peerId}`]
    const { stream } = await client.open(agent.peerId.toString(), '/echo/1', {
      addresses,
      signal: AbortSignal.timeout(5_000),
    })
    await assertEchoes(stream)
    assert.equal(client.paths(agent.peerId.toString())[0]?.kind, 'relayed')
  } finally {
    await agent.stop()
  }
})
