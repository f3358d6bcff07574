import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { startFarport } from '../../src/cli/child.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { farport } from '../support/cli.ts'
import { freePort } from '../support/free-port.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** An agent that listens nowhere, a client, and a relay between them, all on the loopback address. */
class Site implements AsyncDisposable {
  readonly homes: TwoHomes
  readonly relayHome: string
  /** The relay's, with its PeerID. */
  readonly address: string
  #relay: ReturnType<TwoHomes['start']>
  readonly #port: number

  private constructor(homes: TwoHomes, port: number, relay: ReturnType<TwoHomes['start']>, address: string) {
    this.homes = homes
    this.relayHome = homes.path('R')
    this.#port = port
    this.#relay = relay
    this.address = address
  }

  static async make(): Promise<Site> {
    const homes = await TwoHomes.make()
    const port = await freePort()
    const relay = startRelay(homes, port)
    const { addresses } = (await relay.event('ready')) as unknown as { addresses: [string] }
    return new Site(homes, port, relay, addresses[0])
  }

  /** The relay's owner lets the agent use it. */
  async employ(line = `agent ${this.homes.agentId} may=relay`): Promise<void> {
    await writeFile(join(this.relayHome, 'trusted_peers'), `${line}\n`, { mode: 0o600 })
  }

  async share(): Promise<ReturnType<TwoHomes['start']>> {
    const { homes, address } = this
    const args = ['share', 'simulated:gps?hz=10=gps', 'simulated:echo=echo', '--listen', 'none']
    const agent = homes.start([...args, '--relay', address, '--home', homes.agentHome])
    await agent.event('relay', ({ state }) => state === 'reserved')
    return agent
  }

  /** What the client calls the agent, and where it looks for it. */
  async introduce(): Promise<void> {
    const line = `a ${this.homes.agentId} addr=${this.address}/p2p-circuit\n`
    await writeFile(join(this.homes.clientHome, 'trusted_peers'), line, { mode: 0o600 })
  }

  invite(...args: string[]) {
    return this.homes.start(['invite', ...args, '--home', this.homes.agentHome])
  }

  client(...args: string[]) {
    return farport([...args, '--home', this.homes.clientHome, '--json'])
  }

  pair(input: string, ...args: string[]) {
    return farport(['pair', '--home', this.homes.clientHome, ...args], { input })
  }

