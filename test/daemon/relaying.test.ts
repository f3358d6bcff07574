import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pino } from 'pino'
import { byPeer, relayAddresses, relaysToPeers, stunAtRelays } from '../../src/daemon/relaying.ts'
import type { Path } from '../../src/overlay/node.ts'
import { openTrustStore } from '../../src/trust/trust-store.ts'
import { peer } from '../relay/peers.ts'

const [RELAY, OTHER, AGENT] = [peer(1), peer(2), peer(3)]
const AT = '/ip4/192.0.2.1/tcp/4001'

async function storeOf(t: { after: (done: () => Promise<void>) => void }, ...lines: string[]) {
  const home = await mkdtemp(join(tmpdir(), 'farport-test-'))
  await writeFile(join(home, 'trusted_peers'), lines.join('\n'), { mode: 0o600 })
  const store = await openTrustStore(home, { log: pino({ level: 'silent' }) })
  t.after(async () => {
    await store[Symbol.asyncDispose]()
    await rm(home, { recursive: true })
  })
  return store
}

test('a relay is named by its line or by its address', async (t) => {
  const trust = await storeOf(
    t,
    `hub ${RELAY} addr=${AT},/dns4/hub.example.org/tcp/443/p2p/${RELAY},${AT}/p2p/${OTHER}/p2p-circuit`,
    `lost ${OTHER}`,
  )
  assert.deepEqual(relayAddresses(['hub'], trust), [
    `${AT}/p2p/${RELAY}`,
    `/dns4/hub.example.org/tcp/443/p2p/${RELAY}`,
  ])
  assert.deepEqual(relayAddresses([`${AT}/p2p/${OTHER}`], trust), [`${AT}/p2p/${OTHER}`])
  assert.throws(() => relayAddresses(['nobody'], trust), { code: 'ERR_NOT_TRUSTED' })
  assert.throws(() => relayAddresses(['lost'], trust), { code: 'ERR_USAGE', message: /no address/ })
  assert.throws(() => relayAddresses([AT], trust), { code: 'ERR_USAGE', message: /PEERID/ })
})

test('the relays that lead to peers, each once', async (t) => {
  const circuit = `${AT}/p2p/${RELAY}/p2p-circuit`
  const trust = await storeOf(t, `a ${AGENT} addr=${AT},${circuit}`, `b ${OTHER} addr=${circuit}`)
  assert.deepEqual(relaysToPeers(trust), [`${AT}/p2p/${RELAY}`])
})

test('addresses are gathered by the peer they lead to', () => {
  assert.deepEqual(
    [...byPeer([`${AT}/p2p/${RELAY}`, `/ip4/192.0.2.2/tcp/1/p2p/${OTHER}`, `/ip6/::1/tcp/2/p2p/${RELAY}`])],
    [
      [RELAY, [AT, '/ip6/::1/tcp/2']],
      [OTHER, ['/ip4/192.0.2.2/tcp/1']],
    ],
  )
})

test('STUN is asked at the relays that our paths lead through', () => {
  const path = (kind: Path['kind'], remoteAddress: string) => ({ kind, remoteAddress }) as Path
  assert.deepEqual(
    stunAtRelays([
      path('direct', '/ip4/192.0.2.9/tcp/5'),
      path('relayed', `${AT}/p2p/${RELAY}/p2p-circuit`),
      path('relayed', `${AT}/p2p/${RELAY}/p2p-circuit`),
      // Whom a relay handed to us: where the relay is we know from elsewhere.
      path('relayed', `/p2p/${RELAY}/p2p-circuit`),
    ]),
    [
      { host: '192.0.2.1', port: 3478 },
      { host: '192.0.2.1', port: 3479 },
    ],
  )
})
