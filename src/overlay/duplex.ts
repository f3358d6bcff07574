import { Duplex } from 'node:stream'
import type { Stream, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface'
import { FarportError } from '../errors.ts'

/**
 * The most one yamux frame carries. A frame is delivered as a whole, so this is how long a keystroke on another stream
 * waits behind bulk data (rust-yamux cuts at the same length).
 */
const MAX_FRAME_BYTES = 16 * 1024

type Done = (error?: Error | null) => void

/**
 * Shows a libp2p stream as a Node Duplex, with back pressure and half-close both ways. `destroy()` resets the stream.
 * Losing the connection is an error, never an end; one that nobody listens for is dropped, because a peer that goes away
 * must not end the process.
 */
export function toDuplex(stream: Stream): Duplex {
  return new StreamDuplex(stream)
}

/**
 * What @libp2p/utils 7.4 does shapes this class:
 * - `for await` never pauses the peer, and `onDrain()` works only once. So: events, for both directions.
 * - A `pause()` made while `resume()` hands over what was kept is undone by that `resume()`. So: pause after it.
 * - `remoteCloseWrite` comes while data may still be kept, and `end` also when the connection is lost. So: reading ends
 *   when the peer finished and nothing is kept.
 * - A lost connection closes its streams without an error. So: a close before both sides finished is one.
 * - `drain` says that something was sent, not that all was. So: the next write waits until nothing is kept.
 */
class StreamDuplex extends Duplex {
  readonly #stream: Stream
  /** `resuming` is while libp2p hands over what it kept; `full` is when the reader wants no more for now. */
  #reading: 'flowing' | 'resuming' | 'full' = 'flowing'
  /** What waits for room: the rest of a write, and whom to tell. */
  #waiting: { rest: Uint8Array; done: Done } | undefined
  /** Whether the peer, and we, have said that nothing more will be sent. */
  #peerFinished: boolean
  #finished = false

  constructor(stream: Stream) {
    super()
    this.#stream = stream
    this.#peerFinished = stream.remoteWriteStatus === 'closed'
    this.on('error', () => {})
    stream.addEventListener('message', (event) => this.#received(event))
    stream.addEventListener('remoteCloseWrite', () => {
      this.#peerFinished = true
      this.#endIfRead()
    })
    stream.addEventListener('drain', () => {
      // libp2p sends what it kept in a microtask that it queued just before.
      queueMicrotask(() => this.#continueWriting())
    })
    stream.addEventListener('close', (event) => this.#closed(event))
    if (stream.status === 'open') this.#endIfRead()
    else this.destroy(lost())
  }

  override _read(): void {
    if (this.#reading !== 'full') return
    this.#reading = 'resuming'
    try {
      if (this.#stream.readStatus === 'paused') this.#stream.resume()
    } catch {
      // The bytes are handed over by then; only the window update found the connection closed, of which we hear.
    }
    this.#resumed()
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: Done): void {
    this.#send(chunk, done)
  }

  override _final(done: Done): void {
    this.#finished = true
    this.#stream.close().then(() => done(), done)
  }

  override _destroy(error: Error | null, done: Done): void {
    const reason = error ?? new Error('the stream was destroyed')
    // Does nothing to a stream that both sides have finished.
    this.#stream.abort(reason)
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.done(reason)
    done(error)
  }

  #received({ data }: StreamMessageEvent): void {
    if (this.destroyed) return
    // Without a copy, unless the bytes arrived in pieces.
    if (!this.push(data.subarray())) {
      if (this.#reading === 'flowing') this.#pause()
      this.#reading = 'full'
    }
    this.#endIfRead()
  }

  #resumed(): void {
    if (this.#reading === 'full') this.#pause()
    else this.#reading = 'flowing'
  }

  #pause(): void {
    if (this.#stream.readStatus === 'readable') this.#stream.pause()
  }

  #endIfRead(): void {
    if (this.#peerFinished && this.#stream.readBufferLength === 0 && !this.destroyed) this.push(null)
  }

  #send(bytes: Uint8Array, done: Done): void {
    const rest = bytes.subarray(MAX_FRAME_BYTES)
    try {
      if (!this.#stream.send(bytes.subarray(0, MAX_FRAME_BYTES))) {
        this.#waiting = { rest, done }
        return
      }
    } catch (error) {
      done(lost(error))
      return
    }
    this.#sent(rest, done)
  }

  /** One frame per turn, so that streams which drain together take turns. */
  #sent(rest: Uint8Array, done: Done): void {
    queueMicrotask(() => (rest.length === 0 ? done() : this.#send(rest, done)))
  }

  #continueWriting(): void {
    if (this.#waiting === undefined) return
    if (this.#stream.writeBufferLength > 0 || this.#stream.writableNeedsDrain) return
    const { rest, done } = this.#waiting
    this.#waiting = undefined
    this.#sent(rest, done)
  }

  #closed({ error }: StreamCloseEvent): void {
    if (error !== undefined) this.destroy(lost(error))
    else if (!this.#peerFinished || !this.#finished) this.destroy(lost())
  }
}

function lost(cause?: unknown): FarportError {
  if (cause instanceof FarportError) return cause
  return new FarportError('ERR_PEER_UNREACHABLE', 'the connection to the peer was lost', { cause })
}
