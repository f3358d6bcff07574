import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { sixteenPorts } from './many-ports.ts'
import { measure, missingPackages, Rig } from './rig.ts'
import { STACKS, type Stack } from './stacks.ts'

/**
 * farport beside what people use today, in one run: an application on a PTY, a device on a PTY, both the same little
 * scripts, and each stack between them. Stacks take turns, and who begins changes from round to round, because a machine is
 * not the same from minute to minute; each figure is the median over the rounds, and what counts are the ratios.
 */
const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    trips: { type: 'string', default: '3000' },
    mib: { type: 'string', default: '16' },
    only: { type: 'string', multiple: true, default: [] },
    json: { type: 'boolean', default: false },
  },
})

type StackName = keyof typeof STACKS

/** What is measured of each stack, and for how many of the slow ones. */
const WORKLOADS = {
  rtt1: {
    name: '1 byte there and back',
    unit: 'µs',
    run: async (tty: string, slow: boolean) => {
      const { p50, p99 } = await roundTrips(tty, 1, slow)
      return { p50, p99 }
    },
  },
  rtt64: {
    name: '64 bytes there and back',
    unit: 'µs',
    run: async (tty: string, slow: boolean) => {
      const { p50, p99 } = await roundTrips(tty, 64, slow)
      return { p50, p99 }
    },
  },
  bulk: {
    name: 'as much as goes, both ways',
    unit: 'MiB/s',
    run: async (tty: string, slow: boolean) => {
      const bulk = await measure<{ mib_s: number; wrong: number }>('bulk', tty, slow ? 1 : Number(flags.mib))
      if (bulk.wrong > 0) throw new Error(`${tty}: ${bulk.wrong} blocks came back wrong`)
      return { rate: bulk.mib_s }
    },
  },
} satisfies Record<string, Workload>

interface Workload {
  readonly name: string
  readonly unit: string
  run(tty: string, slow: boolean): Promise<Readonly<Record<string, number>>>
}

/** What is to be reached: a figure of farport's, over the same of another stack, at most or at least so much. */
const BARS: readonly Bar[] = [
  { workload: 'rtt1', figure: 'p50', against: 'ssh', bar: '≤ 1.0' },
  { workload: 'rtt1', figure: 'p99', against: 'ssh', bar: '≤ 1.0' },
  { workload: 'rtt1', figure: 'p50', against: 'shipped', bar: '≤ 0.1' },
  { workload: 'rtt64', figure: 'p50', against: 'ssh', bar: '≤ 1.0' },
  { workload: 'bulk', figure: 'rate', against: 'ssh', bar: '≥ 2' },
]

interface Bar {
  readonly workload: keyof typeof WORKLOADS
  readonly figure: string
  readonly against: StackName
  readonly bar: `${'≤' | '≥'} ${string}`
}

const missing = missingPackages()
if (missing.length > 0) {
  process.stderr.write(`bench: missing programs: apt-get install ${missing.join(' ')}\n`)
  process.exit(7)
}

function roundTrips(tty: string, bytes: number, slow: boolean): Promise<{ p50: number; p99: number }> {
  return measure('rtt', tty, slow ? 300 : Number(flags.trips), bytes)
}

const say = (text: string) => process.stderr.write(`${text}\n`)
/** Of each kind those that are named; of a kind of which none is named, all. */
const named = <Name extends string>(names: readonly Name[]): readonly Name[] => {
  const some = names.filter((name) => flags.only.includes(name))
  return some.length > 0 ? some : names
}
const stackNames = named(Object.keys(STACKS) as StackName[])
const partNames = named([...(Object.keys(WORKLOADS) as (keyof typeof WORKLOADS)[]), 'ports'])
const workloadNames = partNames.filter((name) => name !== 'ports')

await using rig = new Rig()
say(`load at the start: ${loadavg()[0]?.toFixed(2)}`)
const ttys = new Map<StackName, string>()
if (workloadNames.length > 0) for (const name of stackNames) ttys.set(name, await STACKS[name].start(rig))

/** All that was measured, by stack, workload and figure. */
const results = new Map<string, number[]>()
const keyOf = (stack: string, workload: string, figure: string) => `${stack} ${workload} ${figure}`

for (let round = 0; round < Number(flags.rounds); round++)
  for (const workload of workloadNames)
    for (let i = 0; i < stackNames.length; i++) {
      const name = stackNames[(i + round) % stackNames.length] as StackName
      const stack: Stack = STACKS[name]
      const figures = await WORKLOADS[workload].run(ttys.get(name) as string, stack.slow === true)
      for (const [figure, value] of Object.entries(figures)) {
        const key = keyOf(name, workload, figure)
        results.set(key, [...(results.get(key) ?? []), value])
      }
      const text = Object.entries(figures).map(([figure, value]) => `${figure} ${value}`)
      say(`round ${round + 1}  ${workload.padEnd(6)} ${stack.name.padEnd(36)} ${text.join('  ')}`)
    }

function median(stack: string, workload: string, figure: string): number | undefined {
  const values = [...(results.get(keyOf(stack, workload, figure)) ?? [])].sort((a, b) => a - b)
  return values[Math.floor(values.length / 2)]
}

const figures = stackNames.map((name) => ({
  stack: STACKS[name].name,
  ...Object.fromEntries(
    [...results.keys()]
      .filter((key) => key.startsWith(`${name} `))
      .map((key) => {
        const [, workload = '', figure = ''] = key.split(' ')
        return [`${workload} ${figure}`, median(name, workload, figure)]
      }),
  ),
}))

const ratios = BARS.flatMap(({ workload, figure, against, bar }) => {
  const [ours, theirs] = [median('farport', workload, figure), median(against, workload, figure)]
  if (ours === undefined || theirs === undefined) return []
  const ratio = Number((ours / theirs).toFixed(2))
  const limit = Number(bar.slice(2))
  const reached = bar.startsWith('≤') ? ratio <= limit : ratio >= limit
  return [
    { figure: `${WORKLOADS[workload].name}, ${figure}`, against: STACKS[against].name, ratio, bar, reached },
  ]
})

// Of the agent alone: there is nothing to compare it with.
const ports = partNames.includes('ports') ? await sixteenPorts(rig) : undefined

if (flags.json) process.stdout.write(`${JSON.stringify({ figures, ratios, ports })}\n`)
else {
  process.stdout.write(`medians of ${flags.rounds} rounds\n`)
  for (const { stack, ...values } of figures) {
    const text = Object.entries(values).map(([name, value]) => {
      const { unit } = WORKLOADS[name.split(' ')[0] as keyof typeof WORKLOADS]
      return `${name} ${value} ${unit}`
    })
    process.stdout.write(`${stack.padEnd(36)} ${text.join('   ')}\n`)
  }
  if (ports !== undefined)
    process.stdout.write(
      `16 ports at 115200 both ways: agent ${ports.agentPercent} %, client ${ports.clientPercent} % of a core (bar for the agent: ≤ 10 %)\n`,
    )
  for (const { figure, against, ratio, bar, reached } of ratios)
    process.stdout.write(
      `${String(ratio).padStart(5)} ×  ${figure}, against ${against} (bar ${bar}: ${reached ? 'reached' : 'not reached'})\n`,
    )
}
