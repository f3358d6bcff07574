import { createHash, randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'

const TICK_MS = 10
const FLOW_TIMEOUT_MS = 30_000

interface Direction {
  readonly sent: ReturnType<typeof createHash>
  readonly got: ReturnType<typeof createHash>
  readonly waiting: Buffer[]
  sentBytes: number
  gotBytes: number
  lastMs: number
  silences: { atMs: number; ms: number }[]
}

/**
 * Random bytes both ways between two ends of a path, at the pace of a serial line, with what arrives compared byte by byte
 * and its silences noted.
 */
export class TwoWay {
  readonly #directions: Record<'up' | 'down', Direction>
  readonly #timer: NodeJS.Timeout
  readonly #bytesPerS: number
  #fault: Error | undefined
  #beganMs = performance.now()

  /** @param near the program, @param far the device; `up` is towards the device */
  constructor(near: Duplex, far: Duplex, bytesPerS: number) {
    this.#bytesPerS = bytesPerS
    this.#directions = { up: this.#direction(near, far), down: this.#direction(far, near) }
    this.#timer = setInterval(() => {
      this.#send(this.#directions.up, near)
      this.#send(this.#directions.down, far)
    }, TICK_MS)
  }

  /** The longest time without a byte in either direction since `sinceMs`, a time of `performance.now()`. */
  longestSilenceMs(sinceMs: number): number {
    const now = performance.now()
    return Object.values(this.#directions)
      .flatMap(({ silences, lastMs }) => [...silences, { atMs: now, ms: now - lastMs }])
      .filter(({ atMs }) => atMs >= sinceMs)
      .reduce((longest, { atMs, ms }) => Math.max(longest, Math.min(ms, atMs - sinceMs)), 0)
  }

  /** Resolves when something more has arrived, each way. @throws when that takes too long */
  async flows(): Promise<void> {
    const { up, down } = this.#directions
    const sinceMs = performance.now()
    while (up.lastMs < sinceMs || down.lastMs < sinceMs) {
      if (performance.now() - sinceMs > FLOW_TIMEOUT_MS) throw new Error('no bytes arrive any more')
      await sleep(10)
    }
  }

  /** How many bytes are on their way, in both directions. */
  get outstanding(): number {
    const { up, down } = this.#directions
    return up.sentBytes - up.gotBytes + down.sentBytes - down.gotBytes
  }

  get bytes(): { up: number; down: number } {
    return { up: this.#directions.up.gotBytes, down: this.#directions.down.gotBytes }
  }

  /** Sends no more. */
  stop(): void {
    clearInterval(this.#timer)
  }

  /** SHA-256 of what was sent and of what arrived, each way. @throws at once when a byte was another one than was sent */
  digests(): Record<'up' | 'down', { sent: string; got: string }> {
    if (this.#fault !== undefined) throw this.#fault
    const { up, down } = this.#directions
    const digest = ({ sent, got }: Direction) => ({
      sent: sent.copy().digest('hex'),
      got: got.copy().digest('hex'),
    })
    return { up: digest(up), down: digest(down) }
  }

  #direction(from: Duplex, to: Duplex): Direction {
    const direction: Direction = {
      sent: createHash('sha256'),
      got: createHash('sha256'),
      waiting: [],
      sentBytes: 0,
      gotBytes: 0,
      lastMs: performance.now(),
      silences: [],
    }
    to.on('data', (chunk: Buffer) => this.#take(direction, chunk))
    from.on('error', (error) => this.#fail(error))
    return direction
  }

  #send(direction: Direction, to: Duplex): void {
    if (to.writableNeedDrain) return
    // A line that was held up does not go faster afterwards than a line can: twice its pace is what a UART's owner sees.
    const due = (this.#bytesPerS * (performance.now() - this.#beganMs)) / 1000 - direction.sentBytes
    const bytes = randomBytes(Math.max(0, Math.min(Math.floor(due), (2 * this.#bytesPerS * TICK_MS) / 1000)))
    if (bytes.length === 0) return
    direction.sent.update(bytes)
    direction.sentBytes += bytes.length
    direction.waiting.push(bytes)
    to.write(bytes)
  }

  #take(direction: Direction, chunk: Buffer): void {
    const now = performance.now()
    direction.silences.push({ atMs: now, ms: now - direction.lastMs })
    direction.lastMs = now
    direction.got.update(chunk)
    for (let rest = chunk; rest.length > 0; ) {
      const expected = direction.waiting[0]
      if (expected === undefined) {
        this.#fail(new Error(`${rest.length} bytes too many`))
        return
      }
      const common = Math.min(expected.length, rest.length)
      if (!expected.subarray(0, common).equals(rest.subarray(0, common))) {
        this.#fail(new Error(`a wrong byte after ${direction.gotBytes}`))
        return
      }
      direction.gotBytes += common
      rest = rest.subarray(common)
      if (common === expected.length) direction.waiting.shift()
      else direction.waiting[0] = expected.subarray(common)
    }
  }

  #fail(error: Error): void {
    this.#fault ??= error
    this.stop()
  }
}
