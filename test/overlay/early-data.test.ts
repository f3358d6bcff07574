import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { deadline, NodePair } from './nodes.ts'

test('what is said early comes first at the other end, and what is said later after it', async () => {
  await using pair = await NodePair.start()
  const next = pair.next()
  const { stream } = await pair.near.open(pair.far.peerId, '/test/1', {
    addresses: pair.far.addresses(),
    early: Buffer.from('early, '),
    signal: deadline(),
  })
  stream.end('late')
  const far = await next
  let text = ''
  far.on('data', (bytes) => {
    text += bytes
  })
  await once(far, 'end', { signal: deadline() })
  assert.equal(text, 'early, late')
  far.destroy()
})

test('a protocol that the peer does not speak is still told, and the connection stays', async () => {
  await using pair = await NodePair.start()
  const addresses = pair.far.addresses()
  await assert.rejects(
    pair.near.open(pair.far.peerId, '/unknown/1', {
      addresses,
      early: Buffer.from('early'),
      signal: deadline(),
    }),
    { code: 'ERR_PROTOCOL' },
  )
  const { near } = await pair.open()
  near.destroy()
  assert.equal(pair.near.paths(pair.far.peerId).length, 1)
})
