import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** Trust taken back, as the agent's owner does it: beside a running `farport share`, with live ports. */

test('revoke cuts a live channel within a second, and the peer stays out, also after a restored backup', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=echo')
  await homes.share('simulated:echo=echo')
  const client = await homes.connect('a/echo', '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  socket.on('error', () => {})
  socket.write('x')
  assert.equal(String((await once(socket, 'data'))[0]), 'x')
  let heard = 0
  socket.on('data', (bytes) => {
    heard += bytes.length
  })
  const talking = setInterval(() => socket.write('x'.repeat(100)), 5)
  homes.use({ [Symbol.dispose]: () => clearInterval(talking) })

  const trusted = join(homes.agentHome, 'trusted_peers')
  const backup = await readFile(trusted)
  // Counted from the end of the command, so that its own start is not measured.
  const cut = client.event('link', ({ state }) => state !== 'up')
  const revoked = await farport(['revoke', 'client', '--home', homes.agentHome])
  const doneAt = performance.now()
  assert.deepEqual(revoked, { code: 0, stdout: `revoked client, ${homes.clientId}\n`, stderr: '' })
  await cut
  const tookMs = performance.now() - doneAt
  assert.ok(tookMs < 1000, `${tookMs} ms`)
  assert.ok(heard > 100, 'in the middle of a transfer')

  const turnedAway = async () => {
    const ended = await farport(['connect', 'a/echo', '--home', homes.clientHome, '--raw', '127.0.0.1:0'])
    assert.equal(ended.code, 3, ended.stderr)
  }
  await turnedAway()
  const heardThen = heard
  await writeFile(trusted, backup)
  const peers = await farport(['peers', '--home', homes.agentHome])
  assert.equal(peers.code, 0)
  assert.match(
    peers.stdout,
    /^no peer is trusted\nline 1 of trusted_peers is refused: client was revoked on /,
  )
  await turnedAway()
  assert.equal(heard, heardThen, 'no byte after')
  socket.destroy()
})

test('peers lists who is trusted, and marks what is not in force', async () => {
  await using homes = await TwoHomes.make()
  const path = join(homes.agentHome, 'trusted_peers')
  await writeFile(
    path,
    `old ${homes.clientId} ports=gps,plc expires=2020-01-31\nme ${homes.agentId} addr=/ip4/192.0.2.7/tcp/4001\nx\n`,
  )
  const ended = await farport(['peers', '--home', homes.agentHome])
  const [head = '', old = '', me = '', problem = ''] = ended.stdout.split('\n')
  assert.match(head, /^NAME +PEER ID +PORTS +MAY +EXPIRES +ADDR$/)
  assert.match(old, /^old +12D3KooW\w+ +gps,plc +watch,use,configure,lines +2020-01-31 \(expired\)$/)
  assert.match(me, /^me +12D3KooW\w+ +\/ip4\/192\.0\.2\.7\/tcp\/4001$/)
  assert.match(problem, /^line 3 of trusted_peers is refused: there is no PeerID/)
  assert.deepEqual([ended.code, ended.stderr], [0, ''])

  const json = JSON.parse((await farport(['peers', '--json', '--home', homes.agentHome])).stdout)
  assert.deepEqual(
    json.peers.map((peer: { name: string; expired: boolean }) => [peer.name, peer.expired]),
    [
      ['old', true],
      ['me', false],
    ],
  )
  assert.equal(json.peers[0].expires, '2020-02-01T00:00:00.000Z')
  assert.equal(json.problems[0].line, 3)
  assert.deepEqual(json.revoked, [])
})

test('revoke says what it can not do', async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  const unknown = await farport(['revoke', 'client', 'nobody', '--home', homes.agentHome])
  assert.equal(unknown.code, 3)
  assert.match(unknown.stderr, /no peer is called nobody/)
  assert.equal((await farport(['revoke', '--home', homes.agentHome])).code, 2)
  const json = await farport(['revoke', 'client', '--json', '--home', homes.agentHome])
  const { revoked } = JSON.parse(json.stdout)
  assert.deepEqual(
    revoked.map(({ name, peerId }: { name: string; peerId: string }) => [name, peerId]),
    [['client', homes.clientId]],
  )
})
