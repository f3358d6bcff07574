import assert from 'node:assert/strict'
import { duplexPair } from 'node:stream'
import { test } from 'node:test'
import { answerPings, ping } from '../../src/session/ping.ts'

test('a ping comes back as it was, as often as one likes', async () => {
  const [ours, theirs] = duplexPair()
  const answering = answerPings(theirs)
  for (let i = 0; i < 3; i++) assert.ok((await ping(ours, AbortSignal.timeout(1_000))) >= 0)
  ours.end()
  await answering
})

test('an answer that is another is no answer', async () => {
  const [ours, theirs] = duplexPair()
  theirs.on('data', () => theirs.write(Buffer.alloc(32)))
  await assert.rejects(ping(ours, AbortSignal.timeout(1_000)), { code: 'ERR_PROTOCOL' })
})

test('a peer that hangs up is told as such, and a silent one is not waited for', async () => {
  const [ours, theirs] = duplexPair()
  theirs.end()
  await assert.rejects(ping(ours, AbortSignal.timeout(1_000)), { code: 'ERR_PROTOCOL' })
  const [waiting] = duplexPair()
  await assert.rejects(ping(waiting, AbortSignal.timeout(20)), { name: 'TimeoutError' })
})
