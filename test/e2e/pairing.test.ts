import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** The agent's side, its invite open; nobody has exchanged a key. */
async function inviting(homes: TwoHomes, ...args: string[]) {
  const agent = await homes.share('simulated:gps?hz=10=gps')
  await homes.forget()
  const invite = homes.start(['invite', ...args, '--home', homes.agentHome])
  const { text } = (await invite.event('invite')) as unknown as { text: string }
  return { agent, invite, text }
}

const pair = (homes: TwoHomes, input: string, ...args: string[]) =>
  farport(['pair', '--home', homes.clientHome, ...args], { input })

/** Whether a program sees NMEA through `farport connect`. */
async function bytesFlow(homes: TwoHomes, target: string): Promise<void> {
  const client = await homes.connect(target, '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  const [line] = (await once(createInterface({ input: socket }), 'line')) as [string]
  assert.match(line, /\$GP/)
  socket.destroy()
}

test('two empty homes, a ticket pasted: bytes flow', async () => {
  await using homes = await TwoHomes.make()
  const { invite, text } = await inviting(homes, 'gps')
  assert.match(text, /^FARPORT1[A-Z0-9]+$/)
  const paired = await pair(homes, `${text}\n`)
  assert.equal(paired.stderr, '')
  assert.equal(paired.code, 0)
  const [, name] = /Next: farport connect ([^ ]+)\/gps --pty/.exec(paired.stdout) ?? []
  const { peer } = (await invite.event('paired')) as unknown as { peer: { peerId: string; ports: string[] } }
  assert.deepEqual({ peerId: peer.peerId, ports: peer.ports }, { peerId: homes.clientId, ports: ['gps'] })
  assert.equal(await invite.ended, 0)
  await bytesFlow(homes, `${name}/gps`)
})

test('a code, as a person types it', async () => {
  await using homes = await TwoHomes.make()
  const { agent, invite, text } = await inviting(homes, 'gps', '--code')
  assert.match(text, /^\d{3}-[a-z]+-[a-z]+-[a-z]+$/)
  const typed = text.toUpperCase().replaceAll('-', ' ')
  const paired = await pair(homes, typed, '--at', agent.addresses[0] ?? '')
  assert.equal(paired.stderr, '')
  assert.equal(paired.code, 0)
  assert.equal(await invite.ended, 0)
})

test('three wrong codes cancel the invite, and the right one is refused then', async () => {
  await using homes = await TwoHomes.make()
  const { agent, invite, text } = await inviting(homes, 'gps', '--code')
  const at = agent.addresses[0] ?? ''
  const wrong = `${text.slice(0, 4)}zoo-zoo-zoo`
  for (const left of [2, 1, 0]) {
    const refused = await pair(homes, wrong, '--at', at)
    assert.equal(refused.code, 3)
    assert.match(refused.stderr, /wrong/)
    await invite.event('attempt', ({ triesLeft }) => triesLeft === left)
    // One source may try every two seconds; Node's start takes part of that.
    await new Promise((resolve) => setTimeout(resolve, 2_000))
  }
  assert.equal(await invite.ended, 3)
  assert.equal((await pair(homes, text, '--at', at)).code, 3)
})

test('while an invite is open, a stranger may pair and nothing else', async () => {
  await using homes = await TwoHomes.make()
  const { agent } = await inviting(homes, 'gps')
  await homes.reach(agent.addresses)
  for (const args of [
    ['ports', 'a'],
    ['connect', 'a/gps', '--stdio'],
  ]) {
    const ended = await farport([...args, '--home', homes.clientHome])
    assert.notEqual(ended.code, 0)
    assert.doesNotMatch(ended.stdout, /gps|\$GP/)
  }
})

test('no secret is on a command line or in a log', async () => {
  await using homes = await TwoHomes.make()
  const { agent, text } = await inviting(homes, 'gps', '--code')
  const words = text.slice(4)
  const paired = await farport(
    ['pair', '--home', homes.clientHome, '--at', agent.addresses[0] ?? '', '--log-level', 'debug'],
    {
      input: text,
    },
  )
  assert.equal(paired.code, 0)
  assert.ok(!`${paired.stdout}${paired.stderr}`.includes(words))
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    let line = ''
    try {
      line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    } catch {
      continue
    }
    assert.ok(!line.includes(words), `on the command line of process ${pid}`)
  }
})

test('what is no ticket and no code is told so, and sends nobody anywhere', async () => {
  await using homes = await TwoHomes.make()
  for (const input of ['', 'hello', 'FARPORT1QQQQ', '734-lunar-otter']) {
    const refused = await pair(homes, input)
    assert.equal(refused.code, 2, input)
    assert.notEqual(refused.stderr, '')
  }
})
