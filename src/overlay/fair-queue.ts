/** A frame of yamux that waits to leave. */
export interface Outgoing {
  readonly type: number
  readonly flag: number
  readonly streamID: number
  /** How long the data is; of a frame without data a window, a ping's number, a reason. */
  readonly length: number
  readonly data?: Uint8Array | undefined
}

const HEADER_BYTES = 12
/** What a stream may always send in its turn. */
const MIN_QUANTUM_BYTES = 1024

interface Flow {
  readonly streamID: number
  readonly frames: Outgoing[]
  /** Data only. */
  bytes: number
}

/**
 * What waits to leave on one connection. Streams take turns, and one that had nothing waiting goes before those that send
 * without end: so a keystroke on one stream does not wait for a transfer on another. It is the scheduler of fq_codel (RFC
 * 8290, section 4.2) without its dropping, since windows bound what waits; and as data can be cut anywhere, a turn is a
 * number of bytes. Order is kept within a stream.
 */
export class FairQueue {
  /** Windows and pings: of no stream's order, a few bytes each, and somebody waits for them. */
  #urgent: Outgoing[] = []
  readonly #flows = new Map<number, Flow>()
  /** Those that came while they had nothing waiting. */
  #fresh: Flow[] = []
  /** Those that have had a turn; one whose turn finds it empty leaves, and would be fresh again. */
  #others: Flow[] = []
  #frames = 0

  get isEmpty(): boolean {
    return this.#urgent.length === 0 && this.#frames === 0
  }

  /** Data that waits on a stream. */
  bytesOf(streamID: number): number {
    return this.#flows.get(streamID)?.bytes ?? 0
  }

  /** Behind what its stream has here already. */
  push(frame: Outgoing): void {
    const { streamID } = frame
    let flow = this.#flows.get(streamID)
    if (flow === undefined) {
      flow = { streamID, frames: [], bytes: 0 }
      this.#flows.set(streamID, flow)
      this.#fresh.push(flow)
    }
    flow.frames.push(frame)
    flow.bytes += frame.data?.length ?? 0
    this.#frames++
  }

  /** Before everything else. */
  pushUrgent(frame: Outgoing): void {
    this.#urgent.push(frame)
  }

  clear(): void {
    this.#urgent = []
    this.#frames = 0
    this.#forgetFlows()
  }

  /** What leaves next, as it is on the wire: no more than so many bytes, in which a header and some data have to fit. */
  take(maxBytes: number): Uint8Array {
    const taken: Outgoing[] = []
    let left = maxBytes
    for (; this.#urgent.length > 0 && left >= HEADER_BYTES; left -= HEADER_BYTES)
      taken.push(this.#urgent.shift() as Outgoing)
    const quantumBytes = Math.max(MIN_QUANTUM_BYTES, Math.floor(left / this.#flows.size))
    while (this.#frames > 0 && left > HEADER_BYTES) {
      const flow = (this.#fresh.shift() ?? this.#others.shift()) as Flow
      if (flow.frames.length === 0) {
        this.#flows.delete(flow.streamID)
        continue
      }
      for (let turn = Math.min(quantumBytes, left); flow.frames.length > 0 && turn > HEADER_BYTES; ) {
        const frame = this.#cutFrom(flow, turn - HEADER_BYTES)
        const bytes = HEADER_BYTES + (frame.data?.length ?? 0)
        taken.push(frame)
        turn -= bytes
        left -= bytes
      }
      this.#others.push(flow)
    }
    if (this.#frames === 0) this.#forgetFlows()
    return encode(taken, maxBytes - left)
  }

  /** The first frame, or as much of it as there is room for. */
  #cutFrom(flow: Flow, maxBytes: number): Outgoing {
    const frame = flow.frames[0] as Outgoing
    const { data } = frame
    if (data === undefined || data.length <= maxBytes) {
      flow.frames.shift()
      this.#frames--
      flow.bytes -= data?.length ?? 0
      return frame
    }
    // The flags open or acknowledge the stream, once.
    flow.frames[0] = { ...frame, flag: 0, length: data.length - maxBytes, data: data.subarray(maxBytes) }
    flow.bytes -= maxBytes
    return { ...frame, length: maxBytes, data: data.subarray(0, maxBytes) }
  }

  #forgetFlows(): void {
    this.#flows.clear()
    this.#fresh = []
    this.#others = []
  }
}

/** u8 version 0 | u8 type | u16 flags | u32 stream | u32 length, big-endian, then the data. */
function encode(frames: readonly Outgoing[], bytes: number): Uint8Array {
  const encoded = Buffer.allocUnsafe(bytes)
  let at = 0
  for (const { type, flag, streamID, length, data } of frames) {
    encoded[at] = 0
    encoded[at + 1] = type
    encoded.writeUInt16BE(flag, at + 2)
    encoded.writeUInt32BE(streamID, at + 4)
    encoded.writeUInt32BE(length, at + 8)
    at += HEADER_BYTES
    if (data === undefined) continue
    encoded.set(data, at)
    at += data.length
  }
  return encoded
}
