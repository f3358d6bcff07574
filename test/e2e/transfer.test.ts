import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { test } from 'node:test'
import { linuxPort } from '../../src/device/linux-port.ts'
import { exchange, receive, send } from '../support/exchange.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'
import { TwoHomes } from '../support/two-homes.ts'

const MIB = 1024 * 1024
/** How long one device does not read. The long run is `FARPORT_STALL_MS=30000`. */
const STALL_MS = Number(process.env.FARPORT_STALL_MS ?? 2_000)
const main = new URL('../../src/cli/main.ts', import.meta.url).pathname

/** Memory of a process that is in RAM, in bytes. */
function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(match?.[1]) * 1024
}

const mib = (bytes: number) => `${Math.round(bytes / MIB)} MiB`

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0

test('8 MiB of every byte value both ways at once through a PTY', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=echo')
  await homes.share(`${device.slavePath}=echo`)
  await homes.connect('a/echo', '--pty', homes.path('link'))
  await using program = await linuxPort(homes.path('link')).open({})
  await exchange(program, device.master, 8 * MIB)
})

test('the same through a raw TCP port', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=echo')
  await homes.share(`${device.slavePath}=echo`)
  const client = await homes.connect('a/echo', '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  await exchange(socket, device.master, 8 * MIB)
  socket.destroy()
})

test('the same through standard input and output in a pipe', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=echo')
  await homes.share(`${device.slavePath}=echo`)
  const child = spawn(process.execPath, [main, 'connect', 'a/echo', '--stdio', '--home', homes.clientHome], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const [sentIn, sentOut, atDevice, out] = await Promise.all([
    send(child.stdin, 8 * MIB),
    send(device.master, 8 * MIB),
    receive(device.master, 8 * MIB),
    receive(child.stdout, 8 * MIB),
  ])
  assert.equal(atDevice, sentIn)
  assert.equal(out, sentOut)
  child.kill('SIGINT')
  assert.deepEqual(await once(child, 'close'), [130, null])
})

test('six channels on one connection; a device that does not read holds up nobody else', async (t) => {
  await using homes = await TwoHomes.make()
  const names = ['p1', 'p2', 'p3', 'p4', 'p5', 'p6']
  const devices = names.map(() => homes.use(ptyPair()))
  await homes.grant('ports=*')
  const agent = await homes.share(...devices.map(({ slavePath }, i) => `${slavePath}=${names[i]}`))
  const proxy = homes.use(await TcpProxy.to(Number(/tcp\/(\d+)/.exec(agent.addresses[0] ?? '')?.[1])))
  await homes.reach([`/ip4/127.0.0.1/tcp/${proxy.port}`])
  const client = await homes.connect(
    ...names.map((name) => `a/${name}`),
    ...names.flatMap((name) => ['--pty', homes.path(name)]),
  )
  const programs = await Promise.all(names.map((name) => linuxPort(homes.path(name)).open({})))
  const [stalled, ...others] = names.map((_, i) => ({ program: programs[i], device: devices[i] })) as [
    End,
    ...End[],
  ]
  interface End {
    program: (typeof programs)[number]
    device: (typeof devices)[number]
  }

  const round = () => Promise.all(others.map(({ program, device }) => exchange(program, device.master, MIB)))
  const timed = async () => {
    const start = performance.now()
    await round()
    return performance.now() - start
  }
  await round()
  const undisturbedMs = await timed()

  // One device does not read: its program is held up, and what is kept for it is bounded.
  const total = 16 * MIB
  let accepted = 0
  const sent = send(stalled.program, total, (bytes) => {
    accepted = bytes
  })
  const before = { agent: residentBytes(agent.pid), client: residentBytes(client.pid) }
  const roundsMs: number[] = []
  const end = performance.now() + STALL_MS
  const samples: string[] = []
  while (performance.now() < end) {
    roundsMs.push(await timed())
    samples.push(`${mib(residentBytes(agent.pid))}/${mib(residentBytes(client.pid))}`)
  }
  const after = { agent: residentBytes(agent.pid), client: residentBytes(client.pid) }
  t.diagnostic(`${accepted} bytes were taken for the device that does not read`)
  assert.ok(accepted < 2 * MIB, `${accepted} bytes were taken for a device that does not read`)
  t.diagnostic(
    `agent RSS ${mib(before.agent)} -> ${mib(after.agent)}, client RSS ${mib(before.client)} -> ${mib(after.client)}`,
  )
  t.diagnostic(`agent/client meanwhile: ${samples.join(' ')}`)
  t.diagnostic(
    `5 x 1 MiB both ways: ${Math.round(undisturbedMs)} ms before, median ${Math.round(median(roundsMs))} ms beside the stalled one (${roundsMs.length} rounds)`,
  )
  for (const side of ['agent', 'client'] as const)
    assert.ok(after[side] - before[side] < 160 * MIB, `${side}: ${mib(before[side])} -> ${mib(after[side])}`)
  assert.equal(proxy.connections, 1, 'all channels share one connection')

  assert.equal(await receive(stalled.device.master, total), await sent)
  for (const program of programs) await program[Symbol.asyncDispose]()
})

test('the connection is killed 20 times during a transfer: not a byte is lost, and the PTY never closes', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=echo')
  const agent = await homes.share(`${device.slavePath}=echo`)
  const proxy = homes.use(await TcpProxy.to(Number(/tcp\/(\d+)/.exec(agent.addresses[0] ?? '')?.[1])))
  await homes.reach([`/ip4/127.0.0.1/tcp/${proxy.port}`])
  await homes.connect('a/echo', '--pty', homes.path('link'))
  const slave = readlinkSync(homes.path('link'))
  await using program = await linuxPort(homes.path('link')).open({})
  let closed = false
  program.on('state', () => {
    closed = true
  })

  const total = 8 * MIB
  const cuts = 20
  let cut = 0
  const progress = (received: number) => {
    // The next cut comes when there is a connection again and so much more has arrived.
    if (cut < cuts && received > ((cut + 1) * total) / (cuts + 2) && proxy.cut() > 0) cut++
  }
  const [toDevice, toProgram, atDevice, atProgram] = await Promise.all([
    send(program, total),
    send(device.master, total),
    receive(device.master, total, progress),
    receive(program, total),
  ])
  assert.equal(atDevice, toDevice)
  assert.equal(atProgram, toProgram)
  assert.equal(cut, cuts)
  assert.ok(proxy.connections > cuts, `${proxy.connections} connections`)
  assert.equal(closed, false)
  assert.equal(readlinkSync(homes.path('link')), slave)
})
