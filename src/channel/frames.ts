/**
 * What a channel says over a carrier: frames back to back, both ways, numbers big-endian.
 *
 *   DATA   01 | offset u48 | length u16, 1 to 16384 | payload
 *   END    02 | offset u48                            no bytes follow: offset is how many there were
 *   ACK    03 | consumed u48 | window u32             consumed: taken by the reader, never asked for again
 *   PING   04 | token u32
 *   PONG   05 | token u32                             the token of the PING it answers
 *   CLOSE  06 | length u16, at most 1024 | UTF-8      the channel is over, now: see reason.ts
 *   MARK   07 | offset u48                            what the bytes below offset say is not wanted any more
 *
 * Each direction of a channel is numbered by byte, from 0, for the channel's whole life; a new carrier goes on counting.
 * END takes the number behind the last byte, so it is acknowledged and sent again just like a byte.
 *
 * MARK is telnet's Synch (RFC 854) for a channel: it overtakes the bytes it is about, which still come and still count.
 *
 * A sender may send the bytes below consumed + window of the newest ACK, at first those below INITIAL_WINDOW; END needs
 * no credit. Credit once given stays given.
 */

/** The longest payload of one DATA frame. */
export const MAX_PAYLOAD = 16 * 1024
/** Bytes either end may send before the first ACK, and what a receiver must have room for. */
export const INITIAL_WINDOW = 16 * 1024
export const DATA_HEADER_BYTES = 9

const MAX_REASON = 1024
const MAX_OFFSET = 2 ** 48 - 1

const DATA = 1
const END = 2
const ACK = 3
const PING = 4
const PONG = 5
const CLOSE = 6
const MARK = 7

export type Frame =
  /** A DATA frame or a piece of one, each with the offset of its own first byte; a view of the chunk it came in. */
  | { type: 'data'; offset: number; payload: Buffer }
  | { type: 'end' | 'mark'; offset: number }
  | { type: 'ack'; consumed: number; window: number }
  | { type: 'ping' | 'pong'; token: number }
  | { type: 'close'; reason: string }

export class FrameError extends Error {
  override readonly name = 'FrameError'
}

/** A DATA frame with room for its payload behind the header; the caller fills it in. */
export function allocData(offset: number, length: number): Buffer {
  const frame = Buffer.allocUnsafe(DATA_HEADER_BYTES + length)
  frame[0] = DATA
  frame.writeUIntBE(offset, 1, 6)
  frame.writeUInt16BE(length, 7)
  return frame
}

export function encodeEnd(offset: number): Buffer {
  return encodeOffset(END, offset)
}

export function encodeMark(offset: number): Buffer {
  return encodeOffset(MARK, offset)
}

export function encodeAck(consumed: number, window: number): Buffer {
  const frame = Buffer.allocUnsafe(11)
  frame[0] = ACK
  frame.writeUIntBE(consumed, 1, 6)
  frame.writeUInt32BE(window, 7)
  return frame
}

export function encodePing(token: number): Buffer {
  return encodeToken(PING, token)
}

export function encodePong(token: number): Buffer {
  return encodeToken(PONG, token)
}

/** A reason too long for the frame loses its tail, at a character's edge. */
export function encodeClose(reason: string): Buffer {
  const frame = Buffer.allocUnsafe(3 + MAX_REASON)
  const { written } = new TextEncoder().encodeInto(reason, frame.subarray(3))
  frame[0] = CLOSE
  frame.writeUInt16BE(written, 1)
  return frame.subarray(0, 3 + written)
}

function encodeOffset(type: number, offset: number): Buffer {
  const frame = Buffer.allocUnsafe(7)
  frame[0] = type
  frame.writeUIntBE(offset, 1, 6)
  return frame
}

function encodeToken(type: number, token: number): Buffer {
  const frame = Buffer.allocUnsafe(5)
  frame[0] = type
  frame.writeUInt32BE(token, 1)
  return frame
}

type State =
  | { in: 'header' }
  | { in: 'payload'; offset: number; left: number }
  | { in: 'reason'; bytes: Buffer; have: number }

/**
 * Splits what a carrier delivers into frames, wherever the chunks are cut. Payload is passed on as it comes, so never
 * more than a header or a reason is kept. After a FrameError the decoder is spent.
 */
export class FrameDecoder {
  #state: State = { in: 'header' }
  /** The frame's fixed part, as far as it has come: the longest is an ACK. */
  readonly #header = Buffer.alloc(11)
  #have = 0;

  /** Gives the chunk's frames one at a time; take them all before the next push. */
  *push(chunk: Buffer): Generator<Frame, void> {
    let at = 0
    while (at < chunk.length) {
      const state = this.#state
      switch (state.in) {
        case 'header': {
          if (this.#have === 0) this.#header[this.#have++] = chunk[at++] as number
          const size = headerBytes(this.#header[0] as number)
          const taken = chunk.copy(this.#header, this.#have, at, at + size - this.#have)
          at += taken
          this.#have += taken
          if (this.#have < size) break
          this.#have = 0
          const frame = this.#headerRead()
          if (frame !== undefined) yield frame
          break
        }
        case 'payload': {
          const payload = chunk.subarray(at, at + state.left)
          const { offset } = state
          at += payload.length
          state.offset += payload.length
          state.left -= payload.length
          if (state.left === 0) this.#state = { in: 'header' }
          yield { type: 'data', offset, payload }
          break
        }
        case 'reason': {
          const taken = chunk.copy(state.bytes, state.have, at)
          at += taken
          state.have += taken
          if (state.have < state.bytes.length) break
          this.#state = { in: 'header' }
          yield { type: 'close', reason: utf8(state.bytes) }
          break
        }
      }
    }
  }

  /** Gives the frame where the header is all of it, else turns to what follows. */
  #headerRead(): Frame | undefined {
    const header = this.#header
    const offset = () => header.readUIntBE(1, 6)
    const token = () => header.readUInt32BE(1)
    switch (header[0]) {
      case END:
        return { type: 'end', offset: offset() }
      case MARK:
        return { type: 'mark', offset: offset() }
      case ACK:
        return { type: 'ack', consumed: offset(), window: header.readUInt32BE(7) }
      case PING:
        return { type: 'ping', token: token() }
      case PONG:
        return { type: 'pong', token: token() }
      case DATA: {
        const left = header.readUInt16BE(7)
        if (left === 0 || left > MAX_PAYLOAD) throw new FrameError(`DATA of ${left} bytes`)
        if (offset() > MAX_OFFSET - left) throw new FrameError('DATA beyond the last number')
        this.#state = { in: 'payload', offset: offset(), left }
        return undefined
      }
      default: {
        const length = header.readUInt16BE(1)
        if (length > MAX_REASON) throw new FrameError(`CLOSE of ${length} bytes`)
        if (length === 0) return { type: 'close', reason: '' }
        this.#state = { in: 'reason', bytes: Buffer.alloc(length), have: 0 }
        return undefined
      }
    }
  }
}

function headerBytes(type: number): number {
  switch (type) {
    case DATA:
      return DATA_HEADER_BYTES
    case END:
    case MARK:
      return 7
    case ACK:
      return 11
    case PING:
    case PONG:
      return 5
    case CLOSE:
      return 3
    default:
      throw new FrameError(`unknown frame type ${type}`)
  }
}

function utf8(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new FrameError('CLOSE is not UTF-8')
  }
}
