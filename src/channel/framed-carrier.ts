import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import {
  encodeAck,
  encodeMark,
  encodePing,
  encodePong,
  type Frame,
  FrameDecoder,
  FrameError,
} from './frames.ts'

/** How long the last words may take, and the peer to hang up after them. */
const HANG_UP_MS = 1000

/** Why a carrier carries no more: its end, its error, or that nothing was heard for too long. */
export type DetachReason = 'ended' | 'failed' | 'silent'

/** Kinds of frames of which only the newest counts. */
type Waiting = 'ack' | 'ping' | 'pong' | 'mark'

interface CarrierOwner {
  onFrame(frame: Frame): void
  /** There is room again after `full`. */
  onRoom(): void
  onLost(reason: DetachReason, cause?: Error): void
  /** The peer broke the protocol. */
  onViolation(error: FrameError | FarportError): void
}

/**
 * One carrier as frames. It is always read: credit bounds what data can come, so what is not data gets through whatever
 * the channel's reader does. While the carrier takes no more, one frame of each other kind waits, the newest.
 */
export class FramedCarrier {
  readonly #stream: Duplex
  readonly #decoder = new FrameDecoder()
  /** Undefined once let go: whatever the stream still delivers then is nobody's. */
  #owner: CarrierOwner | undefined
  readonly #waiting = new Map<Waiting, Buffer>()

  constructor(stream: Duplex, owner: CarrierOwner) {
    this.#stream = stream
    this.#owner = owner
    stream.on('data', (chunk: Buffer) => this.#decode(chunk))
    stream.on('drain', () => this.#drained())
    stream.on('end', () => this.#lost('ended'))
    stream.on('close', () => this.#lost('ended'))
    stream.on('error', (error) => this.#lost('failed', error))
    if (stream.destroyed || stream.readableEnded || !stream.writable)
      process.nextTick(() => this.#lost('ended'))
    else stream.resume()
  }

  /** True while data has to wait. */
  get full(): boolean {
    return this.#stream.writableNeedDrain
  }

  sendData(frame: Buffer): void {
    this.#stream.write(frame)
  }

  sendAck(consumed: number, window: number): void {
    this.#sendOrWait('ack', encodeAck(consumed, window))
  }

  sendPing(token: number): void {
    this.#sendOrWait('ping', encodePing(token))
  }

  sendPong(token: number): void {
    this.#sendOrWait('pong', encodePong(token))
  }

  sendMark(offset: number): void {
    this.#sendOrWait('mark', encodeMark(offset))
  }

  /** Ends it at once. The owner hears no more of it. */
  drop(): void {
    this.#owner = undefined
    this.#stream.destroy()
  }

  /** Ends it behind what was sent and the last words. `onFlushed` comes when they are out, or won't be any more. */
  hangUp(lastWords: Buffer | undefined, onFlushed: () => void): void {
    this.#owner = undefined
    const stream = this.#stream
    if (stream.destroyed) {
      onFlushed()
      return
    }
    // Destroying at once could take the last words along; so the peer hangs up first, if it does in time.
    const deadline = setTimeout(() => stream.destroy(), HANG_UP_MS).unref()
    let flushed = false
    const flush = () => {
      if (!flushed) onFlushed()
      flushed = true
    }
    stream.once('finish', flush)
    stream.once('close', () => {
      clearTimeout(deadline)
      flush()
    })
    if (lastWords === undefined) stream.end()
    else stream.end(lastWords)
  }

  #decode(chunk: Buffer): void {
    try {
      for (const frame of this.#decoder.push(chunk)) {
        if (this.#owner === undefined) return
        this.#owner.onFrame(frame)
      }
    } catch (error) {
      if (!(error instanceof FrameError || error instanceof FarportError)) throw error
      this.#owner?.onViolation(error)
    }
  }

  #sendOrWait(kind: Waiting, frame: Buffer): void {
    if (this.full) this.#waiting.set(kind, frame)
    else this.#stream.write(frame)
  }

  #drained(): void {
    if (this.#owner === undefined) return
    for (const frame of this.#waiting.values()) this.#stream.write(frame)
    this.#waiting.clear()
    this.#owner.onRoom()
  }

  #lost(reason: DetachReason, cause?: Error): void {
    this.#owner?.onLost(reason, cause)
  }
}
