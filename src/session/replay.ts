/** The last bytes a device has sent, for who begins to watch later. A ring of fixed size: nothing else is kept alive by it. */
export class Replay {
  readonly #ring: Buffer
  /** Where the next byte goes. */
  #at = 0
  #length = 0

  constructor(bytes: number) {
    this.#ring = Buffer.alloc(bytes)
  }

  push(bytes: Uint8Array): void {
    const size = this.#ring.length
    if (size === 0) return
    const kept = bytes.subarray(Math.max(0, bytes.length - size))
    const head = kept.subarray(0, size - this.#at)
    this.#ring.set(head, this.#at)
    this.#ring.set(kept.subarray(head.length), 0)
    this.#at = (this.#at + kept.length) % size
    this.#length = Math.min(size, this.#length + kept.length)
  }

  /** A copy of the last bytes, at most so many. */
  last(bytes: number): Buffer {
    const length = Math.min(this.#length, bytes)
    const from = this.#at - length
    if (from >= 0) return Buffer.from(this.#ring.subarray(from, this.#at))
    return Buffer.concat([this.#ring.subarray(from), this.#ring.subarray(0, this.#at)])
  }
}
