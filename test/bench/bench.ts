import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { whyNoSlowLink } from '../support/slow-link.ts'
import { costs } from './costs.ts'
import { manyPorts } from './many-ports.ts'
import { modbus } from './modbus.ts'
import { opening } from './opening.ts'
import type { Measured, Part } from './part.ts'
import { plain } from './plain.ts'
import { keep } from './report.ts'
import { missingPackages } from './rig.ts'
import { slow } from './slow.ts'
import { STACKS, type Stack, type StackName } from './stacks.ts'

/**
 * farport beside what people use today, in one run: an application on a PTY, a device on a PTY, both the same little
 * scripts, and each stack between them.
 */
const PARTS: readonly Part[] = [plain, manyPorts, slow, opening, modbus, costs]

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    trips: { type: 'string', default: '3000' },
    mib: { type: 'string', default: '16' },
    /** For each figure that is taken over a time. */
    seconds: { type: 'string', default: '8' },
    /** Only these stacks, these parts (rtt1, rtt64, bulk, ports, slow, opening, modbus, costs) and these rates of the slow line (10m, 1m). */
    only: { type: 'string', multiple: true, default: [] },
    /** Also what takes long: all numbers of ports at all speeds, all stacks on the slow line. */
    all: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    /** Writes what was found into docs/performance.md. */
    docs: { type: 'boolean', default: false },
  },
})

const say = (text: string): void => void process.stderr.write(`${text}\n`)
/** Of each kind those that are named; of a kind of which none is named, all. */
const named = <Name extends string>(names: readonly Name[]): readonly Name[] => {
  const some = names.filter((name) => flags.only.includes(name))
  return some.length > 0 ? some : names
}

/** Why a stack can't be had on this machine. */
function whyNot({ needs, needsRoot }: Stack): string | undefined {
  const missing = missingPackages(needs)
  if (missing.length > 0) return `apt-get install ${missing.join(' ')}`
  return needsRoot ? whyNoSlowLink() : undefined
}

const missing = missingPackages(['python3'])
if (missing.length > 0) {
  say(`bench: missing programs: apt-get install ${missing.join(' ')}`)
  process.exit(7)
}
say(`load at the start: ${loadavg()[0]?.toFixed(2)} on ${cpus().length} processors`)
const stacks = named(Object.keys(STACKS) as StackName[]).filter((name) => {
  const why = whyNot(STACKS[name])
  if (why !== undefined) say(`left out: ${STACKS[name].name}: ${why}`)
  return why === undefined
})

const { only, all } = flags
const numbers = {
  rounds: Number(flags.rounds),
  trips: Number(flags.trips),
  mib: Number(flags.mib),
  seconds: Number(flags.seconds),
}
const partNames = named(PARTS.flatMap(({ names }) => names))
const measured = new Map<string, Measured>()
for (const part of PARTS) {
  const names = part.names.filter((name) => partNames.includes(name))
  if (names.length === 0) continue
  const why = part.whyNot?.()
  if (why !== undefined) {
    say(`left out: ${part.name}: ${why}`)
    continue
  }
  measured.set(part.name, await part.measure({ ...numbers, names, stacks, only, all, say }))
}

if (flags.docs) await keep({ bench: measured })
const bars = [...measured.values()].flatMap((part) => part.bars)
if (flags.json) {
  const results = [...measured].map(([name, part]) => [name, part.results])
  process.stdout.write(`${JSON.stringify({ ...Object.fromEntries(results), bars })}\n`)
} else {
  const lines = [...measured.values()].flatMap((part) => part.lines)
  const verdicts = bars.map(
    ({ figure, value, unit, bar, reached }) =>
      `${String(value).padStart(6)} ${unit}  ${figure} (bar ${bar}: ${reached ? 'reached' : 'not reached'})`,
  )
  for (const line of [...lines, ...verdicts]) process.stdout.write(`${line}\n`)
}
