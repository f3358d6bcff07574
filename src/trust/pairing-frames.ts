import { MAX_NOISE_MESSAGE_BYTES } from './noise.ts'
import { PairingError } from './pairing.ts'

/** Puts a message on the wire: u16 length, big-endian | body. */
export function frame(body: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(2 + body.length)
  bytes.writeUInt16BE(body.length)
  bytes.set(body, 2)
  return bytes
}

/** Joins what a stream delivers to messages, wherever the chunks are cut. Keeps at most one message. */
export class FrameReader {
  readonly #buffer = Buffer.alloc(2 + MAX_NOISE_MESSAGE_BYTES)
  #have = 0;

  /**
   * Gives the chunk's messages one at a time, each a copy.
   * @throws PairingError for a length that no message has, before any of it is kept
   */
  *push(chunk: Uint8Array): Generator<Uint8Array, void> {
    let at = 0
    while (at < chunk.length) {
      const wanted = this.#have < 2 ? 2 : 2 + this.#length()
      const piece = chunk.subarray(at, at + wanted - this.#have)
      this.#buffer.set(piece, this.#have)
      this.#have += piece.length
      at += piece.length
      if (this.#have < 2) continue
      const length = this.#length()
      if (length === 0 || length > MAX_NOISE_MESSAGE_BYTES) throw new PairingError('malformed')
      if (this.#have < 2 + length) continue
      this.#have = 0
      yield Uint8Array.from(this.#buffer.subarray(2, 2 + length))
    }
  }

  #length(): number {
    return this.#buffer.readUInt16BE(0)
  }
}
