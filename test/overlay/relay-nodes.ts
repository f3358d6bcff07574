import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import type { Overlay, OverlayOptions, RelayStatus } from '../../src/overlay/node.ts'
import { deadline, startNode } from './nodes.ts'

export const ECHO = '/echo/1'

export async function startRelay(options: Partial<OverlayOptions> = {}): Promise<Overlay> {
  return await startNode({ relayPolicy: { mayReserve: () => true, mayCall: () => true }, ...options })
}

/** An agent that only its relays can reach, and that echoes. */
export async function startAgent(
  relays: readonly string[],
  options: Partial<OverlayOptions> = {},
): Promise<Overlay> {
  const agent = await startNode({ listen: [], relays, ...options })
  await agent.handle(ECHO, (stream) => void stream.pipe(stream))
  return agent
}

/** Resolves with the status of the node's only relay when it is in this state. */
export async function relayIs(
  node: Overlay,
  state: RelayStatus['state'],
  signal = deadline(20_000),
): Promise<RelayStatus> {
  for (;;) {
    const [status] = node.relays()
    assert.ok(status)
    if (status.state === state) return status
    await once(node, 'relay', { signal })
  }
}

export async function openEcho(from: Overlay, to: Overlay, addresses = to.addresses()): Promise<Duplex> {
  const { stream } = await from.open(to.peerId, ECHO, { addresses, signal: deadline() })
  return stream
}

export async function assertEchoes(stream: Duplex, text = 'hello'): Promise<void> {
  stream.write(text)
  const [answer] = await once(stream, 'data', { signal: deadline() })
  assert.equal(String(answer), text)
}
