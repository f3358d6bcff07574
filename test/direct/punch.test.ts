import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { connectFrom, FreshPort, rendezvous } from '../../src/direct/punch.ts'
import { FarportError } from '../../src/errors.ts'
import { freePort, SilentServer } from '../overlay/network.ts'
import { deadline, until } from '../overlay/nodes.ts'
import { StunServers } from '../overlay/stun-servers.ts'

const LOOPBACK = '127.0.0.1'

test('who calls whom, by whose mapping varies', () => {
  assert.equal(rendezvous(false, false), 'open')
  assert.deepEqual([rendezvous(true, false), rendezvous(false, true)], ['call', 'wait'])
  assert.equal(rendezvous(true, true), 'none')
})

test('a fresh port is what both servers see, and is held while it is used', async () => {
  await using servers = await StunServers.start()
  {
    await using port = await FreshPort.open(servers.addresses, deadline())
    const seen = new Set([...servers.sockets].map(({ remotePort }) => remotePort))
    assert.deepEqual([...seen], [port.mapped.port])
    assert.equal(port.varies, false)
    assert.equal(servers.sockets.size, 2)
  }
  await until(() => servers.sockets.size === 0)
})

test('a NAT that makes another port for each destination is noticed', async () => {
  await using servers = await StunServers.start((port, server) => (server === 0 ? port : port ^ 1))
  await using port = await FreshPort.open(servers.addresses, deadline())
  assert.equal(port.varies, true)
})

test('one server that answers is enough', async () => {
  await using servers = await StunServers.start()
  const nobody = { host: LOOPBACK, port: await freePort() }
  for (const list of [
    [nobody, ...servers.addresses],
    [...servers.addresses.slice(0, 1), nobody],
  ]) {
    await using port = await FreshPort.open(list, deadline())
    assert.equal(port.varies, false)
  }
})

test('a silent server is not waited for when two others have answered', async () => {
  await using servers = await StunServers.start()
  await using silent = await SilentServer.start()
  const [, port] = /\/tcp\/(\d+)/.exec(silent.address) ?? []
  const startedMs = performance.now()
  await using _ = await FreshPort.open(
    [{ host: LOOPBACK, port: Number(port) }, ...servers.addresses],
    deadline(),
  )
  // Its own timeout is 3 s.
  assert.ok(performance.now() - startedMs < 2_500)
})

test('without a server there is no port', async () => {
  const nobody = { host: LOOPBACK, port: await freePort() }
  for (const list of [[], [nobody, nobody]])
    await assert.rejects(
      FreshPort.open(list, deadline()),
      (error) => error instanceof FarportError && error.code === 'ERR_PEER_UNREACHABLE',
    )
})

test('giving up while a server is silent closes everything', async () => {
  const server = createServer().listen(0, LOOPBACK)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const giveUp = new AbortController()
  const opening = FreshPort.open([{ host: LOOPBACK, port }], giveUp.signal)
  const [socket] = (await once(server, 'connection', { signal: deadline() })) as [Socket]
  socket.on('error', () => {}).resume()
  const reason = new Error('enough')
  giveUp.abort(reason)
  await assert.rejects(opening, (error) => error === reason)
  await until(() => socket.destroyed)
  server.close()
})

test('it connects from its port, as often as it takes', async () => {
  await using servers = await StunServers.start()
  await using port = await FreshPort.open(servers.addresses, deadline())
  const theirs = await freePort()
  const connecting = port.connect({ address: LOOPBACK, port: theirs }, deadline())
  // Refused for a while: nobody is there before the second attempt, at the earliest.
  await new Promise((resolve) => setImmediate(resolve))
  const server = createServer().listen(theirs, LOOPBACK)
  const [accepted] = (await once(server, 'connection', { signal: deadline() })) as [Socket]
  const socket = await connecting
  assert.equal(accepted.remotePort, port.mapped.port)
  socket.destroy()
  accepted.destroy()
  server.close()
})

test('giving up ends the attempts', async () => {
  const giveUp = new AbortController()
  const reason = new Error('enough')
  const connecting = connectFrom(
    await freePort(),
    { address: LOOPBACK, port: await freePort() },
    giveUp.signal,
  )
  giveUp.abort(reason)
  await assert.rejects(connecting, (error) => error === reason)
})

test('what can not get better is not tried again', async () => {
  const taken = createServer().listen(0, LOOPBACK)
  await once(taken, 'listening')
  const { port } = taken.address() as { port: number }
  await assert.rejects(
    connectFrom(port, { address: LOOPBACK, port: await freePort() }, deadline()),
    (error) => (error as NodeJS.ErrnoException).code === 'EADDRINUSE',
  )
  taken.close()
})

test('it waits at its port for the peer', async () => {
  await using servers = await StunServers.start()
  await using port = await FreshPort.open(servers.addresses, deadline())
  const { accepted } = await port.listen({ address: LOOPBACK, port: await freePort() }, deadline())
  const caller = connect(port.mapped.port, LOOPBACK)
  const socket = await accepted
  caller.write('hello')
  assert.equal(String((await once(socket, 'data', { signal: deadline() }))[0]), 'hello')
  caller.destroy()
  socket.destroy()
})

test('others that call there are sent away, and the wait has an end', async () => {
  await using servers = await StunServers.start()
  await using port = await FreshPort.open(servers.addresses, deadline())
  const giveUp = new AbortController()
  const { accepted } = await port.listen({ address: '127.0.0.2', port: 9 }, giveUp.signal)
  const stranger = connect(port.mapped.port, LOOPBACK)
  await assert.rejects(once(stranger, 'end', { signal: deadline() }), { code: 'ECONNRESET' })
  const reason = new Error('enough')
  giveUp.abort(reason)
  await assert.rejects(accepted, (error) => error === reason)
  // Whatever listened is gone.
  await assert.rejects(once(connect(port.mapped.port, LOOPBACK), 'connect'), { code: 'ECONNREFUSED' })
})

const asRoot = process.getuid?.() === 0
const NAMESPACE = ['unshare', asRoot ? '-n' : '-rn'] as const
const DROP_RESETS = 'table inet t { chain out { type filter hook output priority 0; tcp flags rst drop; }; }'
const noNamespace =
  spawnSync(NAMESPACE[0], [NAMESPACE[1], 'nft', '-c', DROP_RESETS]).status === 0
    ? false
    : 'needs network namespaces and nft'

test('two that call each other are connected: simultaneous open', { skip: noNamespace }, async () => {
  const script = new URL('simultaneous-open.ts', import.meta.url).pathname
  const { stdout } = await promisify(execFile)(
    NAMESPACE[0],
    [
      NAMESPACE[1],
      'sh',
      '-ec',
      'ip link set lo up; nft "$1"; exec "$2" "$3"',
      'sh',
      DROP_RESETS,
      process.execPath,
      script,
    ],
    { signal: deadline(20_000) },
  )
  const { heard, ports, expected } = JSON.parse(stdout)
  const [a, b] = expected
  assert.deepEqual(ports, [
    [a, b],
    [b, a],
  ])
  assert.deepEqual(heard, ['from 1', 'from 0'])
})
