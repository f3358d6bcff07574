/** Bytes as they arrive, given back in pieces of the length asked for; copied only where a piece came in parts. */
export class ByteQueue {
  #parts: Uint8Array[] = []
  #length = 0

  get length(): number {
    return this.#length
  }

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.#parts.push(bytes)
    this.#length += bytes.length
  }

  /** The next bytes, which stay; there have to be that many. */
  peek(length: number): Uint8Array {
    return this.#first(length).subarray(0, length)
  }

  take(length: number): Uint8Array {
    if (length === 0) return new Uint8Array(0)
    const first = this.#first(length)
    this.#length -= length
    if (first.length === length) this.#parts.shift()
    else this.#parts[0] = first.subarray(length)
    return first.length === length ? first : first.subarray(0, length)
  }

  /** The first part, made to hold that many at least. */
  #first(length: number): Uint8Array {
    let [first] = this.#parts
    if (first === undefined || length > this.#length) throw new RangeError('not that many bytes')
    if (first.length >= length) return first
    let parts = 0
    for (let bytes = 0; bytes < length; parts++) bytes += this.#parts[parts]?.length ?? 0
    first = Buffer.concat(this.#parts.slice(0, parts))
    this.#parts.splice(0, parts, first)
    return first
  }
}