  async kill(): Promise<void> {
    process.kill(this.#relay.pid, 'SIGKILL')
    await this.#relay.ended
  }

  async restart(): Promise<void> {
    this.#relay = startRelay(this.homes, this.#port)
    await this.#relay.event('ready')
  }

  async audit(): Promise<Record<string, unknown>[]> {
    const text = await readFile(join(this.relayHome, 'audit.log'), 'utf8').catch(() => '')
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.homes[Symbol.asyncDispose]()
  }
}

function startRelay(homes: TwoHomes, port: number) {
  const listen = ['--listen', `/ip4/127.0.0.1/tcp/${port}`, '--no-stun']
  return homes.start(['relay', ...listen, '--home', homes.path('R')])
}

async function until(what: string, is: () => Promise<boolean>, withinMs = 10_000): Promise<void> {
  const deadline = Date.now() + withinMs
  while (!(await is())) {
    assert.ok(Date.now() < deadline, `${what}: not within ${withinMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}

/** Whether a program sees NMEA through `farport connect`, and over what. */
async function bytesFlow(site: Site, target: string): Promise<void> {
  const client = await site.homes.connect(target, '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  const [line] = (await once(createInterface({ input: socket }), 'line')) as [string]
  assert.match(line, /\$GP/)
  const { kind, address } = (await client.event('path')) as unknown as { kind: string; address: string }
  assert.equal(kind, 'relayed')
  assert.match(address, /p2p-circuit/)
  socket.destroy()
}

test('an agent that listens nowhere: a ticket, and bytes flow through the relay', async () => {
  await using site = await Site.make()
  await site.employ()
  await site.share()
  const invite = site.invite('gps')
  const { text } = (await invite.event('invite')) as unknown as { text: string }
  const paired = await site.pair(text)
  assert.equal(paired.stderr, '')
  const [, name] = /Next: farport connect ([^ ]+)\/gps --pty/.exec(paired.stdout) ?? []
  assert.equal(await invite.ended, 0)
  const trusted = await readFile(join(site.homes.clientHome, 'trusted_peers'), 'utf8')
  assert.ok(trusted.includes(`addr=${site.address}/p2p-circuit`), trusted)
  await bytesFlow(site, `${name}/gps`)
})

test('a code, found by the relay', async () => {
  await using site = await Site.make()
  await site.employ()
  await site.share()
  const invite = site.invite('gps', '--code')
  const { text } = (await invite.event('invite')) as unknown as { text: string }
  const paired = await site.pair(text, '--relay', site.address)
  assert.equal(paired.stderr, '')
  assert.equal(paired.code, 0)
  const [, name] = /Next: farport connect ([^ ]+)\/gps --pty/.exec(paired.stdout) ?? []
  await bytesFlow(site, `${name}/gps`)
})

test('the relay comes to trust the agent by an invite, and is called by its name from then on', async () => {
  await using site = await Site.make()
  const { homes } = site
  const invite = homes.start(['invite', '--may', 'relay', '--home', site.relayHome])
  const { text } = (await invite.event('invite')) as unknown as { text: string }
  const paired = await farport(['pair', '--home', homes.agentHome], { input: text })
  assert.match(paired.stdout, /our relay/)
  const [, name] = /Next: farport share DEVICE --relay (\S+)/.exec(paired.stdout) ?? []
  const agent = homes.start([
    'share',
    'simulated:echo=echo',
    '--listen',
    'none',
    '--relay',
    name ?? '',
    '--home',
    homes.agentHome,
  ])
  await agent.event('relay', ({ state, relay }) => state === 'reserved' && relay === name)
})

test('a stranger gets nothing: no reservation, no call, no directory', async () => {
  await using site = await Site.make()
  await site.employ()
  await site.share()
  await site.introduce()
  const ports = await site.client('ports', 'a')
  assert.notEqual(ports.code, 0)
  const refused = async (peerId: string) =>
    (await site.audit()).some(({ event, peer }) => event === 'refuse' && peer === peerId)
  assert.ok(await refused(site.homes.clientId))

  // No invite is open, so that the relay lets in nobody who could ask for one.
  const { peerId } = await loadIdentity(site.homes.path('J'), { create: true })
  const joiner = ['pair', '--relay', site.address, '--home', site.homes.path('J'), '--json']
  site.homes.use(startFarport(joiner, { input: '734-lunar-maple-copper' }))
  await until('the relay refuses to look it up', () => refused(peerId))

  const squatter = site.homes.start([
    'share',
    'simulated:echo=echo',
    '--listen',
    'none',
    '--relay',
    site.address,
    '--home',
    site.homes.clientHome,
  ])
  const { reason } = await squatter.event('relay', ({ reason: why }) => why !== undefined)
  assert.match(String(reason), /does not know this machine's key/)
})

test('while a door is open, a stranger may pair through the relay, and nothing else', async () => {
  await using site = await Site.make()
  await site.employ()
  await site.share()
  await site.introduce()
  await site.invite('gps').event('invite')
  const ended = await site.client('ports', 'a')
  assert.notEqual(ended.code, 0)
  assert.doesNotMatch(ended.stdout, /"gps"/)
})

test('whom the agent trusts no longer, its relay cuts within a second', async () => {
  await using site = await Site.make()
  const { homes } = site
  await site.employ()
  await homes.grant('ports=*')
  await site.share()
  await site.introduce()
  const client = await homes.connect('a/echo', '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  socket.write('x')
  await once(socket, 'data')

  const since = Date.now()
  await homes.grant('')
  await client.event('link', ({ state }) => state === 'down')
  const refusedAtRelay = async () =>
    (await site.audit()).some(
      ({ event, peer, reason }) =>
        event === 'refuse' && peer === homes.clientId && /trusted_peers/.test(String(reason)),
    )
  await until('the relay turns the client away', refusedAtRelay)
  assert.ok(Date.now() - since < 2_000, `${Date.now() - since} ms`)
  socket.destroy()
})

test('an agent that the relay trusts no longer is cut, and comes back when it is again', async () => {
  await using site = await Site.make()
  await site.employ()
  await site.homes.grant('ports=*')
  const agent = await site.share()
  await site.introduce()
  assert.equal((await site.client('ports', 'a')).code, 0)
  const since = Date.now()
  await site.employ('')
  await agent.event('relay', ({ state }) => state !== 'reserved' && state !== 'connecting')
  assert.ok(Date.now() - since < 1_500, `${Date.now() - since} ms`)
  assert.notEqual((await site.client('ports', 'a')).code, 0)
})

test('a relay that is killed and comes back serves again within ten seconds, to a link that waited', async () => {
  await using site = await Site.make()
  await site.employ()
  await site.homes.grant('ports=*')
  await site.share()
  await site.introduce()
  const client = await site.homes.connect('a/gps', '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  await once(socket, 'data')
  await site.kill()
  await client.event('link', ({ state }) => state === 'down')
  await site.restart()
  const since = Date.now()
  await client.event('link', ({ state }) => state === 'up')
  await once(socket, 'data')
  assert.ok(Date.now() - since < 10_000, `${Date.now() - since} ms`)
  socket.destroy()
})

test('a STUN port that is taken is told', async () => {
  await using site = await Site.make()
  const taken = createServer().listen(0, '0.0.0.0')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  const listen = ['--listen', '/ip4/127.0.0.1/tcp/0']
  const ended = await farport([
    'relay',
    ...listen,
    '--stun',
    `${port},${port + 1}`,
    '--home',
    site.homes.path('S'),
  ])
  taken.close()
  assert.equal(ended.code, 1)
  assert.match(ended.stderr, new RegExp(`STUN.*${port}`))
})
