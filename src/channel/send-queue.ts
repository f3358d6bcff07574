import { allocData, DATA_HEADER_BYTES, encodeEnd, INITIAL_WINDOW, MAX_PAYLOAD } from './frames.ts'
import { violation } from './reason.ts'

/** What a kept frame costs beside its bytes. Uncounted, one-byte writes would hold many times the cap. */
const FRAME_OVERHEAD = 128
/** Payload that is worth a frame of its own, however small the peer's window is. */
const MIN_PAYLOAD = 1024

interface KeptFrame {
  readonly type: 'data' | 'end'
  /** The numbers it covers: from start up to, not including, end. */
  readonly start: number
  readonly end: number
  readonly bytes: Buffer
}

/**
 * The sending half of a channel's numbers: keeps every frame until the peer's reader has taken all of it, and says what
 * may be sent now. Knows no carrier. Numbers that an honest peer can't name throw ERR_PROTOCOL.
 */
export class SendQueue {
  /** In order; the first is the oldest not wholly acknowledged. */
  readonly #frames: KeptFrame[] = []
  /** Index of the first frame not yet sent on this carrier. */
  #next = 0
  #bytesWritten = 0
  #ended = false
  /** The number behind the highest ever sent, on any carrier. */
  #sent = 0
  #acknowledged = 0
  /** The first number without credit. */
  #limit = INITIAL_WINDOW
  #peerWindow = INITIAL_WINDOW
  #retainedBytes = 0
  #bytesSent = 0
  #bytesResent = 0

  /** Memory held, headers and bookkeeping included. */
  get retainedBytes(): number {
    return this.#retainedBytes
  }

  /** The number behind the last byte appended. */
  get bytesWritten(): number {
    return this.#bytesWritten
  }

  /** Bytes appended and not yet taken by the peer's reader. */
  get unacknowledgedBytes(): number {
    return Math.max(0, this.#bytesWritten - this.#acknowledged)
  }

  /** True while the peer owes an acknowledgement. */
  get outstanding(): boolean {
    return this.#next > 0
  }

  /** True once the peer's reader has taken every byte and the END. */
  get finished(): boolean {
    return this.#ended && this.#acknowledged > this.#bytesWritten
  }

  /** Payload bytes given to carriers, each counted once. */
  get bytesSent(): number {
    return this.#bytesSent
  }

  /** Payload bytes given to a further carrier. */
  get bytesResent(): number {
    return this.#bytesResent
  }

  /** Copies the chunks into frames; the caller may use its buffers again. */
  append(chunks: readonly Buffer[]): void {
    const source = this.#joinedWithUnsent(chunks)
    // A quarter of the window: the credit comes back in quarters, so there is nearly always room for one.
    const largest = Math.min(MAX_PAYLOAD, Math.max(MIN_PAYLOAD, this.#peerWindow >>> 2))
    let left = source.reduce((sum, chunk) => sum + chunk.length, 0)
    let index = 0
    let from = 0
    while (left > 0) {
      const start = this.#bytesWritten
      const length = Math.min(left, largest)
      const bytes = allocData(start, length)
      let filled = DATA_HEADER_BYTES
      while (filled < bytes.length) {
        const chunk = source[index] as Buffer
        const copied = chunk.copy(bytes, filled, from)
        filled += copied
        from += copied
        if (from === chunk.length) {
          index++
          from = 0
        }
      }
      this.#bytesWritten += length
      left -= length
      this.#keep({ type: 'data', start, end: start + length, bytes })
    }
  }

  /** No bytes follow. */
  end(): void {
    this.#ended = true
    const start = this.#bytesWritten
    this.#keep({ type: 'end', start, end: start + 1, bytes: encodeEnd(start) })
  }

  /** The next frame to send, if the credit allows one. It counts as sent. */
  take(): Buffer | undefined {
    let frame = this.#frames[this.#next]
    if (frame === undefined) return undefined
    if (frame.type === 'data' && frame.end > this.#limit) {
      const room = this.#limit - frame.start
      // No crumbs: while something is under way, its acknowledgement brings more.
      if (room <= 0 || (this.#next > 0 && room < this.#peerWindow >>> 2)) return undefined
      frame = this.#split(frame, this.#limit)
    }
    this.#next++
    if (frame.type === 'data') {
      const again = Math.max(0, Math.min(frame.end, this.#sent) - frame.start)
      this.#bytesResent += again
      this.#bytesSent += frame.end - frame.start - again
    }
    this.#sent = Math.max(this.#sent, frame.end)
    return frame.bytes
  }

  /** The peer's ACK: its reader has taken all numbers below `consumed` and there is room for `window` more bytes. */
  acknowledge(consumed: number, window: number): void {
    if (consumed > this.#sent) throw violation('acknowledged what was never sent')
    if (consumed < this.#acknowledged) throw violation('took back an acknowledgement')
    this.#acknowledged = consumed
    this.#peerWindow = window
    this.#limit = Math.max(this.#limit, consumed + window)
    let taken = 0
    for (const { end, bytes } of this.#frames) {
      if (end > consumed) break
      this.#retainedBytes -= bytes.length + FRAME_OVERHEAD
      taken++
    }
    if (taken > 0) this.#frames.splice(0, taken)
    this.#next = Math.max(0, this.#next - taken)
  }

  /**
   * A new carrier: sending goes on from the peer's count. That count may be older than the newest ACK, for the old
   * carrier went on working while the peer's hello was under way on the new one.
   */
  rewind(peerReceived: number): void {
    if (!(peerReceived >= 0 && peerReceived <= this.#sent)) throw violation('received what was never sent')
    const index = this.#frames.findIndex(({ end }) => end > peerReceived)
    this.#next = index === -1 ? this.#frames.length : index
  }

  #keep(frame: KeptFrame): void {
    this.#frames.push(frame)
    this.#retainedBytes += frame.bytes.length + FRAME_OVERHEAD
  }

  /** Small writes that have to wait share a frame: takes back the last one, if it was never sent, to be framed anew. */
  #joinedWithUnsent(chunks: readonly Buffer[]): readonly Buffer[] {
    const last = this.#frames.at(-1)
    if (last === undefined || last.start < this.#sent || last.end - last.start >= MIN_PAYLOAD) return chunks
    this.#frames.pop()
    this.#retainedBytes -= last.bytes.length + FRAME_OVERHEAD
    this.#bytesWritten = last.start
    return [last.bytes.subarray(DATA_HEADER_BYTES), ...chunks]
  }

  /** Cuts the next frame in two and gives the first part, which ends at `at`. */
  #split(frame: KeptFrame, at: number): KeptFrame {
    const payload = frame.bytes.subarray(DATA_HEADER_BYTES)
    const first = dataFrame(frame.start, payload.subarray(0, at - frame.start))
    const second = dataFrame(at, payload.subarray(at - frame.start))
    this.#frames.splice(this.#next, 1, first, second)
    this.#retainedBytes += DATA_HEADER_BYTES + FRAME_OVERHEAD
    return first
  }
}

function dataFrame(start: number, payload: Buffer): KeptFrame {
  const bytes = allocData(start, payload.length)
  payload.copy(bytes, DATA_HEADER_BYTES)
  return { type: 'data', start, end: start + payload.length, bytes }
}
