import { type ChildProcess, fork, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { startFarport } from '../../src/cli/child.ts'
import { createLog } from '../../src/log.ts'
import { createOverlay } from '../../src/overlay/node.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { freePort } from '../overlay/network.ts'
import type { Fleet, Standing } from './relay-agents.ts'

/**
 * A fleet on one relay, which is `farport relay` as it is: how long until all agents are there, what each costs, how long
 * until all are back when the relay is killed and started again. Then what a hop over the relay costs, beside plain TCP
 * through as many processes. All of it on this machine, so the agents and the relay share its cores.
 */
const { values: flags } = parseArgs({
  options: {
    agents: { type: 'string', default: '1000' },
    processes: { type: 'string', default: '4' },
    'down-s': { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    trips: { type: 'string', default: '2000' },
    mib: { type: 'string', default: '64' },
    hops: { type: 'boolean', default: true },
    json: { type: 'boolean', default: false },
  },
  allowNegative: true,
})
const ECHO_PROTOCOL = '/bench/echo/1'

const agents = Number(flags.agents)
const say = (text: string) => process.stderr.write(`${text}\n`)

await using stack = new AsyncDisposableStack()
const dir = await mkdtemp(join(tmpdir(), 'farport-bench-'))
stack.defer(() => rm(dir, { recursive: true, force: true }))

const home = join(dir, 'relay')
const { peerId: relayId } = await loadIdentity(home, { create: true })
const port = await freePort()
const address = `/ip4/127.0.0.1/tcp/${port}/p2p/${relayId}`

const newSeed = () => randomBytes(32).toString('hex')
const peerIdOf = async (seed: string) =>
  peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', Buffer.from(seed, 'hex'))).toString()

/** The relay as a user starts it. */
class Relay implements AsyncDisposable {
  readonly #farport = startFarport([
    ...['relay', '--home', home, '--json', '--log-level', 'error'],
    ...['--listen', `/ip4/127.0.0.1/tcp/${port}`, '--no-stun'],
  ])

  static async start(): Promise<Relay> {
    const relay = new Relay()
    await relay.#farport.event('ready')
    return relay
  }

  get usage(): Usage {
    return usageOf(this.#farport.pid)
  }

  async kill(): Promise<void> {
    process.kill(this.#farport.pid, 'SIGKILL')
    await this.#farport.ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#farport[Symbol.asyncDispose]()
  }
}

interface Usage {
  readonly cpuS: number
  readonly rssMiB: number
}

function usageOf(pid: number): Usage {
  const ticksPerS = 100
  const [utime = 0, stime = 0] = (readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1] ?? '')
    .split(' ')
    .slice(11, 13)
    .map(Number)
  const rssKiB = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1])
  return { cpuS: (utime + stime) / ticksPerS, rssMiB: rssKiB / 1024 }
}

/** The processes with the agents. */
class Agents implements AsyncDisposable {
  readonly #processes: ChildProcess[] = []
  readonly #standings = new Map<ChildProcess, Standing>()
  #changed = Promise.withResolvers<void>()

  start(fleet: Fleet): void {
    const child = fork(join(import.meta.dirname, 'relay-agents.ts'))
    child.on('message', (standing: Standing) => {
      this.#standings.set(child, standing)
      this.#changed.resolve()
    })
    child.send(fleet)
    this.#processes.push(child)
  }

  get usage(): Usage {
    const all = this.#processes.map(({ pid }) => usageOf(pid as number))
    return {
      cpuS: all.reduce((sum, { cpuS }) => sum + cpuS, 0),
      rssMiB: all.reduce((sum, { rssMiB }) => sum + rssMiB, 0),
    }
  }

