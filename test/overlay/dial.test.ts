import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadline, startNode } from './nodes.ts'

test('who wants a peer at the same time gets the same connection, with or without the PeerID in its address', async () => {
  await using far = await startNode()
  await using near = await startNode({ listen: [] })
  const [address = ''] = far.addresses()
  const [one, other] = await Promise.all([
    near.dial(far.peerId, [address], deadline()),
    near.dial(far.peerId, [address.replace(`/p2p/${far.peerId}`, '')], deadline()),
  ])
  assert.equal(one, other)
  assert.equal(near.paths(far.peerId).length, 1)
})
