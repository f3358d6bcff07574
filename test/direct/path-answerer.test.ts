import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { duplexPair } from 'node:stream'
import { test } from 'node:test'
import { PathAnswerer } from '../../src/direct/path-answerer.ts'
import type { PathMeans } from '../../src/direct/path-round.ts'
import { PathStream } from '../../src/direct/path-stream.ts'
import { createLog } from '../../src/log.ts'
import { peerIdOf } from '../../src/trust/identity.ts'
import { deadline } from '../overlay/nodes.ts'

const PEER = peerIdOf(randomBytes(32))
const OTHER = peerIdOf(randomBytes(32))

const nothing: PathMeans = {
  addresses: () => ['/ip4/192.0.2.2/tcp/4002'],
  stun: () => [],
  dialDirect: async () => {},
  adopt: async () => {},
}

function answerer(clock?: () => number): PathAnswerer {
  return new PathAnswerer({ means: () => nothing, log: createLog('silent'), ...(clock && { clock }) })
}

/** A stream of the peer's to the answerer; `served` resolves when that is done with it. */
function ask(to: PathAnswerer, peerId = PEER): { path: PathStream; served: Promise<void> } {
  const [near, far] = duplexPair()
  for (const stream of [near, far]) stream.on('error', () => {})
  return { path: new PathStream(near), served: to.answer(peerId, far) }
}

async function hello(path: PathStream): Promise<void> {
  path.send({ type: 'hello', addresses: [] })
  const { addresses } = await path.expect(['hello'], deadline())
  assert.deepEqual(addresses, ['/ip4/192.0.2.2/tcp/4002'])
}

test('it answers at once, and is done when the peer is', async () => {
  using answering = answerer()
  const { path, served } = ask(answering)
  await hello(path)
  path[Symbol.dispose]()
  await served
})

test('a peer that found nothing hears when our addresses change', async () => {
  using answering = answerer()
  const { path, served } = ask(answering)
  await hello(path)
  path.send({ type: 'offer', mapped: { address: '192.0.2.1', port: 4001 }, varies: false })
  await path.expect(['decline'], deadline())
  answering.addressesChanged()
  await path.expect(['changed'], deadline())
  path[Symbol.dispose]()
  await served
})

test('in the middle of a round that news waits for its end', async () => {
  using answering = answerer()
  const { path } = ask(answering)
  await hello(path)
  answering.addressesChanged()
  path.send({ type: 'offer', mapped: { address: '192.0.2.1', port: 4001 }, varies: false })
  await path.expect(['decline'], deadline())
  await path.expect(['changed'], deadline())
})

test('the newest round of a peer replaces the one before; other peers keep theirs', async () => {
  using answering = answerer()
  const other = ask(answering, OTHER)
  await hello(other.path)
  const first = ask(answering)
  await hello(first.path)
  const second = ask(answering)
  await first.served
  assert.equal(await first.path.receive(deadline()).catch(() => undefined), undefined)
  await hello(second.path)
  for (const { path } of [second, other]) {
    path.send({ type: 'offer', mapped: { address: '192.0.2.1', port: 4001 }, varies: false })
    await path.expect(['decline'], deadline())
  }
  answering.addressesChanged()
  await Promise.all([second, other].map(({ path }) => path.expect(['changed'], deadline())))
})

test('a peer that asks too often is sent away until some time has passed', async () => {
  let nowMs = 1_000_000
  using answering = answerer(() => nowMs)
  const tries = async () => {
    const { path, served } = ask(answering)
    path.send({ type: 'hello', addresses: [] })
    const answer = await path.receive(deadline()).catch(() => undefined)
    path[Symbol.dispose]()
    await served
    return answer !== undefined
  }
  let taken = 0
  while (taken < 100 && (await tries())) taken++
  assert.equal(taken, 6)
  nowMs += 9_000
  assert.equal(await tries(), false)
  nowMs += 1_001
  assert.equal(await tries(), true)
  assert.equal(await tries(), false)
  // One peer's haste is not another's.
  const other = ask(answering, OTHER)
  await hello(other.path)
  nowMs += 3_600_000
  taken = 0
  while (taken < 100 && (await tries())) taken++
  assert.equal(taken, 6)
})

test('closing ends all rounds', async () => {
  const answering = answerer()
  const rounds = [ask(answering), ask(answering, OTHER)]
  await Promise.all(rounds.map(({ path }) => hello(path)))
  answering[Symbol.dispose]()
  await Promise.all(rounds.map(({ served }) => served))
  for (const { path } of rounds)
    assert.equal(await path.receive(deadline()).catch(() => undefined), undefined)
})
