import { LOOPBACK } from './hosts.ts'
import { type Measured, type Part, reached } from './part.ts'
import { cpuMs, familyOf, measure, Rig } from './rig.ts'
import { type Carried, type Carry, STACKS } from './stacks.ts'

/** So many programs talk at once to as many devices, each both ways as fast as a line of this speed goes. */
interface Load {
  readonly ports: number
  readonly baud: number
}

const LOADS: readonly Load[] = [115_200, 921_600].flatMap((baud) =>
  [1, 8, 16, 32].map((ports) => ({ ports, baud })),
)
/** The one with a bar for farport's agent, in percent of a core; and the heaviest. All others only when all is asked for. */
const BARRED: Load = { ports: 16, baud: 115_200 }
const HEAVIEST: Load = { ports: 32, baud: 921_600 }
const AGENT_BAR = '≤ 10'

/** Processor time of all processes of a stack on each side, in percent of one core. */
interface ManyPorts extends Load {
  readonly nearPercent: number
  readonly farPercent: number
  /** Of the bytes that were due, those that had gone there and come back a second after the last was due. */
  readonly keptUpPercent: number
}

/** A byte, its start bit and its stop bit. */
const BITS_PER_BYTE = 10

/** @throws when a byte came back that is not the one sent. */
async function underLoad(carry: Carry, load: Load, seconds: number): Promise<ManyPorts> {
  await using rig = new Rig()
  const devices = await rig.devices(load.ports)
  const carried = await carry(rig, LOOPBACK, devices, 'many')
  const bytesPerSecond = load.baud / BITS_PER_BYTE
  // What runs on a just-in-time compiler needs a while to be as it stays.
  await measure('paced', seconds / 2, bytesPerSecond, ...carried.ttys)
  const before = cpuOf(carried)
  const { got, wrong } = await measure<{ got: number; wrong: number }>(
    'paced',
    seconds,
    bytesPerSecond,
    ...carried.ttys,
  )
  const after = cpuOf(carried)
  if (wrong > 0) throw new Error(`${load.ports} ports at ${load.baud}: ${wrong} pieces came back wrong`)
  const percent = (side: 'near' | 'far') => Number(((after[side] - before[side]) / (10 * seconds)).toFixed(1))
  const due = load.ports * seconds * bytesPerSecond
  return {
    ...load,
    nearPercent: percent('near'),
    farPercent: percent('far'),
    keptUpPercent: Number(((got * 100) / due).toFixed(1)),
  }
}

/** Milliseconds. */
function cpuOf({ nearPids, farPids }: Carried): { near: number; far: number } {
  const sum = (pids: readonly number[]) =>
    pids.flatMap(familyOf).reduce((total, pid) => total + cpuMs(pid), 0)
  return { near: sum(nearPids), far: sum(farPids) }
}

const isLoad = (one: Load, other: Load) => one.ports === other.ports && one.baud === other.baud

/** What farport costs with many ports, and ssh with ser2net and socat beside it. */
export const manyPorts: Part = {
  name: 'ports',
  names: ['ports'],
  async measure(run): Promise<Measured> {
    const results: (ManyPorts & { stack: 'farport' | 'ssh' })[] = []
    const loads = run.all ? LOADS : [BARRED, HEAVIEST]
    for (const load of loads)
      for (const stack of (['farport', 'ssh'] as const).filter((name) => run.stacks.includes(name))) {
        const result = { stack, ...(await underLoad(STACKS[stack].carry, load, 2 * run.seconds)) }
        results.push(result)
        run.say(lineOf(result))
      }
    const barred = results.find((result) => result.stack === 'farport' && isLoad(result, BARRED))
    const figure = `agent with ${BARRED.ports} ports at ${BARRED.baud} both ways`
    return {
      results,
      lines: results.map(lineOf),
      bars: barred === undefined ? [] : [reached(figure, barred.farPercent, '% of a core', AGENT_BAR)],
    }
  },
}

function lineOf(result: ManyPorts & { stack: 'farport' | 'ssh' }): string {
  const { stack, ports, baud, nearPercent, farPercent, keptUpPercent } = result
  const behind = keptUpPercent < 100 ? `; only ${keptUpPercent} % of the bytes in time` : ''
  const cpu = `${farPercent} % of a core at the devices, ${nearPercent} % at the programs`
  return `${String(ports).padStart(2)} ports at ${String(baud).padEnd(6)}  ${STACKS[stack].name.padEnd(36)} ${cpu}${behind}`
}
