import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

interface Pong {
  event: string
  seq: number
  kind: string
  address: string
  roundTripMs: number
}

async function ping(homes: TwoHomes, ...args: string[]) {
  const { code, stdout } = await farport(['ping', ...args, '--home', homes.clientHome, '--json'])
  const said = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Pong)
  return { code, said }
}

test('a peer that is reached directly: one line for each answer, and 0', async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  await homes.share('simulated:echo=echo')
  const { code, said } = await ping(homes, 'a', '--count', '2')
  assert.equal(code, 0)
  assert.deepEqual(
    said.map(({ event, seq, kind }) => [event, seq, kind]),
    [
      ['pong', 1, 'direct'],
      ['pong', 2, 'direct'],
    ],
  )
  for (const { address, roundTripMs } of said) {
    assert.match(address, /^\/ip4\/127\.0\.0\.1\/tcp\/\d+$/)
    assert.ok(roundTripMs > 0 && roundTripMs < 5_000, `${roundTripMs} ms`)
  }
  const shown = await farport(['ping', 'a', '--count', '1', '--home', homes.clientHome])
  assert.match(shown.stdout, /^a: [\d.]+ ms, direct, \/ip4\/127\.0\.0\.1\/tcp\/\d+\n$/)
})

test('a peer that is reached through a relay only: 1', async () => {
  await using homes = await TwoHomes.make()
  const relayHome = homes.path('R')
  const listen = ['--listen', '/ip4/127.0.0.1/tcp/0', '--no-stun']
  const relay = homes.start(['relay', ...listen, '--home', relayHome])
  const { addresses } = (await relay.event('ready')) as unknown as { addresses: [string] }
  const [address] = addresses
  await writeFile(join(relayHome, 'trusted_peers'), `a ${homes.agentId} may=relay\n`, { mode: 0o600 })
  await homes.grant('ports=*')
  const at = ['--listen', 'none', '--relay', address, '--home', homes.agentHome]
  const agent = homes.start(['share', 'simulated:echo=echo', ...at])
  await agent.event('relay', ({ state }) => state === 'reserved')
  const line = `a ${homes.agentId} addr=${address}/p2p-circuit\n`
  await writeFile(join(homes.clientHome, 'trusted_peers'), line, { mode: 0o600 })
  // The doctor is at the relay meanwhile, by the agent's own key: callers still find the agent.
  const [{ code, said }, doctor] = await Promise.all([
    ping(homes, 'a', '--count', '3'),
    farport(['doctor', '--relay', address, '--home', homes.agentHome]),
  ])
  assert.equal(doctor.code, 0, doctor.stdout)
  assert.equal(code, 1)
  assert.deepEqual(
    said.map(({ kind }) => kind),
    ['relayed', 'relayed', 'relayed'],
  )
  assert.equal(said[0]?.address, `${address}/p2p-circuit`)
})

test('a peer that nobody answers for: 6', async () => {
  await using homes = await TwoHomes.make()
  await homes.reach(['/ip4/127.0.0.1/tcp/1'])
  assert.equal((await ping(homes, 'a')).code, 6)
})

test('not trusted: 3, whether we do not know the peer or the peer does not know us', async () => {
  await using homes = await TwoHomes.make()
  await homes.share('simulated:echo=echo')
  const [unknown, turnedAway] = await Promise.all([ping(homes, 'b'), ping(homes, 'a')])
  assert.equal(unknown.code, 3)
  assert.equal(turnedAway.code, 3)
})

test('a count that is none: 2', async () => {
  assert.equal((await farport(['ping', 'a', '--count', '0'])).code, 2)
})
