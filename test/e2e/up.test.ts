import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

const LISTEN = 'listen: [/ip4/127.0.0.1/tcp/0]'

/** `farport up` of the agent's home with this configuration. */
async function up(homes: TwoHomes, ...lines: string[]) {
  await configure(homes, ...lines)
  const agent = homes.start(['up', '--home', homes.agentHome])
  const { addresses } = (await agent.event('ready')) as unknown as { addresses: string[] }
  await homes.reach(addresses)
  return agent
}

async function configure(homes: TwoHomes, ...lines: string[]): Promise<void> {
  await writeFile(join(homes.agentHome, 'farport.yaml'), [LISTEN, ...lines, ''].join('\n'))
}

interface Status {
  ports: { name: string; state: string; holder?: string }[]
  links: { port: string; state: string }[]
  peers: { name: string }[]
}

async function status(home: string): Promise<Status> {
  const { stdout, code } = await farport(['status', '--json', '--home', home])
  assert.equal(code, 0)
  return JSON.parse(stdout) as Status
}

/** A program's connection to an echoing port; what it says comes back. */
async function echoOf(port: number): Promise<(text: string) => Promise<string>> {
  const socket: Socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  return async (text) => {
    let back = ''
    socket.write(text)
    while (back.length < text.length) back += String((await once(socket, 'data'))[0])
    return back
  }
}

test('a new configuration leaves alone what it does not change', { timeout: 60_000 }, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  const agent = await up(homes, 'ports:', '  echo: simulated:echo', '  gps: simulated:gps')
  const client = await homes.connect('a/echo', '--raw', ':0')
  const say = await echoOf(Number(client.links[0]?.at.split(':')[1]))
  assert.equal(await say('before'), 'before')

  await configure(homes, 'ports:', '  echo: simulated:echo', '  new: simulated:gps')
  const { stdout, code } = await farport(['reload', '--json', '--home', homes.agentHome])
  assert.equal(code, 0)
  assert.deepEqual(JSON.parse(stdout), {
    ports: { added: 1, removed: 1, kept: 1 },
    links: { added: 0, removed: 0, kept: 0 },
    nextStart: [],
  })
  assert.equal(await say('after'), 'after')
  const now = await status(homes.agentHome)
  assert.deepEqual(
    now.ports.map(({ name, state, holder }) => [name, state, holder]),
    [
      ['echo', 'open', 'client'],
      ['new', 'ready', undefined],
    ],
  )
  assert.equal((await farport(['connect', 'a/gps', '--stdio', '--home', homes.clientHome])).code, 5)

  // A mistake changes nothing, whoever asked.
  await configure(homes, 'prots: {}')
  const wrong = await farport(['reload', '--home', homes.agentHome])
  assert.equal(wrong.code, 2)
  assert.match(wrong.stderr, /farport\.yaml:2:1: prots: there is no such key: ports is meant\?/)
  process.kill(agent.pid, 'SIGHUP')
  await agent.event('error', ({ code: why }) => why === 'ERR_USAGE')
  assert.equal(await say('still'), 'still')

  // What is gone is closed.
  await configure(homes, 'ports: {}')
  process.kill(agent.pid, 'SIGHUP')
  await agent.event('reloaded', ({ ports }) => (ports as { removed: number }).removed === 2)
  await client.event('link', ({ state }) => state === 'down')
})

test('links come and go with the configuration; one that can not be made is tried for', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const taken = homes.use(new AsyncDisposableStack())
  const { createServer } = await import('node:net')
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  taken.defer(() => void server.close())
  const { port } = server.address() as { port: number }
  const links = [`  - {port: b/gps, raw: ":${port}"}`, '  - {port: b/gps, raw: ":0"}']
  const agent = await up(homes, 'links:', ...links)
  const before = await status(homes.agentHome)
  assert.deepEqual(
    before.links.map(({ state }) => state),
    ['failed', 'idle'],
  )
  assert.equal((await farport(['status', '--quiet', '--home', homes.agentHome])).code, 1)

  const closed = once(server, 'close')
  server.close()
  await closed
  const deadline = AbortSignal.timeout(20_000)
  while ((await status(homes.agentHome)).links[0]?.state !== 'idle') deadline.throwIfAborted()
  await configure(homes, 'links:', ...links.slice(1))
  process.kill(agent.pid, 'SIGHUP')
  await agent.event('reloaded')
  const { promise: refused, resolve } = Promise.withResolvers<string | undefined>()
  connect(port, '127.0.0.1')
    .on('error', ({ code }: NodeJS.ErrnoException) => resolve(code))
    .on('connect', () => resolve('connected'))
  assert.equal(await refused, 'ECONNREFUSED')
})