  count(of: keyof Standing): number {
    return [...this.#standings.values()].reduce((sum, standing) => sum + standing[of], 0)
  }

  /** Resolves when so many are, with the seconds that it took. */
  async until(of: keyof Standing, is: (count: number) => boolean, limitS = 180): Promise<number> {
    const since = performance.now()
    let next = since + 5_000
    while (!is(this.count(of))) {
      const spentMs = performance.now() - since
      if (spentMs > limitS * 1000)
        throw new Error(`after ${limitS} s only ${this.count(of)} of ${agents} agents are ${of}`)
      if (performance.now() > next) {
        say(`  ${Math.round(spentMs / 1000)} s: ${this.count(of)} ${of}`)
        next += 5_000
      }
      this.#changed = Promise.withResolvers()
      await Promise.race([this.#changed.promise, sleep(1_000)])
    }
    return (performance.now() - since) / 1000
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#processes) {
      child.kill()
      await once(child, 'close')
    }
  }
}

const seeds = Array.from({ length: agents }, newSeed)
const peerIds = await Promise.all(seeds.map(peerIdOf))
const clientSeed = newSeed()
const clientId = await peerIdOf(clientSeed)
const trusted = peerIds.map((peerId, i) => `agent-${i} ${peerId} may=relay\n`)
await writeFile(join(home, 'trusted_peers'), trusted.join(''), { mode: 0o600 })

let relay = stack.use(await Relay.start())
const idle = relay.usage
const fleet = stack.use(new Agents())
const directPort = await freePort()
const processes = Number(flags.processes)
const startedAt = performance.now()
for (let i = 0; i < processes; i++)
  fleet.start({
    seeds: seeds.filter((_, at) => at % processes === i),
    relay: address,
    callers: [clientId],
    echo: ECHO_PROTOCOL,
    listen: i === 0 ? [`/ip4/127.0.0.1/tcp/${directPort}`] : [],
  })
const allReservedS = await fleet.until('reserved', (count) => count === agents)
say(`all ${agents} reserved`)
await fleet.until('callable', (count) => count === agents)
const allThereS = (performance.now() - startedAt) / 1000
const there = relay.usage
const fleetThere = fleet.usage
await sleep(20_000)
const quiet = relay.usage
const start = {
  allReservedS,
  allCallableS: allThereS,
  relayCpuMsPerAgent: ((there.cpuS - idle.cpuS) / agents) * 1000,
  agentCpuMsPerAgent: (fleetThere.cpuS / agents) * 1000,
  relayRssMiB: quiet.rssMiB,
  relayRssKiBPerAgent: ((quiet.rssMiB - idle.rssMiB) / agents) * 1024,
  agentsRssMiBPerAgent: fleet.usage.rssMiB / agents,
  quietRelayCpuPercent: ((quiet.cpuS - there.cpuS) / 20) * 100,
}

await relay.kill()
await fleet.until('reserved', (count) => count === 0)
await sleep(Number(flags['down-s']) * 1000)
const fleetBefore = fleet.usage
const restartedAt = performance.now()
relay = stack.use(await Relay.start())
const readyS = (performance.now() - restartedAt) / 1000
const startCpuS = relay.usage.cpuS
await fleet.until('reserved', (count) => count === agents)
const reservedAgainS = (performance.now() - restartedAt) / 1000
await fleet.until('callable', (count) => count === agents)
const backS = (performance.now() - restartedAt) / 1000
const restart = {
  relayReadyS: readyS,
  allReservedS: reservedAgainS,
  allCallableS: backS,
  relayCpuMsPerAgent: ((relay.usage.cpuS - startCpuS) / agents) * 1000,
  agentCpuMsPerAgent: ((fleet.usage.cpuS - fleetBefore.cpuS) / agents) * 1000,
}

/** A stream that comes back as it went, over a path. */
interface EchoPath {
  readonly name: string
  open(): Promise<Duplex>
}

async function overlayPath(name: string, addresses: readonly string[]): Promise<EchoPath> {
  const client = stack.use(
    await createOverlay({
      seed: Buffer.from(clientSeed, 'hex'),
      listen: [],
      admits: () => true,
      log: createLog('silent'),
    }),
  )
  const peerId = peerIds[0] as string
  const open = async (tries = 3): Promise<Duplex> => {
    try {
      const signal = AbortSignal.timeout(10_000)
      return (await client.open(peerId, ECHO_PROTOCOL, { addresses, signal })).stream
    } catch (error) {
      // As a link does, which asks again until it is through.
      say(`${name}: ${error}`)
      if (tries === 0) throw error
      await sleep(500)
      return await open(tries - 1)
    }
  }
  return { name, open }
}

async function plainPath(name: string, hops: number): Promise<EchoPath> {
  let at: string | undefined
  for (let i = 0; i < hops; i++) {
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, 'plain-hop.ts'), ...(at === undefined ? [] : [at])],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    stack.defer(() => void child.kill())
    const [text] = (await once(child.stdout, 'data')) as [Buffer]
    at = String(text).trim()
  }
  return {
    name,
    async open() {
      const socket = connect({ port: Number(at), host: '127.0.0.1', noDelay: true })
      await once(socket, 'connect')
      return socket
    },
  }
}

