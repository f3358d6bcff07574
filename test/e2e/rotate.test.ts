import assert from 'node:assert/strict'
import { once } from 'node:events'
import { cp, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { loadIdentity } from '../../src/trust/identity.ts'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** A new key for a machine whose peers stay as they are, by the command and nothing else. */

const contents = (home: string, name: string) => readFile(join(home, name), 'utf8').catch(() => '')
const trusted = (home: string) => contents(home, 'trusted_peers')
const keyOf = async (home: string) => (await loadIdentity(home, { create: false })).peerId

async function audited(home: string): Promise<Record<string, unknown>[]> {
  const lines = (await contents(home, 'audit.log')).split('\n').filter((line) => line !== '')
  return lines.map((line) => JSON.parse(line)).filter(({ event }) => event === 'rotate')
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + 20_000; performance.now() < deadline; await delay(20))
    if (await holds()) return
  assert.fail(`never: ${what}`)
}

async function echo(socket: Socket, text: string): Promise<void> {
  socket.write(text)
  for (let heard = ''; heard.length < text.length; ) heard += String((await once(socket, 'data'))[0])
}

test('a client rotates: its peer takes the new key without pairing, and the old key is worth nothing', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=echo # hers')
  await homes.share('simulated:echo=echo')
  const backup = homes.path('backup')
  await cp(homes.clientHome, backup, { recursive: true })
  const at = ['--home', homes.clientHome]

  const rotated = await farport(['id', 'rotate', ...at])
  const after = await keyOf(homes.clientHome)
  assert.notEqual(after, homes.clientId)
  assert.equal(rotated.stderr, '')
  assert.match(rotated.stdout, new RegExp(`^PEER +NEW KEY\na +accepted\nthis machine is now ${after}\n`))
  assert.equal(rotated.code, 0)
  assert.equal(await trusted(homes.agentHome), `client ${homes.clientId} ports=echo next=${after} # hers\n`)
  assert.ok(!(await readdir(homes.clientHome)).some((name) => /next|old|tmp/.test(name)))
  assert.equal((await stat(join(homes.clientHome, 'identity.key'))).mode & 0o777, 0o600)

  const ports = await farport(['ports', 'a', ...at])
  assert.deepEqual([ports.code, ports.stderr], [0, ''])
  await until('the line goes over', async () => (await audited(homes.agentHome)).length === 2)
  assert.equal(await trusted(homes.agentHome), `client ${after} ports=echo # hers\n`)
  assert.match(
    await contents(homes.agentHome, 'revoked_peers'),
    new RegExp(`^${homes.clientId} {2}# client,`, 'm'),
  )

  const thief = await farport(['ports', 'a', '--home', backup])
  assert.equal(thief.code, 3, thief.stderr)
  const theirs = (await audited(homes.agentHome)).map(({ peer, to, name, state }) => [peer, to, name, state])
  assert.deepEqual(theirs, [
    [homes.clientId, after, 'client', 'announced'],
    [homes.clientId, after, 'client', 'in force'],
  ])
  const ours = (await audited(homes.clientHome)).map(({ peer, to, state }) => [peer, to, state])
  assert.deepEqual(ours, [
    [homes.agentId, after, 'accepted'],
    [homes.clientId, after, 'switched'],
  ])
})

test('an agent rotates beside its running share, waits for a client, and is found by its new key', {
  timeout: 90_000,
}, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=echo')
  const agent = await homes.share('simulated:echo=echo')
  const rotate = (...args: string[]) => farport(['id', 'rotate', '--home', homes.agentHome, ...args])

  const waits = await rotate('--json')
  assert.equal(waits.code, 6)
  const [report, error] = waits.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual([report.switched, report.restart, report.oldPeerId], [false, true, homes.agentId])
  assert.deepEqual([report.peers[0].name, report.peers[0].outcome], ['client', 'not reached'])
  assert.deepEqual([error.event, error.code], ['error', 'ERR_PEER_UNREACHABLE'])
  assert.equal(await keyOf(homes.agentHome), homes.agentId)

  // The client comes by, with a link that is in use, and is told.
  const client = await homes.connect('a/echo', '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  await echo(socket, 'before')
  await until('the client is told', async () => (await trusted(homes.clientHome)).includes('next='))
  await until('that is noted', async () =>
    (await contents(homes.agentHome, 'identity.next.peers')).includes(homes.clientId),
  )
  const done = await rotate()
  assert.deepEqual([done.code, done.stderr], [0, ''])
  assert.match(done.stdout, /^client +accepted$/m)
  assert.match(done.stdout, /^Restart `farport share`/m)
  assert.equal(await keyOf(homes.agentHome), report.newPeerId)
  await echo(socket, 'still')
  const again = await rotate()
  assert.equal(again.code, 2)
  assert.match(again.stderr, /restart `farport share`/)

  await agent[Symbol.asyncDispose]()
  const listen = agent.addresses[0]?.replace(/\/p2p\/.*/, '') as string
  const restarted = homes.start([
    'share',
    'simulated:echo=echo',
    '--home',
    homes.agentHome,
    '--listen',
    listen,
  ])
  assert.equal((await restarted.event('ready')).peerId, report.newPeerId)
  // The same link, the same open socket: nobody touched the client.
  await echo(socket, 'after')
  socket.destroy()
  await until('the client goes over', async () => !(await trusted(homes.clientHome)).includes('next='))
  assert.equal(await trusted(homes.clientHome), `a ${report.newPeerId} addr=${listen}\n`)
})

