import type { InputLines, LineChanges } from './line.ts'

/** What NOTIFY-MODEMSTATE carries: the levels, and which of them changed. */
export interface ModemState {
  lines: InputLines
  /** The modem status register's delta bits. For `ri` only the trailing edge counts: a ring that ended. */
  deltas: InputLines
}

const LINES = ['cts', 'dsr', 'ri', 'dcd'] as const satisfies readonly (keyof InputLines)[]
const LEVEL_BITS = { cts: 0x10, dsr: 0x20, ri: 0x40, dcd: 0x80 }
const DELTA_BITS = { cts: 0x01, dsr: 0x02, ri: 0x04, dcd: 0x08 }

export function modemStateBits({ lines, deltas }: ModemState): number {
  let bits = 0
  for (const line of LINES) {
    if (lines[line]) bits |= LEVEL_BITS[line]
    if (deltas[line]) bits |= DELTA_BITS[line]
  }
  return bits
}

export function modemStateOf(bits: number): ModemState {
  const has = (table: typeof LEVEL_BITS): InputLines => ({
    cts: (bits & table.cts) !== 0,
    dsr: (bits & table.dsr) !== 0,
    ri: (bits & table.ri) !== 0,
    dcd: (bits & table.dcd) !== 0,
  })
  return { lines: has(LEVEL_BITS), deltas: has(DELTA_BITS) }
}

/**
 * The deltas between two states of the lines. `changes` counts the edges in between, for pulses that left the levels as
 * they were; without it the levels are compared.
 */
export function deltasBetween(before: InputLines, now: InputLines, changes?: LineChanges): InputLines {
  const edges = (line: keyof InputLines) => changes?.[line] ?? (before[line] === now[line] ? 0 : 1)
  return {
    cts: edges('cts') > 0,
    dsr: edges('dsr') > 0,
    // Of the edges that end in `high`, only the last is certain to be a leading one.
    ri: edges('ri') > (now.ri ? 1 : 0),
    dcd: edges('dcd') > 0,
  }
}

/**
 * The other way round: how many edges per line a received state stands for, at least. A delta whose level is as it was
 * before means a pulse, two edges; a level that changed without its delta is still an edge, since some servers
 * (hub4com) never send deltas.
 */
export function changesBetween(before: InputLines | undefined, { lines, deltas }: ModemState): LineChanges {
  const edges = (line: keyof InputLines): number => {
    if (before === undefined) return deltas[line] ? 1 : 0
    const moved = before[line] !== lines[line]
    if (!deltas[line]) return moved ? 1 : 0
    // A ring that ended although the line went from low to high must have risen twice.
    if (line === 'ri' && moved && lines.ri) return 3
    return moved ? 1 : 2
  }
  return { cts: edges('cts'), dsr: edges('dsr'), ri: edges('ri'), dcd: edges('dcd') }
}
