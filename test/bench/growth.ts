import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { appendFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { loadIdentity } from '../../src/trust/identity.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { type GrowthPoint, keep } from './report.ts'
import { cpuMs, measure, Rig } from './rig.ts'

/**
 * What an agent and a relay cost as they have more to do: ports of one agent, peers of one agent, agents of one relay. Each
 * step has processes of its own, so that what one leaves behind is not counted for the next.
 */
const { values: flags } = parseArgs({
  options: {
    /** Only these: ports, peers, agents. */
    only: { type: 'string', multiple: true, default: [] },
    seconds: { type: 'string', default: '15' },
    docs: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})
const SERIES = {
  ports: { steps: [1, 4, 16, 64, 256], at: atPorts },
  peers: { steps: [1, 10, 30, 100], at: atPeers },
  agents: { steps: [100, 500, 1000, 2000], at: atAgents },
}
const seconds = Number(flags.seconds)
/** One sentence group of a GPS receiver. */
const BURST_BYTES = 480

const measured = new Map<string, GrowthPoint[]>()
for (const [name, { steps, at }] of Object.entries(SERIES)) {
  if (flags.only.length > 0 && !flags.only.includes(name)) continue
  const points: GrowthPoint[] = []
  for (const count of steps)
    try {
      const point = await at(count)
      points.push(point)
      process.stderr.write(`${name} ${JSON.stringify(point)}\n`)
    } catch (error) {
      // What can't be had at this size says where the curve ends.
      process.stderr.write(`${name} ${count}: ${(error as Error).message}\n`)
      break
    }
  measured.set(name, points)
}
const growth = Object.fromEntries(measured)
if (flags.json) process.stdout.write(`${JSON.stringify(growth)}\n`)
if (flags.docs) await keep({ growth })

async function atPorts(count: number): Promise<GrowthPoint> {
  await using rig = new Rig()
  const homes = rig.use(await TwoHomes.make())
  await homes.grant('ports=*')
  const devices = await rig.devices(count + 1)
  const agent = await homes.share(...devices.map((device, i) => `${device}=p${i}`))
  const ttys = devices.map((_, i) => rig.path(`app${i}`))
  const links = ttys.map((_, i) => `a/p${i}`)
  const client = await homes.connect(...links, ...ttys.flatMap((tty) => ['--pty', tty]))
  const [echo = '', ...others] = ttys
  const warm = measure('bursts', 5, BURST_BYTES, ...others)
  await measure('pulse', echo, 3)
  await warm
  const before = [agent.pid, client.pid].map(cpuMs)
  const carried = measure<{ sent: number; got: number; wrong: number }>(
    'bursts',
    seconds,
    BURST_BYTES,
    ...others,
  )
  const { p50, p99 } = await measure<{ p50: number; p99: number }>('pulse', echo, seconds - 3)
  const { sent, got, wrong } = await carried
  if (wrong > 0 || got !== sent)
    throw new Error(`${count} ports: ${got} of ${sent} bytes, ${wrong} pieces wrong`)
  const [agentPercent = 0, clientPercent = 0] = [agent.pid, client.pid].map(
    (pid, i) => (cpuMs(pid) - (before[i] ?? 0)) / (10 * seconds),
  )
  return {
    count,
    'agent CPU, %': rounded(agentPercent),
    'client CPU, %': rounded(clientPercent),
    'agent RSS, MiB': rssMib(agent.pid),
    'client RSS, MiB': rssMib(client.pid),
    'echo p50, ms': p50,
    'echo p99, ms': p99,
  }
}

async function atPeers(count: number): Promise<GrowthPoint> {
  await using rig = new Rig()
  const homes = rig.use(await TwoHomes.make())
  await homes.grant('ports=*')
  const devices = await rig.devices(count + 1)
  const peers = await Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const home = join(rig.dir, `peer${i}`)
      mkdirSync(home, { mode: 0o700 })
      const { peerId } = await loadIdentity(home, { create: true })
      return { home, peerId, port: `p${i + 1}` }
    }),
  )
  const lines = peers.map(({ peerId, port }, i) => `peer${i} ${peerId} ports=${port}\n`)
  await appendFile(join(homes.agentHome, 'trusted_peers'), `\n${lines.join('')}`)
  const agent = await homes.share(...devices.map((device, i) => `${device}=p${i}`))
  const [address = ''] = agent.addresses.map((at) => at.replace(/\/p2p\/.*$/, ''))
  for (const { home } of peers)
    await writeFile(join(home, 'trusted_peers'), `a ${homes.agentId} addr=${address}\n`, { mode: 0o600 })
  const echo = rig.path('app')
  await homes.connect('a/p0', '--pty', echo)

  const before = { cpu: cpuMs(agent.pid), at: performance.now() }
  const program = join(import.meta.dirname, 'growth-peers.ts')
  const child = spawn(process.execPath, [program, ...peers.map(({ home, port }) => `${home}=a/${port}`)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = once(child, 'close')
  rig.use({
    async [Symbol.asyncDispose]() {
      child.stdin.end()
      await ended
    },
  })
  await Promise.race([
    once(child.stdout, 'data'),
    ended.then(() => Promise.reject(new Error('the peers ended'))),
  ])
  const connected = { cpu: cpuMs(agent.pid), at: performance.now() }
  await measure('pulse', echo, 2)
  const idle = { cpu: cpuMs(agent.pid), at: performance.now() }
  const { p50, p99 } = await measure<{ p50: number; p99: number }>('pulse', echo, seconds)
  const percent = (100 * (cpuMs(agent.pid) - idle.cpu)) / (performance.now() - idle.at)
  return {
    count,
    'agent CPU per connect, ms': rounded((connected.cpu - before.cpu) / count),
    'agent CPU, %': rounded(percent),
    'agent RSS, MiB': rssMib(agent.pid),
    'echo p50, ms': p50,
    'echo p99, ms': p99,
  }
}

/** As `npm run bench:relay` measures it, without the hops. */
async function atAgents(count: number): Promise<GrowthPoint> {
  const program = join(import.meta.dirname, 'relay.ts')
  const child = spawn(process.execPath, [program, '--agents', String(count), '--no-hops', '--json'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let text = ''
  child.stdout.on('data', (chunk) => {
    text += chunk
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`bench:relay with ${count} agents failed`)
  const { start, restart } = JSON.parse(text)
  return {
    count,
    'relay CPU per agent, ms': start.relayCpuMsPerAgent,
    'relay RSS, MiB': Math.round(start.relayRssMiB),
    'relay CPU when quiet, %': start.quietRelayCpuPercent,
    'all reserved after, s': start.allReservedS,
    'all back after a kill, s': restart.allReservedS,
  }
}

function rounded(value: number): number {
  return Number(value.toPrecision(3))
}

function rssMib(pid: number): number {
  const [, kib = '0'] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Math.round(Number(kib) / 1024)
}
