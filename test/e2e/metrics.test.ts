import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { parseExposition } from '../support/exposition.ts'
import { TwoHomes } from '../support/two-homes.ts'

interface Status {
  version: string
  ports: { name: string; path?: string; toDevice: number; fromDevice: number }[]
  links: { state: string; toDevice: number; fromDevice: number; at: string }[]
  metrics?: { at: string; reason?: string }
}

/** `farport up` in one of the homes, with a configuration that can be changed. */
async function up(homes: TwoHomes, home: string, ...lines: string[]) {
  const configure = async (...changed: string[]) =>
    await writeFile(join(home, 'farport.yaml'), [...changed, ''].join('\n'))
  await configure(...lines)
  const { addresses } = (await homes.start(['up', '--home', home]).event('ready')) as unknown as {
    addresses: string[]
  }
  return {
    addresses,
    async status(): Promise<Status> {
      const { stdout, code } = await farport(['status', '--json', '--home', home])
      assert.equal(code, 0)
      return JSON.parse(stdout) as Status
    },
    async text(): Promise<string> {
      return (await farport(['status', '--home', home])).stdout
    },
    async reload(...changed: string[]): Promise<void> {
      await configure(...changed)
      assert.equal((await farport(['reload', '--home', home])).code, 0)
    },
  }
}

async function scrape(at: string | undefined) {
  const response = await fetch(at ?? '')
  assert.equal(response.status, 200)
  const families = parseExposition(await response.text())
  return (name: string, labels: string) => families.get(name)?.samples.get(labels)
}

const METRICS = 'metrics: "127.0.0.1:0"'
const LISTEN = 'listen: [/ip4/127.0.0.1/tcp/0]'
const PORTS = ['ports:', '  echo: simulated:echo']

test('the bytes that went are the bytes that are told, on both sides', { timeout: 60_000 }, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  const agent = await up(homes, homes.agentHome, LISTEN, METRICS, ...PORTS)
  await homes.reach(agent.addresses)
  const links = ['links:', '  - {port: a/echo, raw: ":0"}']
  const client = await up(homes, homes.clientHome, METRICS, ...links)
  const [link] = (await client.status()).links
  const place = `link="a/echo",at="${link?.at}"`

  const sent = 100_000
  const socket = connect(Number(link?.at.split(':')[1]), '127.0.0.1')
  let back = 0
  // Every byte needs no escape but 0xff, which RFC 2217 doubles on its way: what is told is what programs see.
  socket.write(Buffer.alloc(sent, 0xff))
  while (back < sent) back += ((await once(socket, 'data')) as [Buffer])[0].length

  const { metrics, ports, version } = await agent.status()
  assert.equal(version, (await farport(['--version'])).stdout.trim())
  assert.deepEqual(
    ports.map(({ toDevice, fromDevice, path }) => [toDevice, fromDevice, path]),
    [[sent, sent, 'direct']],
  )
  const agentSays = await scrape(metrics?.at)
  const port = 'port="echo"'
  assert.equal(agentSays('farport_port_bytes_total', `${port},direction="to_device"`), sent)
  assert.equal(agentSays('farport_port_bytes_total', `${port},direction="from_device"`), sent)
  assert.equal(agentSays('farport_port_state', `${port},state="open"`), 1)
  assert.equal(agentSays('farport_port_holders', port), 1)
  assert.equal(agentSays('farport_port_opens_total', port), 1)
  assert.equal(agentSays('farport_port_sessions_total', `${port},mode="use"`), 1)
  assert.equal(agentSays('farport_peer_connected', 'peer="client",path="direct"'), 1)

  const before = await client.status()
  assert.deepEqual(
    before.links.map(({ state, toDevice, fromDevice }) => [state, toDevice, fromDevice]),
    [['up', sent, sent]],
  )
  const clientSays = await scrape(before.metrics?.at)
  assert.equal(clientSays('farport_link_bytes_total', `${place},direction="to_device"`), sent)
  assert.equal(clientSays('farport_link_bytes_total', `${place},direction="from_device"`), sent)
  assert.equal(clientSays('farport_link_state', `${place},state="up"`), 1)
  assert.equal(clientSays('farport_peer_connected', 'peer="a",path="direct"'), 1)
  assert.match(await client.text(), /a\/echo +up +direct.* 98 KiB +98 KiB +127\.0\.0\.1:/)
  assert.match(await agent.text(), /echo +open +client +direct.* 98 KiB +98 KiB +simulated:echo/)

  // When the program has gone nobody holds the port, and what went has gone.
  socket.end()
  const deadline = AbortSignal.timeout(10_000)
  while ((await client.status()).links[0]?.state !== 'idle') deadline.throwIfAborted()
  const after = await scrape(before.metrics?.at)
  assert.equal(after('farport_link_state', `${place},state="idle"`), 1)
  assert.equal(after('farport_link_bytes_total', `${place},direction="to_device"`), sent)
  while ((await scrape(metrics?.at))('farport_port_holders', port) !== 0) deadline.throwIfAborted()
})

test('a reload begins, moves and ends it; a port that is taken ends nothing', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const agent = await up(homes, homes.agentHome, LISTEN, ...PORTS)
  assert.equal((await agent.status()).metrics, undefined)

  await agent.reload(LISTEN, METRICS, ...PORTS)
  const first = (await agent.status()).metrics?.at
  assert.equal((await scrape(first))('farport_port_state', 'port="echo",state="ready"'), 1)

  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  await agent.reload(LISTEN, `metrics: 127.0.0.1:${port}`, ...PORTS)
  await assert.rejects(fetch(first ?? ''))
  const at = `http://127.0.0.1:${port}/metrics`
  const reason = `127.0.0.1:${port} is taken by another program`
  assert.deepEqual((await agent.status()).metrics, { at, reason })
  assert.ok((await agent.text()).includes(`not there: ${reason}`))
  const closed = once(other, 'close')
  other.close()
  await closed
  const deadline = AbortSignal.timeout(20_000)
  while ((await agent.status()).metrics?.reason !== undefined) deadline.throwIfAborted()
  assert.equal((await scrape(at))('farport_port_state', 'port="echo",state="ready"'), 1)

  await agent.reload(LISTEN, ...PORTS)
  await assert.rejects(fetch(at))
})
