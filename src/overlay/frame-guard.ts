/**
 * Watches the yamux frames a peer sends, before the muxer sees them. The muxer's decoder keeps a DATA frame until it is
 * complete, whatever length it announces (up to 4 GiB), and answers pings and new streams as fast as they come.
 *
 *   u8 version | u8 type | u16 flags | u32 stream | u32 length      big-endian
 *   followed by `length` bytes when the type is 0 (DATA); in other types `length` means something else
 *
 * See https://github.com/hashicorp/yamux/blob/master/spec.md
 */

const HEADER_BYTES = 12
const TYPE_DATA = 0
const TYPE_PING = 2
const TYPE_GO_AWAY = 3
const FLAG_SYN = 1

/** The receive window of a stream: no honest frame is longer. */
export const MAX_DATA_BYTES = 256 * 1024

/** Every channel of a large agent attaches at once; after that, streams are rare. */
const STREAMS = { burst: 512, perSecond: 64 }
/** Muxers ping every 10 to 30 s. */
const PINGS = { burst: 64, perSecond: 4 }

/** The peer broke the rules of the muxer; the connection has to end. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

export class FrameGuard {
  readonly #header = new Uint8Array(HEADER_BYTES)
  readonly #view = new DataView(this.#header.buffer)
  #headerBytes = 0
  #dataBytesLeft = 0
  #goneAway = false
  readonly #streams = new Allowance(STREAMS)
  readonly #pings = new Allowance(PINGS)

  /** Whether the peer has said that it is done with the connection. */
  get goneAway(): boolean {
    return this.#goneAway
  }

  /**
   * Takes the next bytes of the connection, cut anywhere.
   * @throws FrameError at the header of a frame that must not be; the guard is spent then
   */
  push(bytes: Uint8Array, nowMs: number): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#dataBytesLeft > 0) {
        const skipped = Math.min(this.#dataBytesLeft, bytes.length - at)
        this.#dataBytesLeft -= skipped
        at += skipped
        continue
      }
      const taken = bytes.subarray(at, at + HEADER_BYTES - this.#headerBytes)
      this.#header.set(taken, this.#headerBytes)
      this.#headerBytes += taken.length
      at += taken.length
      if (this.#headerBytes < HEADER_BYTES) return
      this.#headerBytes = 0
      this.#check(nowMs)
    }
  }

  #check(nowMs: number): void {
    const type = this.#view.getUint8(1)
    const opens = (this.#view.getUint16(2) & FLAG_SYN) !== 0
    if (type === TYPE_DATA) {
      const length = this.#view.getUint32(8)
      if (length > MAX_DATA_BYTES) throw new FrameError(`a frame of ${length} bytes exceeds every window`)
      this.#dataBytesLeft = length
    }
    if (type === TYPE_GO_AWAY) this.#goneAway = true
    if (type === TYPE_PING) {
      if (!this.#pings.take(nowMs)) throw new FrameError('too many pings')
    } else if (opens && !this.#streams.take(nowMs)) throw new FrameError('too many new streams')
  }
}

/** A token bucket. */
class Allowance {
  readonly #burst: number
  readonly #perSecond: number
  #left: number
  #asOfMs = 0

  constructor({ burst, perSecond }: { burst: number; perSecond: number }) {
    this.#burst = burst
    this.#perSecond = perSecond
    this.#left = burst
  }

  take(nowMs: number): boolean {
    const earned = (Math.max(0, nowMs - this.#asOfMs) / 1000) * this.#perSecond
    this.#left = Math.min(this.#burst, this.#left + earned)
    this.#asOfMs = nowMs
    if (this.#left < 1) return false
    this.#left--
    return true
  }
}
