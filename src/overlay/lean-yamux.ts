import type { MessageStream, Stream, StreamMuxer } from '@libp2p/interface'
import { ByteQueue } from './byte-queue.ts'
import { FrameError } from './frame-guard.ts'
import { Outbox } from './outbox.ts'
import { giveShortWay } from './short-way.ts'

const HEADER_BYTES = 12
const DATA = 0
const WINDOW_UPDATE = 1

interface Header {
  type: number
  flag: number
  streamID: number
  length: number
}

interface Frame {
  header: Header
  data?: Uint8Array
}

/** A Uint8Array or libp2p's list of them. */
interface Bytes {
  subarray(): Uint8Array
}

/** What the muxer of @chainsafe/libp2p-yamux 8 has besides. */
interface Inside extends StreamMuxer {
  readonly maConn: MessageStream
  readonly streams: YamuxStream[]
  decoder: { emitFrames(arrived: Bytes): Iterable<Frame> }
  handleFrame(frame: Frame): void
  handleStreamMessage(frame: Frame): void
  sendFrame(header: Header, data?: Bytes): boolean
  _newStream(...args: unknown[]): YamuxStream
}

/** And its streams. */
interface YamuxStream extends Stream {
  readonly streamId: number
  readonly state: number
  /** What we may still send. */
  sendWindowCapacity: number
  /** What the peer may still send, */
  readonly recvWindowCapacity: number
  /** of so much in all. */
  readonly recvWindow: number
  getSendFlags(): number
  sendFrame(header: Header, data: Uint8Array): boolean
  sendWindowUpdate(): void
  onMuxerDrain(): void
}

/** The states, Init and SYNReceived, in which a window update opens the stream. */
const OPENING: ReadonlySet<number> = new Set([0, 2])

/**
 * Gives libp2p's yamux a shorter way for data: frames cut and put together as one piece each, none described to a log
 * that nobody reads, and window given back by halves; and an outbox, in which streams take turns. What it sends and takes
 * is yamux as before.
 */
export function leanYamux(muxer: StreamMuxer): StreamMuxer {
  const inside = muxer as Inside
  const handleFrame = inside.handleFrame.bind(inside)
  const newStream = inside._newStream.bind(inside)
  const outbox = new Outbox(inside.maConn, (id) =>
    inside.streams.find(({ streamId }) => streamId === id)?.onMuxerDrain(),
  )
  inside.decoder = new Frames()
  inside.handleFrame = (frame) => {
    const { type, streamID } = frame.header
    if (streamID !== 0 && (type === DATA || type === WINDOW_UPDATE)) inside.handleStreamMessage(frame)
    else handleFrame(frame)
  }
  inside.sendFrame = (header, data) => outbox.push({ ...header, data: data?.subarray() })
  inside._newStream = (...args) => leanStream(newStream(...args), outbox)
  return muxer
}

function leanStream(stream: YamuxStream, outbox: Outbox): YamuxStream {
  giveShortWay(stream, (data) => {
    if (data.length > stream.sendWindowCapacity) return undefined
    const { length } = data
    const flag = stream.getSendFlags()
    const canSendMore = stream.sendFrame({ type: DATA, flag, streamID: stream.streamId, length }, data)
    stream.sendWindowCapacity -= length
    return canSendMore
  })
  // By itself it answers each frame that arrives, so that a keystroke costs its receiver a packet and its sender another.
  const sendWindowUpdate = stream.sendWindowUpdate.bind(stream)
  stream.sendWindowUpdate = () => {
    if (OPENING.has(stream.state) || stream.recvWindowCapacity <= stream.recvWindow / 2) sendWindowUpdate()
  }
  // The connection's drain is told to all.
  const onMuxerDrain = stream.onMuxerDrain.bind(stream)
  stream.onMuxerDrain = () => {
    if (outbox.hasRoom(stream.streamId)) onMuxerDrain()
  }
  return stream
}

/** Cuts what arrives into frames; frame-guard.ts has said by then that each may be as long as it is. */
class Frames {
  readonly #queue = new ByteQueue();

  *emitFrames(arrived: Bytes): Generator<Frame, void> {
    const queue = this.#queue
    queue.push(arrived.subarray())
    while (queue.length >= HEADER_BYTES) {
      const header = decodeHeader(queue.peek(HEADER_BYTES))
      if (header.type !== DATA) {
        queue.take(HEADER_BYTES)
        yield { header }
      } else if (queue.length >= HEADER_BYTES + header.length) {
        queue.take(HEADER_BYTES)
        yield { header, data: queue.take(header.length) }
      } else return
    }
  }
}

/** @throws FrameError for a version that there is not */
function decodeHeader(bytes: Uint8Array): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES)
  if (view.getUint8(0) !== 0) throw new FrameError(`version ${view.getUint8(0)}`)
  return {
    type: view.getUint8(1),
    flag: view.getUint16(2),
    streamID: view.getUint32(4),
    length: view.getUint32(8),
  }
}
