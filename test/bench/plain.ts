import { type Bar, type Measured, type Part, type Run, reached } from './part.ts'
import { measure, Rig } from './rig.ts'
import { STACKS, type Stack, type StackName } from './stacks.ts'

interface Workload {
  readonly name: string
  readonly unit: string
  measure(tty: string, slow: boolean, run: Run): Promise<Readonly<Record<string, number>>>
}

/** What is measured of each stack with one port on one machine, and for how many of the slow ones. */
const WORKLOADS = {
  rtt1: {
    name: '1 byte there and back',
    unit: 'µs',
    measure: (tty, slow, run) => measure('rtt', tty, slow ? 300 : run.trips, 1),
  },
  rtt64: {
    name: '64 bytes there and back',
    unit: 'µs',
    measure: (tty, slow, run) => measure('rtt', tty, slow ? 300 : run.trips, 64),
  },
  bulk: {
    name: 'as much as goes, both ways',
    unit: 'MiB/s',
    measure: async (tty, slow, run) => {
      const bulk = await measure<{ mib_s: number; wrong: number }>('bulk', tty, slow ? 1 : run.mib)
      if (bulk.wrong > 0) throw new Error(`${tty}: ${bulk.wrong} blocks came back wrong`)
      return { rate: bulk.mib_s }
    },
  },
} as const satisfies Record<string, Workload>

type WorkloadName = keyof typeof WORKLOADS

/** What is to be reached: a figure of farport's over the same of another stack. */
const BARS: readonly { workload: WorkloadName; figure: string; against: StackName; bar: Bar }[] = [
  { workload: 'rtt1', figure: 'p50', against: 'ssh', bar: '≤ 1.0' },
  { workload: 'rtt1', figure: 'p99', against: 'ssh', bar: '≤ 1.0' },
  { workload: 'rtt1', figure: 'p50', against: 'shipped', bar: '≤ 0.1' },
  { workload: 'rtt64', figure: 'p50', against: 'ssh', bar: '≤ 1.0' },
  { workload: 'bulk', figure: 'rate', against: 'ssh', bar: '≥ 2' },
]

/**
 * One port, and as fast as it goes. Stacks take turns, and who begins changes from round to round, because a machine is
 * not the same from minute to minute; each figure is the median over the rounds, and what counts are the ratios.
 */
export const plain: Part = {
  name: 'plain',
  names: Object.keys(WORKLOADS),
  async measure(run): Promise<Measured> {
    await using rig = new Rig()
    const ttys = new Map<StackName, string>()
    for (const name of run.stacks) ttys.set(name, await STACKS[name].start(rig))

    /** By stack, workload and figure. */
    const values = new Map<string, number[]>()
    const keyOf = (stack: string, workload: string, figure: string) => `${stack} ${workload} ${figure}`
    for (let round = 0; round < run.rounds; round++)
      for (const workload of run.names as WorkloadName[])
        for (let i = 0; i < run.stacks.length; i++) {
          const name = run.stacks[(i + round) % run.stacks.length] as StackName
          const stack: Stack = STACKS[name]
          const figures = await WORKLOADS[workload].measure(
            ttys.get(name) as string,
            stack.slow === true,
            run,
          )
          for (const [figure, value] of Object.entries(figures)) {
            const key = keyOf(name, workload, figure)
            values.set(key, [...(values.get(key) ?? []), value])
          }
          const text = Object.entries(figures).map(([figure, value]) => `${figure} ${value}`)
          run.say(`round ${round + 1}  ${workload.padEnd(6)} ${stack.name.padEnd(36)} ${text.join('  ')}`)
        }

    const median = (stack: string, workload: string, figure: string): number | undefined => {
      const sorted = values.get(keyOf(stack, workload, figure))?.toSorted((a, b) => a - b)
      return sorted?.[Math.floor(sorted.length / 2)]
    }
    const results = [...values.keys()].map((key) => {
      const [stack = '', workload = '', figure = ''] = key.split(' ')
      const { unit } = WORKLOADS[workload as WorkloadName]
      return {
        ...{ stack: stack as StackName, title: STACKS[stack as StackName].name },
        ...{ workload, figure, unit, median: median(stack, workload, figure) },
      }
    })
    return {
      results,
      lines: [
        `medians of ${run.rounds} rounds`,
        ...run.stacks.map((name) => {
          const own = results.filter(({ stack }) => stack === name)
          const texts = own.map((it) => `${it.workload} ${it.figure} ${it.median} ${it.unit}`)
          return `${STACKS[name].name.padEnd(36)} ${texts.join('   ')}`
        }),
      ],
      bars: BARS.flatMap(({ workload, figure, against, bar }) => {
        const [ours, theirs] = [median('farport', workload, figure), median(against, workload, figure)]
        if (ours === undefined || theirs === undefined) return []
        const name = `${WORKLOADS[workload].name}, ${figure}, against ${STACKS[against].name}`
        return [reached(name, Number((ours / theirs).toFixed(2)), '×', bar)]
      }),
    }
  },
}
