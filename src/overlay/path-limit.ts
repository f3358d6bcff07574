import type { TcpState } from './tcp-options.ts'

/** How much longer a round trip may take because of what we send, before we send less; and below which we send more. */
const QUEUE_MS = { most: 15, least: 5 }
/** Six packets: with fewer, one that is lost is not noticed before its time-out. */
const MIN_BYTES = 8 * 1024
const STEP_BYTES = 3 * 1024
/** More than a path of 1 Gbit/s and 100 ms holds is no limit. */
const MAX_BYTES = 16 * 1024 * 1024

/**
 * How many bytes may be under way, so that they do not pile up before the slowest link: what waits there delays every port
 * by as much, a keystroke by a quarter of a second at 1 Mbit/s, and when that queue overflows, TCP holds up all of them
 * for a lost packet. Loss is what TCP itself waits for; this looks at the round trip, as TCP Vegas and LEDBAT (RFC 6817) do.
 */
export class PathLimit {
  #bytes = Number.POSITIVE_INFINITY
  #changedAtMs = Number.NEGATIVE_INFINITY

  /** Infinity until a queue was seen. */
  get bytes(): number {
    return this.#bytes
  }

  /** To be told now and then while there is more to send than may be. */
  learn({ roundTripMs, variationMs, minRoundTripMs }: TcpState, underWayBytes: number, nowMs: number): void {
    // What was changed shows one round trip later.
    if (nowMs - this.#changedAtMs < 1.5 * roundTripMs) return
    // A queue is there for every packet; a radio, or a busy machine, delays some.
    const queueMs = roundTripMs - 2 * variationMs - minRoundTripMs
    // Little under way makes no queue: its acknowledgements are only late.
    if (queueMs > QUEUE_MS.most && underWayBytes >= MIN_BYTES) {
      const now = Math.min(this.#bytes, underWayBytes)
      const target = minRoundTripMs + (QUEUE_MS.most + QUEUE_MS.least) / 2
      this.#bytes = Math.max(MIN_BYTES, now * Math.max(0.5, target / roundTripMs))
    } else if (queueMs < QUEUE_MS.least && underWayBytes >= this.#bytes) this.#grow()
    else return
    this.#changedAtMs = nowMs
  }

  #grow(): void {
    const bytes = this.#bytes + STEP_BYTES + this.#bytes / 16
    this.#bytes = bytes > MAX_BYTES ? Number.POSITIVE_INFINITY : bytes
  }
}