test('systemd hears that it is ready, how it is, and that it ends', {
  timeout: 60_000,
  skip: process.platform !== 'linux',
}, async () => {
  await using homes = await TwoHomes.make()
  const name = homes.path('notify')
  const listener = spawn(
    'python3',
    [
      '-uc',
      'import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\nprint("bound")\nwhile True: print(s.recv(4096).decode())',
      name,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  using _listener = { [Symbol.dispose]: () => void listener.kill() }
  const lines = createInterface({ input: listener.stdout })[Symbol.asyncIterator]()
  const next = async () => (await lines.next()).value as string
  assert.equal(await next(), 'bound')

  await configure(homes, 'ports: {gps: "simulated:gps", usb: /dev/farport-not-there}')
  const main = new URL('../../src/cli/main.ts', import.meta.url).pathname
  const agent = spawn(process.execPath, [main, 'up', '--home', homes.agentHome], {
    env: { ...process.env, NOTIFY_SOCKET: name, WATCHDOG_USEC: '30000000' },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  assert.equal(await next(), 'READY=1')
  assert.equal(await next(), 'WATCHDOG=1')
  assert.equal(await next(), 'STATUS=2 ports (1 waiting for a device)')
  agent.kill('SIGTERM')
  assert.equal(await next(), 'STOPPING=1')
  assert.deepEqual(await once(agent, 'close'), [0, null])
})

test('what is wrong with the file is said before anything starts', { timeout: 60_000 }, async () => {
  await using homes = await TwoHomes.make()
  const none = await farport(['up', '--home', homes.agentHome])
  assert.equal(none.code, 2)
  assert.match(none.stderr, /there is no .*farport\.yaml: write one/)
  await configure(homes, 'ports: {gps: 3}')
  for (const command of [['up'], ['config', 'check']]) {
    const wrong = await farport([...command, '--home', homes.agentHome])
    assert.equal(wrong.code, 2)
    assert.match(wrong.stderr, /farport\.yaml:2:9: ports\.gps: /)
  }
  await configure(homes, 'ports: {gps: "simulated:gps"}')
  const fine = await farport(['config', 'check', '--home', homes.agentHome])
  assert.match(fine.stdout, /is fine: 1 ports to share/)
})

test('nothing runs: status and reload say so', { timeout: 60_000 }, async () => {
  await using homes = await TwoHomes.make()
  for (const command of ['status', 'reload'])
    assert.match((await farport([command, '--home', homes.agentHome])).stderr, /no farport runs for/)
})

test('connect, ports and ping are done by the farport that runs', { timeout: 60_000 }, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  const agent = await homes.share('simulated:echo=echo')
  await writeFile(join(homes.clientHome, 'farport.yaml'), '')
  await homes.start(['up', '--home', homes.clientHome]).event('ready')
  const home = ['--home', homes.clientHome]

  const client = await homes.connect('a/echo', '--raw', ':0')
  const say = await echoOf(Number(client.links[0]?.at.split(':')[1]))
  assert.equal(await say('through it'), 'through it')
  const { links } = await status(homes.clientHome)
  assert.deepEqual(
    links.map(({ port, state }) => [port, state]),
    [['a/echo', 'up']],
  )
  const ports = JSON.parse((await farport(['ports', 'a', '--json', ...home])).stdout)
  assert.deepEqual(ports.ports[0].holder, { you: true, name: 'client' })
  assert.equal((await farport(['ping', 'a', '--count', '2', ...home])).code, 0)
  // One node, so one connection: the agent has seen no other.
  const seen = await status(homes.agentHome)
  assert.equal(seen.peers.length, 1)

  // Refusals come back as they would have, and the links end with who asked for them.
  assert.equal((await farport(['connect', 'a/nothing', '--raw', ':0', ...home])).code, 5)
  process.kill(client.pid, 'SIGTERM')
  assert.equal(await client.ended, 0)
  const deadline = AbortSignal.timeout(10_000)
  while ((await status(homes.clientHome)).links.length > 0) deadline.throwIfAborted()

  // Nobody is called any more when it is gone.
  await agent[Symbol.asyncDispose]()
  assert.equal((await farport(['ping', 'a', '--count', '1', ...home])).code, 6)
})
