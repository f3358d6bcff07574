const SECOND = 1000
/** How long nothing may be heard: before asking, and before giving the carrier up. */
const WAITING = { askAfterMs: 1 * SECOND, deadAfterMs: 3 * SECOND }
const IDLE = { askAfterMs: 5 * SECOND, deadAfterMs: 15 * SECOND }
/** A timer this late says that this process slept or was busy, and so nothing about the peer. */
const LATE_MS = 1 * SECOND

interface HeartbeatOptions {
  /** Milliseconds, never going back. */
  clock: () => number
  /** Since when an acknowledgement is due, on the same clock; undefined while none is. */
  waitingSince: () => number | undefined
  sendPing: (token: number) => void
  onRoundTrip: (smoothedMs: number) => void
  onSilent: () => void
}

/**
 * Watches over one carrier: asks for a sign of life where none comes by itself, and measures the round trip. One PING
 * at a time: a carrier keeps order, so a second one could not arrive sooner.
 *
 * One timer, not touched by traffic. It looks about once a second, so that the first unacknowledged byte need not set it.
 */
export class Heartbeat {
  readonly #options: HeartbeatOptions
  readonly #clock: () => number
  #timer: NodeJS.Timeout | undefined
  #dueAt = 0
  #heardAt: number
  #pingedAt: number
  #token = 0
  #answered = true
  #roundTripMs: number | undefined

  constructor(options: HeartbeatOptions) {
    this.#options = options
    this.#clock = options.clock
    this.#heardAt = this.#clock()
    this.#pingedAt = this.#heardAt
  }

  start(): void {
    this.#wait(WAITING.askAfterMs)
    this.#ping()
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  /** Something came from the peer. */
  heard(): void {
    this.#heardAt = this.#clock()
  }

  pong(token: number): void {
    if (this.#answered || token !== this.#token) return
    this.#answered = true
    const sample = this.#clock() - this.#pingedAt
    // RFC 6298's smoothing.
    this.#roundTripMs =
      this.#roundTripMs === undefined ? sample : this.#roundTripMs + (sample - this.#roundTripMs) / 8
    this.#options.onRoundTrip(this.#roundTripMs)
  }

  #ping(): void {
    this.#answered = false
    this.#pingedAt = this.#clock()
    this.#token = (this.#token + 1) >>> 0
    this.#options.sendPing(this.#token)
  }

  #look(): void {
    const now = this.#clock()
    if (now - this.#dueAt > LATE_MS) this.#heardAt = now
    const waitingSince = this.#options.waitingSince()
    const quietMs = now - Math.max(this.#heardAt, waitingSince ?? 0)
    const { askAfterMs, deadAfterMs } = this.#limits(waitingSince !== undefined)
    if (quietMs >= deadAfterMs) {
      this.#options.onSilent()
      return
    }
    const pingAgeMs = now - this.#pingedAt
    const ask = this.#answered && (quietMs >= askAfterMs || pingAgeMs >= IDLE.askAfterMs)
    const nextMs =
      this.#answered && !ask
        ? Math.min(askAfterMs - quietMs, IDLE.askAfterMs - pingAgeMs)
        : deadAfterMs - quietMs
    this.#wait(Math.min(nextMs, WAITING.askAfterMs))
    if (ask) this.#ping()
  }

  #wait(ms: number): void {
    this.#dueAt = this.#clock() + ms
    this.#timer = setTimeout(() => this.#look(), Math.ceil(ms))
  }

  /** A path with a long round trip, or a queue in front of it, is slow and not dead. */
  #limits(waiting: boolean): { askAfterMs: number; deadAfterMs: number } {
    if (!waiting) return IDLE
    const slow = this.#roundTripMs ?? 0
    return {
      askAfterMs: Math.min(IDLE.askAfterMs, Math.max(WAITING.askAfterMs, 2 * slow)),
      deadAfterMs: Math.min(IDLE.deadAfterMs, Math.max(WAITING.deadAfterMs, 4 * slow)),
    }
  }
}
