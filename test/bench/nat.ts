import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { travel } from '../support/journey.ts'
import { type Crossed, cross } from '../support/nat-cell.ts'
import { NAT_CELLS, type NatCell } from '../support/nat-cells.ts'
import { whyNoNatLab } from '../support/nat-lab.ts'

/**
 * Every pair of NATs, with 20 ms from each site to every other, one way: whether a client gets through to an agent, how
 * soon, and whether, how and when it goes direct. Nobody has opened a port, and the client knows only the relay.
 */
const { values: flags } = parseArgs({
  options: {
    'delay-ms': { type: 'string', default: '20' },
    /** Only cells whose name contains this. */
    only: { type: 'string', default: '' },
    /** Also the journey: one open port through all that can happen to its path, for a minute. */
    journey: { type: 'boolean', default: true },
    json: { type: 'boolean', default: false },
  },
  allowNegative: true,
})
/** After each of its events. */
const CALM_MS = 7_000
const FIRST_BYTE_BAR_MS = 1_500
const DIRECT_BAR_MS = 3_000

const missing = whyNoNatLab()
if (missing !== undefined) {
  process.stderr.write(`bench:nat: ${missing}\n`)
  process.exit(7)
}

interface Row extends Partial<Crossed> {
  readonly cell: string
  readonly expected: NatCell['expected']
  readonly misses: readonly string[]
  /** Programs that want a processor, on average over the last minute, for each of this machine's. */
  readonly load: number
}

const rows: Row[] = []
const say = (text: string) => process.stderr.write(`${text}\n`)
say(line('agent × client', 'first byte', 'direct', 'method', 'load'))
for (const cell of NAT_CELLS.filter(({ name }) => name.includes(flags.only))) {
  const crossed = await cross(cell, Number(flags['delay-ms'])).catch(
    (error: Error): Partial<Crossed> => ({ reason: error.message }),
  )
  const load = Number(((loadavg()[0] as number) / cpus().length).toFixed(1))
  const row = { cell: cell.name, expected: cell.expected, ...crossed, misses: missesOf(cell, crossed), load }
  rows.push(row)
  say(
    line(
      row.cell,
      row.firstByteMs === undefined ? 'no' : `${row.firstByteMs} ms`,
      row.directMs === undefined ? 'no' : `${row.directMs} ms`,
      row.method ?? (row.firstByteMs === undefined ? '' : 'relayed'),
      `${row.load}`,
      row.misses.join(', '),
    ),
  )
}

const missed = rows.filter(({ misses }) => misses.length > 0)
say(`${rows.length - missed.length} of ${rows.length} cells as they should be`)

let failed = missed.length > 0
const journey = flags.journey ? await journeyOrNot() : undefined
if (flags.json)
  process.stdout.write(`${JSON.stringify({ delayMs: Number(flags['delay-ms']), rows, journey })}\n`)
process.exitCode = failed ? 1 : 0

async function journeyOrNot() {
  say('\none open PTY at 921600 baud both ways; the longest silence after each event')
  try {
    const journey = await travel(CALM_MS, ({ event, path, longestSilenceMs }) =>
      say(`${event.padEnd(40)}  was ${path.padEnd(8)}  ${`${longestSilenceMs} ms`.padStart(9)}`),
    )
    say(`${journey.bytes.up} bytes to the device and ${journey.bytes.down} from it, each as it was sent`)
    return journey
  } catch (error) {
    failed = true
    say(`failed: ${(error as Error).message}`)
    return undefined
  }
}

function missesOf({ expected }: NatCell, { firstByteMs, directMs }: Partial<Crossed>): string[] {
  return [
    ...(firstByteMs === undefined ? ['not connected'] : []),
    ...((firstByteMs ?? 0) > FIRST_BYTE_BAR_MS ? [`first byte later than ${FIRST_BYTE_BAR_MS} ms`] : []),
    ...(expected === 'direct' && directMs === undefined ? ['not direct'] : []),
    ...((directMs ?? 0) > DIRECT_BAR_MS ? [`direct later than ${DIRECT_BAR_MS} ms`] : []),
  ]
}

function line(cell: string, firstByte: string, direct: string, method: string, load: string, misses = '') {
  const columns = [
    cell.padEnd(46),
    firstByte.padStart(10),
    direct.padStart(9),
    method.padEnd(17),
    load.padStart(4),
  ]
  return [...columns, misses].join('  ').trimEnd()
}
