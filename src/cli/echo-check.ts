import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'

/** Fifteen digits and a line feed: so each byte's place in the stream says what it has to be. */
const LINE_BYTES = 16
/** So many are on their way at any time: a path that changes finds some. */
const LINES_UNDER_WAY = 8
const LAST_LINES_MS = 5_000

/** What came back, of what was sent. */
export interface Echoed {
  readonly bytes: number
  /** Of the bytes that were sent and of those that came back, in hexadecimal digits. */
  readonly sha256: string
}

/** Sends numbered lines to a port with a loop plug, and looks at every byte that comes back. */
export class EchoCheck {
  readonly #port: Duplex
  readonly #sent = createHash('sha256')
  readonly #received = createHash('sha256')
  readonly #sentAtMs: number[] = []
  readonly #over = Promise.withResolvers<void>()
  #roundTripsMs: number[] = []
  #receivedBytes = 0
  #stopping = false

  constructor(port: Duplex) {
    this.#port = port
    this.#over.promise.catch(() => {})
    port.on('data', this.#onData).once('error', this.#over.reject)
    for (let line = 0; line < LINES_UNDER_WAY; line++) this.#send()
  }

  /** The median of the round trips since it was last asked for; NaN when there were none. */
  takeRoundTripMs(): number {
    const sorted = this.#roundTripsMs.toSorted((a, b) => a - b)
    this.#roundTripsMs = []
    return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
  }

  /**
   * Sends no more, and waits for what is under way.
   * @throws FarportError when a byte was lost, repeated or changed
   */
  async finish(): Promise<Echoed> {
    this.#stopping = true
    const sentBytes = this.#sentAtMs.length * LINE_BYTES
    const late = setTimeout(
      () => this.#over.reject(wrong(`${sentBytes - this.#receivedBytes} bytes did not come back`)),
      LAST_LINES_MS,
    )
    try {
      await this.#over.promise
    } finally {
      clearTimeout(late)
      this.#port.off('data', this.#onData).off('error', this.#over.reject)
    }
    const [sha256, received] = [this.#sent.digest('hex'), this.#received.digest('hex')]
    if (sha256 !== received) throw wrong('what came back has another checksum')
    return { bytes: this.#receivedBytes, sha256 }
  }

  #send(): void {
    const line = lineOf(this.#sentAtMs.length)
    this.#sentAtMs.push(performance.now())
    this.#sent.update(line)
    this.#port.write(line)
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#received.update(chunk)
    for (const byte of chunk) {
      const line = Math.floor(this.#receivedBytes / LINE_BYTES)
      const place = this.#receivedBytes++ % LINE_BYTES
      if (byte !== lineOf(line)[place])
        this.#over.reject(wrong(`byte ${this.#receivedBytes} is another one than was sent`))
      if (place === LINE_BYTES - 1) this.#completed(line)
    }
  }

  #completed(line: number): void {
    this.#roundTripsMs.push(performance.now() - (this.#sentAtMs[line] ?? Number.NaN))
    if (!this.#stopping) this.#send()
    else if (line === this.#sentAtMs.length - 1) this.#over.resolve()
  }
}

function lineOf(number: number): Buffer {
  return Buffer.from(`${String(number).padStart(LINE_BYTES - 1, '0')}\n`)
}

function wrong(what: string): FarportError {
  return new FarportError('ERR_INTERNAL', `the echo is not what was sent: ${what}`)
}
