import { closeSync, constants, openSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { SLOW_LINK_ADDRESSES, slowLink, whyNoSlowLink } from '../support/slow-link.ts'
import { between } from './hosts.ts'
import { type Measured, type Part, reached } from './part.ts'
import { measure, Rig } from './rig.ts'
import { type Carry, STACKS, type Stack, type StackName } from './stacks.ts'

/** 40 ms there and back: from one end of a country to the other, or a mobile network. */
const ONE_WAY_MS = 20
/** Megabits a second, by the name to ask for one alone. */
const RATES = { '10m': 10, '1m': 1 } as const
/** Plain TCP is the floor, and nobody's choice: only when all is asked for, or just this. */
const NOT_USUAL: readonly StackName[] = ['tcp']
/** For the echo's 99th percentile at 10 Mbit/s, in ms, whatever else is on the line. */
const P99_BAR = '≤ 50'
/** How many ports are filled at the same time, first these, then those. */
const CROWDS = [1, 7] as const
/** Until queues have filled and the algorithms of TCP have found their pace. */
const SETTLE_SECONDS = 4

interface Echo {
  /** Milliseconds from a byte sent to the same byte back. */
  readonly p50: number
  readonly p99: number
  readonly max: number
  /** Of fifty a second, those that had not come back when nothing had come for 20 s. */
  readonly late: number
}

/** The echo on one port, and what all others carry meanwhile, each way, as percent of the line's rate. */
interface Beside extends Echo {
  readonly upPercent: number
  readonly downPercent: number
}

interface SlowResult {
  readonly idle: Echo
  readonly beside: { readonly [ports: number]: Beside }
}

/**
 * One byte every 20 ms to an echoing device and back, over a slow line; then the same while another port carries as much
 * as goes both ways, then while seven do. The line is there for this alone.
 */
async function echoBesideBulk(
  carry: Carry,
  megabits: number,
  seconds: number,
  say: (text: string) => void,
): Promise<SlowResult> {
  await using rig = new Rig()
  const bitsPerSecond = megabits * 1e6
  const hosts = rig.use(await slowLink({ bitsPerSecond, oneWayMs: ONE_WAY_MS }))
  const devices = [await rig.device('echo')]
  const bulkPorts = CROWDS.reduce((sum, ports) => sum + ports, 0)
  for (let i = 0; i < bulkPorts; i++) devices.push(await rig.device(`flood${i}`, 'flood'))
  const carried = await carry(rig, between(hosts, SLOW_LINK_ADDRESSES), devices, 'slow')
  // Programs come and go while the ports stay open: what is to be measured is the way, not the opening.
  for (const tty of carried.ttys) {
    const hold = openSync(tty, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK)
    rig.defer(() => closeSync(hold))
  }
  const [echo = '', ...ttys] = carried.ttys
  const floods = ttys.map((tty, i) => [tty, devices[i + 1] as string])

  const idle = await measure<Echo>('pulse', echo, seconds)
  say(`idle: ${echoText(idle)}`)
  const beside: { [ports: number]: Beside } = {}
  for (const ports of CROWDS) {
    // Each has its own: what one has sent is still in its buffers when the next begin.
    const these = floods.splice(0, ports).flat()
    const filled = measure<{ up: number; down: number; wrong: number }>(
      'fill',
      SETTLE_SECONDS,
      seconds,
      ...these,
    )
    // A failure is told when the echo is done, which takes a while.
    filled.catch(() => {})
    await delay(SETTLE_SECONDS * 1000)
    const pulse = await measure<Echo>('pulse', echo, seconds, 'settled')
    const { up, down, wrong } = await filled
    if (wrong > 0) throw new Error(`beside ${ports}: ${wrong} pieces came wrong`)
    const percent = (bytesPerSecond: number) => Math.round((bytesPerSecond * 800) / bitsPerSecond)
    const result = { ...pulse, upPercent: percent(up), downPercent: percent(down) }
    beside[ports] = result
    say(besideText(ports, result))
  }
  return { idle, beside }
}

/** For a person, a line for each figure. */
function linesOf(head: string, { idle, beside }: SlowResult): string[] {
  const texts = Object.entries(beside).map(([ports, result]) => besideText(Number(ports), result))
  return [`idle: ${echoText(idle)}`, ...texts].map((text) => `${head} ${text}`)
}

function besideText(ports: number, { upPercent, downPercent, ...echo }: Beside): string {
  return `beside ${ports}: ${echoText(echo)}; bulk ${upPercent} % of the line up, ${downPercent} % down`
}

function echoText({ p50, p99, max, late }: Echo): string {
  const never = late > 0 ? `, ${late} not back after 20 s` : ''
  return `p50 ${p50} ms, p99 ${p99} ms, max ${max} ms${never}`
}

/** Each stack has a line of its own to itself, since they would share it otherwise. */
export const slow: Part = {
  name: 'slow',
  names: ['slow'],
  whyNot: whyNoSlowLink,
  async measure(run): Promise<Measured> {
    const asked = Object.entries(RATES).filter(([name]) => run.only.includes(name))
    const rates = (asked.length > 0 ? asked : Object.entries(RATES)).map(([, megabits]) => megabits)
    const stacks = run.stacks.filter(
      (name) => run.all || run.only.includes(name) || !NOT_USUAL.includes(name),
    )
    const results: { stack: StackName; megabits: number; result: SlowResult }[] = []
    const lines: string[] = []
    for (const megabits of rates)
      for (const name of stacks) {
        const { name: title, carry }: Stack = STACKS[name]
        if (carry === undefined) continue
        const head = `${String(megabits).padStart(2)} Mbit/s  ${title.padEnd(36)}`
        try {
          const result = await echoBesideBulk(carry, megabits, run.seconds, (text) =>
            run.say(`${head} ${text}`),
          )
          results.push({ stack: name, megabits, result })
          lines.push(...linesOf(head, result))
        } catch (error) {
          const failed = `${head} failed: ${(error as Error).message}`
          run.say(failed)
          lines.push(failed)
        }
      }
    const barred = results.find(({ stack, megabits }) => stack === 'farport' && megabits === RATES['10m'])
    const bars = Object.entries(barred?.result.beside ?? {}).map(([ports, { p99 }]) =>
      reached(`echo beside ${ports} at 10 Mbit/s, p99`, p99, 'ms', P99_BAR),
    )
    return { results, lines, bars }
  },
}
