import type { InputLines, LineChanges } from './line.ts'
import { deltasBetween, modemStateBits } from './modem-state.ts'

const ALL_LOW: InputLines = { cts: false, dsr: false, ri: false, dcd: false }

/** `unknown`: nobody has told us the lines yet. `first`: the peer has had no report yet. */
type Due = 'unknown' | 'first' | 'change' | 'nothing'

/** What a client has to be told of the modem lines, and when (RFC 2217 sections 3 and 4). */
export class ModemNotifier {
  /** The bits the client wants. The RFC has it begin with all. */
  mask = 0xff
  #due: Due = 'unknown'
  #lines = ALL_LOW
  #deltaBits = 0

  /** The levels a client gets when it asks. */
  get levelBits(): number {
    return modemStateBits({ lines: this.#lines, deltas: ALL_LOW }) & this.mask
  }

  update(lines: InputLines, changes?: LineChanges): void {
    if (this.#due === 'unknown') {
      this.#due = 'first'
    } else {
      const deltas = modemStateBits({ lines: ALL_LOW, deltas: deltasBetween(this.#lines, lines, changes) })
      // The leading edge of a ring has no delta bit, yet it is a change.
      const changed = deltas !== 0 || (lines.ri && !this.#lines.ri)
      if (changed && this.#due === 'nothing') this.#due = 'change'
      this.#deltaBits |= deltas
    }
    this.#lines = { ...lines }
  }

  /** A new client: it has to hear how the lines are. */
  restart(): void {
    this.#due = 'unknown'
    this.#deltaBits = 0
  }

  /**
   * The bits to send now, if any; each change is given once. The first report is given even if it is 0: pyserial refuses
   * to tell the state of CTS until it had one.
   */
  take(): number | undefined {
    const due = this.#due
    const bits = this.levelBits | (due === 'change' ? this.#deltaBits & this.mask : 0)
    if (due !== 'unknown') this.#due = 'nothing'
    this.#deltaBits = 0
    switch (due) {
      case 'first':
        return this.mask === 0 ? undefined : bits
      case 'change':
        return bits === 0 ? undefined : bits
      case 'unknown':
      case 'nothing':
        return undefined
    }
  }
}
