import { Duplex } from 'node:stream'

export interface CarrierOptions {
  /** An integer from 0 up to, not including, `below`. Given one, chunks arrive cut at random places. */
  random?: (below: number) => number
  /** What an end takes before `write()` says to wait, in bytes. */
  capacityBytes?: number
}

/** Repeatable chance for `CarrierOptions.random` (a linear congruential generator, Numerical Recipes' constants). */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

/**
 * Two ends of a connection in memory. Bytes arrive some turns of the event loop after they were written; an end that is
 * destroyed resets the other, and what was under way is gone.
 */
export class CarrierPair implements Disposable {
  readonly a: Duplex
  readonly b: Duplex
  readonly #ends: [MemoryCarrier, MemoryCarrier]

  constructor(options: CarrierOptions = {}) {
    const a = new MemoryCarrier(options)
    const b = new MemoryCarrier(options)
    a.far = b
    b.far = a
    this.#ends = [a, b]
    this.a = a
    this.b = b
  }

  /** The connection breaks. */
  cut(): void {
    for (const end of this.#ends) end.destroy(reset())
  }

  /** Nothing arrives any more, or nothing that one end sends, and nobody is told. */
  stall(from?: 'a' | 'b'): void {
    for (const end of this.#ends) if (from === undefined || this[from] === end) end.stall(true)
  }

  flow(): void {
    for (const end of this.#ends) end.stall(false)
  }

  [Symbol.dispose](): void {
    for (const end of this.#ends) end.destroy()
  }
}

/** `bytes` is undefined for the end of the stream. */
interface Sending {
  bytes: Buffer | undefined
  done: (error?: Error | null) => void
}

class MemoryCarrier extends Duplex {
  declare far: MemoryCarrier
  readonly #random: CarrierOptions['random']
  #sending: Sending | undefined
  #hungry = false
  #stalled = false
  #scheduled = false

  constructor({ random, capacityBytes = 64 * 1024 }: CarrierOptions) {
    super({ highWaterMark: capacityBytes })
    this.#random = random
    // What a test does not listen for is not its business.
    this.on('error', () => {})
  }

  stall(stalled: boolean): void {
    this.#stalled = stalled
    this.#schedule()
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: Sending['done']): void {
    this.#sending = { bytes, done }
    this.#schedule()
  }

  override _final(done: Sending['done']): void {
    this.#sending = { bytes: undefined, done }
    this.#schedule()
  }

  override _read(): void {
    this.#hungry = true
    this.far.#schedule()
  }

  override _destroy(error: Error | null, done: Sending['done']): void {
    if (!this.readableEnded || !this.writableFinished) setImmediate(() => this.far.destroy(reset()))
    done(error)
  }

  #schedule(): void {
    if (this.#scheduled || this.#sending === undefined) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#deliver()
    })
  }

  #deliver(): void {
    const { far } = this
    const sending = this.#sending
    if (sending === undefined || this.#stalled || this.destroyed || far.destroyed) return
    if (sending.bytes === undefined) {
      this.#sending = undefined
      far.push(null)
      sending.done()
      return
    }
    if (!far.#hungry) return
    const { length } = sending.bytes
    const some = this.#random === undefined ? length : 1 + this.#random(length)
    far.#hungry = far.push(sending.bytes.subarray(0, some))
    sending.bytes = sending.bytes.subarray(some)
    if (sending.bytes.length === 0) {
      this.#sending = undefined
      sending.done()
    }
    this.#schedule()
  }
}

function reset(): Error {
  return Object.assign(new Error('connection reset'), { code: 'ECONNRESET' })
}