async function roundTripsUs(stream: Duplex, count: number): Promise<{ p50: number; p99: number }> {
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    const since = performance.now()
    stream.write('x')
    await once(stream, 'data')
    times.push((performance.now() - since) * 1000)
  }
  times.sort((a, b) => a - b)
  return { p50: times[Math.floor(count / 2)] as number, p99: times[Math.floor(count * 0.99)] as number }
}

/** Both ways at once: what goes out comes back. */
async function bulkMiBPerS(stream: Duplex, mib: number): Promise<number> {
  const chunk = randomBytes(64 * 1024)
  const total = mib * 1024 * 1024
  const since = performance.now()
  let got = 0
  const done = Promise.withResolvers<void>()
  stream.on('data', (bytes: Buffer) => {
    got += bytes.length
    if (got >= total) done.resolve()
  })
  for (let sent = 0; sent < total; sent += chunk.length) if (!stream.write(chunk)) await once(stream, 'drain')
  await done.promise
  return mib / ((performance.now() - since) / 1000)
}

const paths = flags.hops
  ? [
      await overlayPath('over the relay', [`${address}/p2p-circuit`]),
      await plainPath('plain TCP, as many hops', 2),
      await overlayPath('direct', [`/ip4/127.0.0.1/tcp/${directPort}`]),
      await plainPath('plain TCP, direct', 1),
    ]
  : []
const results = paths.map(({ name }) => ({
  name,
  p50: [] as number[],
  p99: [] as number[],
  mibPerS: [] as number[],
}))
for (let round = 0; round < Number(flags.rounds); round++)
  for (const [i, path] of paths.entries()) {
    const result = results[i] as (typeof results)[number]
    const stream = await path.open()
    await roundTripsUs(stream, 200)
    const { p50, p99 } = await roundTripsUs(stream, Number(flags.trips))
    result.p50.push(p50)
    result.p99.push(p99)
    result.mibPerS.push(await bulkMiBPerS(stream, Number(flags.mib)))
    stream.destroy()
  }

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number
const hops = results.map(({ name, p50, p99, mibPerS }) =>
  rounded({ name, p50Us: median(p50), p99Us: median(p99), mibPerS: median(mibPerS) }),
)
const figures = { agents, start: rounded(start), restart: rounded(restart), hops }
if (flags.json) process.stdout.write(`${JSON.stringify(figures)}\n`)
else {
  const { start: first, restart: again } = figures
  process.stdout.write(
    [
      `${agents} agents, new: all reserved in ${first.allReservedS} s, all callable in ${first.allCallableS} s`,
      `  relay: ${first.relayCpuMsPerAgent} ms of CPU and ${first.relayRssKiBPerAgent} KiB for each, ${first.relayRssMiB} MiB in all; ${first.quietRelayCpuPercent} % of a core when nothing happens`,
      `  agents: ${first.agentCpuMsPerAgent} ms and ${first.agentsRssMiBPerAgent} MiB each`,
      `relay killed, and started again after ${flags['down-s']} s: up in ${again.relayReadyS} s, all reserved in ${again.allReservedS} s, all callable in ${again.allCallableS} s (bar: 30)`,
      `  ${again.relayCpuMsPerAgent} ms of CPU at the relay and ${again.agentCpuMsPerAgent} ms at the agent for each`,
      ...hops.map(
        ({ name, p50Us, p99Us, mibPerS }) =>
          `${String(name).padEnd(24)} 1 byte there and back: p50 ${p50Us} µs, p99 ${p99Us} µs   both ways: ${mibPerS} MiB/s`,
      ),
      '',
    ].join('\n'),
  )
}

function rounded<T extends object>(figures: T): Record<string, number | string> {
  return Object.fromEntries(
    Object.entries(figures).map(([key, value]) => [
      key,
      typeof value === 'number' ? Number(value.toFixed(2)) : value,
    ]),
  )
}
