import type { InputLines, LineChanges, LineErrors } from '../serial/port.ts'
import type { SerialCounters } from './libc.ts'

/** Where lines and counts are looked up. Both answer undefined where the device has none. */
export interface WatchedLines {
  lines(): InputLines | undefined
  counters(): SerialCounters | undefined
}

export interface LineReport {
  lines?: { now: InputLines; changes: LineChanges }
  errors?: LineErrors
}

const LINES = ['cts', 'dsr', 'ri', 'dcd'] as const
const MAX_ATTEMPTS = 3
/** One part of asking for levels, this many of not asking. */
const IDLE_TO_BUSY = 50
const NOTHING: LineReport = {}
const ALL_LOW: InputLines = { cts: false, dsr: false, ri: false, dcd: false }

/**
 * Finds out what happened to the input lines between two looks. Levels alone would miss a pulse that is shorter than the
 * time between looks; the driver counts edges where it can (TIOCGICOUNT).
 *
 * To ask for the levels means a conversation over USB for many adapters, in which nothing else here runs, while counts are
 * at hand. So levels are asked for when a count has moved, and beyond that no oftener than leaves the cost small.
 */
export class LineWatch {
  readonly #device: WatchedLines
  readonly #clock: () => number
  #lines: InputLines
  #counters: SerialCounters | undefined
  #levelsDueAt = 0

  /** What is found now is where changes count from. `clock` gives milliseconds that only go forward. */
  constructor(device: WatchedLines, clock = () => performance.now()) {
    this.#device = device
    this.#clock = clock
    this.#counters = device.counters()
    this.#lines = device.lines() ?? ALL_LOW
  }

  get lines(): InputLines {
    return { ...this.#lines }
  }

  look(): LineReport {
    const { counters, lines } = this.#snapshot()
    // As of a PTY, which has neither.
    if (counters === undefined && lines === this.#lines) return NOTHING
    const changes = { cts: 0, dsr: 0, ri: 0, dcd: 0 }
    for (const line of LINES) {
      const counted = increase(this.#counters?.[line], counters?.[line])
      const moved = Number(lines[line] !== this.#lines[line])
      // An odd number of edges moves the level, an even one does not; a UART counts only the trailing edges of RI.
      changes[line] = counted % 2 === moved ? counted : counted + 1
    }
    const errors = {
      framing: increase(this.#counters?.framing, counters?.framing),
      parity: increase(this.#counters?.parity, counters?.parity),
      overrun:
        increase(this.#counters?.overrun, counters?.overrun) +
        increase(this.#counters?.bufferOverrun, counters?.bufferOverrun),
      break: increase(this.#counters?.break, counters?.break),
    }
    this.#lines = lines
    this.#counters = counters
    return {
      ...(hasAny(changes) && { lines: { now: { ...lines }, changes } }),
      ...(hasAny(errors) && { errors }),
    }
  }

  /** Counts and levels of one moment: an edge between the two calls would be reported twice. */
  #snapshot(): { counters: SerialCounters | undefined; lines: InputLines } {
    let counters = this.#device.counters()
    if (sameEdges(counters, this.#counters) && this.#clock() < this.#levelsDueAt)
      return { counters, lines: this.#lines }
    for (let attempt = 1; ; attempt++) {
      const lines = this.#levels()
      const after = this.#device.counters()
      if (attempt === MAX_ATTEMPTS || sameEdges(counters, after)) return { counters: after, lines }
      counters = after
    }
  }

  #levels(): InputLines {
    const start = this.#clock()
    const lines = this.#device.lines() ?? ALL_LOW
    const end = this.#clock()
    this.#levelsDueAt = end + (end - start) * IDLE_TO_BUSY
    return lines
  }
}

function sameEdges(a: SerialCounters | undefined, b: SerialCounters | undefined): boolean {
  return LINES.every((line) => a?.[line] === b?.[line])
}

/** The counters are 32-bit ints in the driver and wrap. */
function increase(from: number | undefined, to: number | undefined): number {
  return from === undefined || to === undefined ? 0 : (to - from) >>> 0
}

function hasAny(counts: object): boolean {
  return Object.values(counts).some((count) => count > 0)
}
