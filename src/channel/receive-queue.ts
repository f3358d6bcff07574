import { INITIAL_WINDOW } from './frames.ts'
import { violation } from './reason.ts'

const BLOCK_BYTES = 4096

interface Block {
  readonly bytes: Buffer
  filled: number
}

/**
 * The receiving half of a channel's numbers: passes each byte once and in order, whatever a carrier repeats, and keeps
 * what the reader has no time for. What an honest peer can't send throws ERR_PROTOCOL.
 */
export class ReceiveQueue {
  readonly #blocks: Block[] = []
  #bufferedBytes = 0
  #bytesReceived = 0
  #ended = false
  /** The first number without credit: the highest ever promised, for a promise can't be taken back. */
  #limit = INITIAL_WINDOW

  get bytesReceived(): number {
    return this.#bytesReceived
  }

  /** All numbers taken in order, the END included. */
  get received(): number {
    return this.#ended ? this.#bytesReceived + 1 : this.#bytesReceived
  }

  get ended(): boolean {
    return this.#ended
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes
  }

  /** The part of the payload that is new, as a view of it. */
  accept(offset: number, payload: Buffer): Buffer | undefined {
    const end = offset + payload.length
    if (offset > this.#bytesReceived) throw violation('left out bytes')
    if (end <= this.#bytesReceived) return undefined
    if (this.#ended) throw violation('sent bytes behind the end')
    if (end > this.#limit) throw violation('sent more than it had credit for')
    const fresh = payload.subarray(this.#bytesReceived - offset)
    this.#bytesReceived = end
    return fresh
  }

  acceptEnd(offset: number): void {
    if (offset !== this.#bytesReceived) throw violation('ended at the wrong place')
    this.#ended = true
  }

  /** Copies: a view would hold on to the whole chunk it came in, however few of its bytes are ours. */
  keep(bytes: Buffer): void {
    this.#bufferedBytes += bytes.length
    let at = 0
    while (at < bytes.length) {
      let block = this.#blocks.at(-1)
      if (block === undefined || block.filled === block.bytes.length) {
        // Slow, for it has its own memory: a block may wait for long, and would hold on to a slab of the pool.
        block = { bytes: Buffer.allocUnsafeSlow(BLOCK_BYTES), filled: 0 }
        this.#blocks.push(block)
      }
      const copied = bytes.copy(block.bytes, block.filled, at)
      block.filled += copied
      at += copied
    }
  }

  /** The oldest kept bytes, at most a block of them. */
  take(): Buffer | undefined {
    const block = this.#blocks.shift()
    if (block === undefined) return undefined
    this.#bufferedBytes -= block.filled
    return block.bytes.subarray(0, block.filled)
  }

  discard(): void {
    this.#blocks.length = 0
    this.#bufferedBytes = 0
  }

  /** Promises room for `window` bytes beyond `consumed`; answers with what that makes in all, earlier promises included. */
  grant(consumed: number, window: number): number {
    this.#limit = Math.max(this.#limit, consumed + window)
    return this.#limit - consumed
  }
}
