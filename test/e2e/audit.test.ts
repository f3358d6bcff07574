import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { linuxPort } from '../../src/device/linux-port.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

type Line = Record<string, unknown>

function linesOf(file: string): Line[] {
  if (!existsSync(file)) return []
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

/** The first line that fits, once it is there. */
async function lineOf(
  file: string,
  event: string,
  fits: (line: Line) => boolean = () => true,
): Promise<Line> {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; await delay(20)) {
    const found = linesOf(file).find((line) => line.event === event && fits(line))
    if (found !== undefined) return found
  }
  assert.fail(`no ${event} in ${JSON.stringify(linesOf(file))}`)
}

test('the machine that shares has it in writing: who came, what was done to the port, who was sent away', async () => {
  await using homes = await TwoHomes.make()
  const file = join(homes.agentHome, 'audit.log')
  const agent = await homes.share('simulated:echo=echo', 'simulated:gps=gps')
  await homes.forget()
  const invite = homes.start(['invite', 'echo', '--code', '--home', homes.agentHome])
  const { text: code } = (await invite.event('invite')) as unknown as { text: string }
  const at = ['--at', agent.addresses[0] ?? '', '--home', homes.clientHome]
  const paired = await farport(['pair', ...at], { input: code })
  assert.equal(paired.code, 0, paired.stderr)
  const [, name] = /Next: farport connect ([^ ]+)\/echo/.exec(paired.stdout) ?? []

  const { time, name: clientName, ...pair } = await lineOf(file, 'pair')
  assert.ok(Math.abs(Date.parse(String(time)) - Date.now()) < 60_000)
  assert.match(String(clientName), /^[\w.-]+$/)
  assert.deepEqual(pair, {
    event: 'pair',
    peer: homes.clientId,
    ports: ['echo'],
    may: ['watch', 'use', 'configure', 'lines'],
    by: 'code',
  })

  const client = await homes.connect(`${name}/echo`, '--pty', homes.path('link'))
  const program = await linuxPort(homes.path('link')).open({})
  const said = 'open the valve'
  program.write(said)
  let heard = ''
  while (heard.length < said.length) heard += String((await once(program, 'data'))[0])
  await program.configure({ baudRate: 115_200 })
  const about = { peer: homes.clientId, name: clientName, port: 'echo' }
  const configured = await lineOf(file, 'configure', ({ to }) => to === '115200 8N1')
  assert.deepEqual(configured, {
    ...about,
    time: configured.time,
    event: 'configure',
    from: '9600 8N1',
    to: '115200 8N1',
    changes: configured.changes,
  })
  await program[Symbol.asyncDispose]()

  const opened = await lineOf(file, 'open')
  assert.deepEqual(
    { ...opened, time: 0, address: 0 },
    { time: 0, event: 'open', ...about, path: 'direct', address: 0 },
  )
  assert.match(String(opened.address), /^\/ip4\/127\.0\.0\.1\/tcp\/\d+$/)
  const closed = await lineOf(file, 'close')
  assert.deepEqual(
    [closed.peer, closed.port, closed.toDevice, closed.fromDevice, closed.reason],
    [homes.clientId, 'echo', said.length, said.length, 'the peer closed it'],
  )
  assert.ok(Number(closed.durationMs) > 0)

  assert.equal((await farport(['connect', `${name}/gps`, '--stdio', '--home', homes.clientHome])).code, 3)
  await lineOf(file, 'refuse', ({ reason }) => /may not use gps/.test(String(reason)))
  const second = homes.start(['invite', 'gps', '--code', '--home', homes.agentHome])
  const { text: unused } = (await second.event('invite')) as unknown as { text: string }
  assert.equal((await farport(['pair', ...at], { input: `${unused.slice(0, 4)}zoo-zoo-zoo` })).code, 3)
  const guess = await lineOf(file, 'refuse', ({ reason }) => /pairing failed/.test(String(reason)))
  assert.deepEqual([guess.peer, guess.address], [homes.clientId, '127.0.0.1'])
  await second[Symbol.asyncDispose]()

  writeFileSync(join(homes.agentHome, 'trusted_peers'), '')
  const { name: lost, peer } = await lineOf(file, 'revoke')
  assert.deepEqual([peer, lost], [homes.clientId, clientName])
  await client[Symbol.asyncDispose]()
  assert.equal((await farport(['ports', String(name), '--home', homes.clientHome])).code, 3)
  await lineOf(file, 'refuse', ({ reason }) => /not in trusted_peers/.test(String(reason)))

  assert.equal(statSync(file).mode & 0o777, 0o600)
  const written = readFileSync(file, 'latin1')
  const { seed } = await loadIdentity(homes.agentHome, { create: false })
  const key = Buffer.from(seed)
  const words = [code, unused].map((invited) => invited.slice(4))
  for (const secret of [...words, said, key.toString('hex'), key.toString('base64'), key.toString('latin1')])
    assert.ok(!written.includes(secret), `audit.log holds ${secret}`)
  assert.ok(!existsSync(join(homes.clientHome, 'audit.log')), 'who shares nothing keeps no account')
})
