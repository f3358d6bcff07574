import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** Every way to be turned away has its own sentence and its own exit code. */

async function connectFails(homes: TwoHomes, target: string, code: number, sentence: RegExp): Promise<void> {
  const ended = await farport(['connect', target, '--home', homes.clientHome, '--pty', homes.path('link')])
  assert.match(ended.stderr, sentence)
  assert.equal(ended.code, code)
  assert.equal(ended.stdout, '')
}

test('a peer that the agent does not know is refused', async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('')
  await homes.share('simulated:echo=echo')
  await connectFails(homes, 'a/echo', 3, /does not know this machine's key/)
})

test('a peer that we do not know is never called', async () => {
  await using homes = await TwoHomes.make()
  await connectFails(homes, 'nobody/echo', 3, /no peer is called nobody .*trusted_peers/)
})

test('a peer without the grant, and a port that does not exist', async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=gps,no-such')
  await homes.share('simulated:echo=echo', 'simulated:gps=gps')
  await connectFails(homes, 'a/echo', 3, /may not use echo/)
  // Without a right to the name it makes no difference whether the port exists.
  await connectFails(homes, 'a/other', 3, /may not use other/)
  await connectFails(homes, 'a/no-such', 5, /no port called no-such/)
})

test('a device that is missing, and one that another program holds', async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  await homes.share(`${homes.path('not-plugged-in')}=gone`, 'simulated:echo=echo')
  await connectFails(homes, 'a/gone', 5, /no device .*not-plugged-in/)
  const holder = await homes.connect('a/echo', '--raw', '127.0.0.1:0')
  const [, port] = (holder.links[0]?.at ?? '').split(':')
  const socket = (await import('node:net')).connect(Number(port), '127.0.0.1')
  socket.write('x')
  await once(socket, 'data')
  await connectFails(homes, 'a/echo', 4, /in use/)
  socket.destroy()
})

test('a peer that is not there', async () => {
  await using homes = await TwoHomes.make()
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await homes.reach([`/ip4/127.0.0.1/tcp/${port}`])
  await connectFails(homes, 'a/echo', 6, new RegExp(`${port}.*refused|refused.*${port}`))
})

test('a home that others can write, and one that is a file', async () => {
  await using homes = await TwoHomes.make()
  await chmod(homes.clientHome, 0o777)
  await connectFails(homes, 'a/echo', 1, /chmod/)
  await writeFile(homes.path('file'), '')
  const ended = await farport(['id', '--home', homes.path('file')])
  assert.equal(ended.code, 1)
  assert.match(ended.stderr, /not a directory|--home/)
})

test('an address that is taken: to listen on, and for a local port', async () => {
  await using homes = await TwoHomes.make()
  const server = createServer().listen(0, '127.0.0.1')
  homes.use(server)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const shared = await farport([
    'share',
    'simulated:echo',
    '--home',
    homes.agentHome,
    '--listen',
    `/ip4/127.0.0.1/tcp/${port}`,
  ])
  assert.equal(shared.code, 1)
  assert.match(shared.stderr, new RegExp(`${port} is (taken|in use)`))

  await homes.grant('ports=*')
  await homes.share('simulated:echo=echo')
  const local = await farport(['connect', 'a/echo', '--home', homes.clientHome, '--raw', `127.0.0.1:${port}`])
  assert.equal(local.code, 1)
  assert.match(local.stderr, new RegExp(`127.0.0.1:${port} is taken`))
})

test('a path for the PTY that is already something else is left alone', async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  await homes.share('simulated:echo=echo')
  await mkdir(homes.path('link'))
  await connectFails(homes, 'a/echo', 1, /link/)
})

test('mistakes on the command line', async () => {
  for (const [args, sentence] of [
    [['connect', 'a/echo'], /say where/],
    [['connect', 'a', '--stdio'], /not PEER\/PORT/],
    [['connect', 'a/b', 'a/c', '--pty', '/tmp/x'], /2 PEER\/PORT but 1/],
    [['connect', 'a/b', '--raw', '127.0.0.1'], /not HOST:PORT/],
    [['connect', 'a/b', '--stdio', '--resume', 'x'], /Seconds/],
    [['share', '/dev/null=a b'], /can't be a port's name/],
    [['share', 'simulated:gps', 'x=gps'], /two ports would be called gps/],
    [['share', 'simulated:toaster'], /simulated/],
    [['share'], /missing required argument/],
    [['fly'], /unknown command/],
  ] as [string[], RegExp][]) {
    await using homes = await TwoHomes.make()
    const ended = await farport([...args, ...(args.length > 1 ? ['--home', homes.clientHome] : [])])
    assert.match(ended.stderr, sentence, args.join(' '))
    assert.equal(ended.code, 2, args.join(' '))
  }
})