test('an agent behind a relay rotates: the relay serves its new key, and the client finds it there', {
  timeout: 120_000,
}, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=echo')
  const relayHome = homes.path('R')
  const relay = homes.start(['relay', '--listen', '/ip4/127.0.0.1/tcp/0', '--no-stun', '--home', relayHome])
  const { addresses } = (await relay.event('ready')) as unknown as { addresses: [string] }
  const line = `agent ${homes.agentId} may=relay\n`
  await writeFile(join(relayHome, 'trusted_peers'), line, { mode: 0o600 })
  const via = `${addresses[0]}/p2p-circuit`
  await writeFile(join(homes.clientHome, 'trusted_peers'), `a ${homes.agentId} addr=${via}\n`, {
    mode: 0o600,
  })
  const share = async () => {
    const args = [
      'simulated:echo=echo',
      '--listen',
      'none',
      '--relay',
      addresses[0],
      '--home',
      homes.agentHome,
    ]
    const agent = homes.start(['share', ...args])
    await agent.event('relay', ({ state }) => state === 'reserved')
    return agent
  }
  const agent = await share()
  const client = await homes.connect('a/echo', '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  await echo(socket, 'before')

  const rotated = await farport(['id', 'rotate', '--json', '--home', homes.agentHome])
  const { peers, newPeerId } = JSON.parse(rotated.stdout.split('\n')[0] ?? '')
  assert.deepEqual(
    [rotated.code, peers.map(({ outcome }: { outcome: string }) => outcome)],
    [0, ['accepted', 'accepted']],
    rotated.stdout,
  )
  assert.equal(
    peers[1].name,
    addresses[0].replace(/\/p2p.*/, ''),
    'a relay that has no line goes by its address',
  )
  await agent[Symbol.asyncDispose]()
  await share()
  await until(
    'the relay goes over',
    async () => (await trusted(relayHome)) === `agent ${newPeerId} may=relay\n`,
  )
  await echo(socket, 'after')
  socket.destroy()
  const relays = await farport(['id', 'rotate', '--home', relayHome])
  assert.equal(relays.code, 2)
  assert.match(relays.stderr, /this machine is a relay: its PeerID is in every address/)
  await until(
    'the client goes over',
    async () => (await trusted(homes.clientHome)) === `a ${newPeerId} addr=${via}\n`,
  )
})

test('--now leaves behind who is not there, names it, and says how to undo it', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  await homes.reach([`/ip4/127.0.0.1/tcp/1`])
  const at = ['--home', homes.clientHome]
  const before = await contents(homes.clientHome, 'identity.key')
  const waits = await farport(['id', 'rotate', ...at])
  assert.equal(waits.code, 6)
  assert.match(
    waits.stdout,
    /^a +not reached +a can't be reached: .*connection refused\nnothing has changed/m,
  )
  assert.match(waits.stderr, /waits for a\. .*--now/)
  assert.equal(await contents(homes.clientHome, 'identity.key'), before)
  const next = await contents(homes.clientHome, 'identity.next')

  const now = await farport(['id', 'rotate', '--now', ...at])
  assert.deepEqual([now.code, now.stderr], [0, ''])
  assert.match(now.stdout, /^These must pair again: a$/m)
  assert.match(now.stdout, /The old key is in \S+identity\.old/)
  assert.equal(await contents(homes.clientHome, 'identity.key'), next)
  assert.equal(await contents(homes.clientHome, 'identity.old'), before)
})

test('rotate says what it can not do, and prints no key', { timeout: 60_000 }, async () => {
  await using homes = await TwoHomes.make()
  const none = await farport(['id', 'rotate', '--home', homes.path('none')])
  assert.deepEqual([none.code, none.stdout], [1, ''])
  assert.match(none.stderr, /there is no identity/)
  assert.equal((await farport(['id', 'rotate', '--later'])).code, 2)
  // With nobody to tell there is nothing to wait for.
  const alone = await farport(['id', 'rotate', '--json', '--home', homes.clientHome, '--log-level', 'debug'])
  const { switched, peers } = JSON.parse(alone.stdout)
  assert.deepEqual([alone.code, switched, peers], [0, true, []])
  const { seed } = await loadIdentity(homes.clientHome, { create: false })
  for (const form of ['hex', 'base64', 'latin1'] as const)
    assert.ok(!`${alone.stdout}${alone.stderr}`.includes(Buffer.from(seed).toString(form)))

  await writeFile(join(homes.clientHome, 'identity.next'), 'x', { mode: 0o644 })
  const loose = await farport(['id', 'rotate', '--home', homes.clientHome])
  assert.equal(loose.code, 1)
  assert.match(loose.stderr, /identity\.next is accessible by others/)
})
