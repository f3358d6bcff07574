import { execFile, spawn } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { startFarport } from '../../src/cli/child.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { type Measured, type Part, reached } from './part.ts'
import { cpuMs, measure, Rig } from './rig.ts'

const ROUNDS = 5
const IDLE_PORTS = 16
const IDLE_SECONDS = 20
const BULK_MIB = 32

const root = new URL('../..', import.meta.url).pathname

/** What a user runs: the package, where `npm run package` has made one, else the checkout. */
function program(): { readonly what: string; readonly command: readonly string[] } {
  const [main] = globSync('dist/farport-*-linux-x64/lib/main.js', { cwd: root })
  if (main !== undefined)
    return { what: 'packaged', command: [join(root, main, '../../node'), join(root, main)] }
  return { what: 'from the checkout', command: [process.execPath, `${root}/src/cli/main.ts`] }
}

async function versionMs([command = '', ...args]: readonly string[]): Promise<number> {
  const took: number[] = []
  for (let i = 0; i < ROUNDS; i++) {
    const start = performance.now()
    await promisify(execFile)(command, [...args, '--version'])
    took.push(performance.now() - start)
  }
  return Math.round(took.toSorted((a, b) => a - b)[Math.floor(ROUNDS / 2)] as number)
}

/** Until ports are shared, and what the process then takes while nothing happens. */
async function ready([command = '', ...args]: readonly string[]): Promise<{ ms: number; rssMib: number }> {
  const took: { ms: number; rssMib: number }[] = []
  for (let i = 0; i < ROUNDS; i++) {
    await using homes = await TwoHomes.make()
    await homes.grant('ports=*')
    const start = performance.now()
    await using agent = startFarport(
      ['share', 'simulated:echo=p', '--home', homes.agentHome, '--listen', '/ip4/127.0.0.1/tcp/0', '--json'],
      { launch: (_node, [, ...rest], options) => spawn(command, [...args, ...rest], options) },
    )
    await agent.event('ready')
    const ms = Math.round(performance.now() - start)
    await delay(2_000)
    took.push({ ms, rssMib: rssMib(agent.pid) })
  }
  return took.toSorted((a, b) => a.ms - b.ms)[Math.floor(ROUNDS / 2)] as (typeof took)[number]
}

/** Of the agent and the client: processor time for a MiB each way at once, and for sixteen open ports on which nothing happens. */
async function running(): Promise<{ bulk: number[]; idle: number[] }> {
  await using rig = new Rig()
  const homes = rig.use(await TwoHomes.make())
  await homes.grant('ports=*')
  const devices = await rig.devices(IDLE_PORTS)
  const agent = await homes.share(...devices.map((device, i) => `${device}=p${i}`))
  const ttys = devices.map((_, i) => rig.path(`app${i}`))
  const ends = ttys.flatMap((tty) => ['--pty', tty])
  const client = await homes.connect(...ttys.map((_, i) => `a/p${i}`), ...ends)
  const pids = [agent.pid, client.pid]
  const [tty = ''] = ttys
  await measure('bulk', tty, BULK_MIB / 4)
  let before = pids.map(cpuMs)
  await measure('bulk', tty, BULK_MIB)
  const bulk = pids.map((pid, i) => Math.round((cpuMs(pid) - (before[i] ?? 0)) / BULK_MIB))
  // Programs that have them open, and say nothing.
  const open = measure('paced', IDLE_SECONDS + 8, 0, ...ttys)
  await delay(6_000)
  before = pids.map(cpuMs)
  await delay(IDLE_SECONDS * 1000)
  const idle = pids.map((pid, i) =>
    Number(((cpuMs(pid) - (before[i] ?? 0)) / (10 * IDLE_SECONDS)).toFixed(2)),
  )
  await open
  return { bulk, idle }
}

/** What farport itself costs: there is nothing to compare it with. */
export const costs: Part = {
  name: 'costs',
  names: ['costs'],
  async measure(run): Promise<Measured> {
    const { what, command } = program()
    const version = await versionMs(command)
    const started = await ready(command)
    const { bulk, idle } = await running()
    const lines = [
      `${what}: --version in ${version} ms, ports shared after ${started.ms} ms, ${started.rssMib} MiB resident when idle`,
      `1 MiB both ways at once: ${bulk[0]} ms of processor time at the agent, ${bulk[1]} ms at the client`,
      `${IDLE_PORTS} open ports on which nothing happens: ${idle[0]} % of a core at the agent, ${idle[1]} % at the client`,
    ]
    for (const line of lines) run.say(line)
    return {
      results: { what, version, ...started, bulk, idle },
      lines,
      // A checkout compiles TypeScript as it starts; it has no bars.
      bars:
        what !== 'packaged'
          ? []
          : [
              reached(`farport --version, ${what}`, version, 'ms', '≤ 150'),
              reached(`ports shared, ${what}`, started.ms, 'ms', '≤ 350'),
              reached(`resident when idle, ${what}`, started.rssMib, 'MiB', '≤ 95'),
            ],
    }
  },
}

function rssMib(pid: number): number {
  const [, kib = '0'] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Math.round(Number(kib) / 1024)
}
