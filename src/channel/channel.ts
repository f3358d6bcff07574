import { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import { type DetachReason, FramedCarrier } from './framed-carrier.ts'
import { encodeClose, type Frame, INITIAL_WINDOW } from './frames.ts'
import { Heartbeat } from './heartbeat.ts'
import { decodeReason, encodeReason, violation } from './reason.ts'
import { ReceiveQueue } from './receive-queue.ts'
import { SendQueue } from './send-queue.ts'

const KIB = 1024
const SECOND = 1000
const MIN_WINDOW = 1 * KIB
const MAX_WINDOW = 1024 * KIB
/** What was taken is acknowledged in quarters of the window; sooner where that is more than this, */
const MAX_UNACKNOWLEDGED_BYTES = 16 * KIB
/** or this much: to the sender each frame costs memory, however small, */
const MAX_UNACKNOWLEDGED_FRAMES = 256
/** or this much later. Nobody waits for such an ACK, but the sender keeps the bytes until it comes, and asks after a second. */
const ACK_DELAY_MS = 200
/** How long a carrier is kept in reserve for a peer that does not say a word on it. */
const RESERVE_MS = 10 * SECOND
/** setTimeout takes no more. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1

export interface ChannelOptions {
  /** How long the channel outlives its last carrier, in milliseconds; default 30 s. */
  resumeMs?: number
  /** Bytes the peer may have under way to us, see `Channel.window`; default 16 KiB. */
  window?: number
  /** Memory for what the peer's reader has not taken, bookkeeping included; beyond it writes are held. Default 256 KiB. */
  sendBufferBytes?: number
  /** Milliseconds, never going back; default `performance.now`. */
  clock?: () => number
}

type State =
  | { name: 'detached'; since: number; expiry: NodeJS.Timeout }
  | ({ name: 'attached' } & Attachment)
  | { name: 'ended' }

interface Attachment {
  carrier: FramedCarrier
  heartbeat: Heartbeat
}

/** A carrier that takes over as soon as the peer is heard on it. */
interface Reserve extends Attachment {
  peerReceived: number
  expiry: NodeJS.Timeout
}

/** A write that waits for room. */
interface HeldWrite {
  bytes: number
  done: (error?: Error | null) => void
}

/**
 * A byte stream between two peers that outlives what carries it. Both ends number the bytes; what was not acknowledged
 * is kept and sent again on the next carrier, so no byte is lost or repeated. Frames and numbers: frames.ts.
 *
 * As a stream: `end()` finishes once the peer's reader has taken every byte, over as many carriers as it takes; the peer
 * sees 'end'. `destroy(error)` drops what is under way and tells the peer, whose channel is destroyed with the same
 * FarportError; without an error the peer's channel closes without one. Errors: ERR_CHANNEL_LOST when no carrier came in
 * time, ERR_PROTOCOL when the peer broke the rules, or what the peer was destroyed with.
 *
 * A byte counts as taken, and is acknowledged, when a reader has got it from the stream. Writes in one tick go out each
 * in a frame of its own; `cork()` joins them.
 *
 * Events: 'attach'; 'detach' (reason: DetachReason, cause?: Error), not when a new carrier replaces the old;
 * 'roundTrip' (smoothed milliseconds), every few seconds; 'mark' (position), see `mark()`.
 */
export class Channel extends Duplex {
  readonly #send = new SendQueue()
  readonly #receive = new ReceiveQueue()
  readonly #clock: () => number
  readonly #sendBufferBytes: number
  #resumeMs: number
  #window: number
  #state: State
  #reserve: Reserve | undefined
  #attaches = 0
  #roundTripMs = 0
  /** Since when the peer owes an acknowledgement. */
  #waitingSince: number | undefined
  #held: HeldWrite | undefined
  #onFinished: (() => void) | undefined
  /** The reader asked for more than there was: nothing waits in the ReceiveQueue then. */
  #wanted = false
  #endPushed = false
  /** Numbers the reader has taken that the peer was told of. */
  #acknowledged = 0
  /** Pieces of data since then. */
  #unacknowledgedFrames = 0
  #ackTimer: NodeJS.Timeout | undefined
  #lostBytes = 0
  /** The newest mark of ours, and of the peer's. */
  #marked = 0
  #peerMarked = 0

  constructor(options: ChannelOptions = {}) {
    // What the reader has not taken waits in the ReceiveQueue, where it is counted; Readable's own buffer stays empty.
    super({ readableHighWaterMark: 0 })
    this.#clock = options.clock ?? (() => performance.now())
    this.#sendBufferBytes = options.sendBufferBytes ?? 256 * KIB
    this.#resumeMs = options.resumeMs ?? 30 * SECOND
    this.#window = clampWindow(options.window ?? INITIAL_WINDOW)
    this.#state = this.#detached()
  }

  get state(): State['name'] {
    return this.#state.name
  }

  /** Numbers taken in order from the peer: what our next hello says. */
  get received(): number {
    return this.#receive.received
  }

  /** Bytes written here that the peer's reader has not taken; once ended, those it never took. */
  get unacknowledged(): number {
    if (this.#state.name === 'ended') return this.#lostBytes
    return this.#send.unacknowledgedBytes + this.#unframedBytes
  }

  /** The number behind the last byte our reader has taken: on 'data', the end of that chunk. */
  get position(): number {
    return this.#receive.bytesReceived - this.bufferedBytes
  }

  get bytesSent(): number {
    return this.#send.bytesSent
  }

  get bytesReceived(): number {
    return this.#receive.bytesReceived
  }

  /** Bytes sent again because a carrier was lost. */
  get bytesResent(): number {
    return this.#send.bytesResent
  }

  /** How many carriers it has had. */
  get attaches(): number {
    return this.#attaches
  }

  /** Memory held for sending: at most `sendBufferBytes` and one write. */
  get retainedBytes(): number {
    return this.#send.retainedBytes
  }

  /** Bytes that wait for our reader; at most the largest window so far. */
  get bufferedBytes(): number {
    return this.#receive.bufferedBytes + this.readableLength
  }

  /** Smoothed, of the newest carrier that was measured; 0 until then. */
  get roundTripMs(): number {
    return this.#roundTripMs
  }

  /** Bytes the peer may have under way to us, 1 KiB to 1 MiB. Less takes effect as the credit already given is used up. */
  get window(): number {
    return this.#window
  }

  set window(bytes: number) {
    const window = clampWindow(bytes)
    if (window === this.#window) return
    this.#window = window
    this.#sendAck()
  }

  get resumeMs(): number {
    return this.#resumeMs
  }

  set resumeMs(ms: number) {
    this.#resumeMs = ms
    if (this.#state.name !== 'detached') return
    clearTimeout(this.#state.expiry)
    this.#state = this.#detached(this.#state.since)
  }

  /**
   * Puts the channel on a carrier, in place of the one it has. `peerReceived` is the peer's `received`, from its hello on
   * this very carrier. The carrier belongs to the channel from here on.
   */
  attach(stream: Duplex, { peerReceived }: { peerReceived: number }): void {
    if (this.#state.name === 'ended') stream.destroy()
    else {
      this.#giveUpReserve()
      if (this.#takeOver(this.#attachment(stream), peerReceived)) this.#pump()
    }
  }

  /**
   * Takes a carrier that the peer may move to while the one in use still works: nothing changes until the peer is heard
   * on it. One at a time; an attached channel keeps it for 10 s, any other attaches it at once.
   */
  reserve(stream: Duplex, { peerReceived }: { peerReceived: number }): void {
    if (this.#state.name !== 'attached') {
      this.attach(stream, { peerReceived })
      return
    }
    this.#giveUpReserve()
    const expiry = setTimeout(() => this.#giveUpReserve(), RESERVE_MS).unref()
    this.#reserve = { ...this.#attachment(stream), peerReceived, expiry }
  }

  /**
   * Tells the peer's reader, ahead of everything that is under way, that what was written so far is not wanted any more.
   * The bytes still arrive: what to skip of them is the reader's to know, who hears 'mark' with the position.
   */
  mark(): void {
    const position = this.#send.bytesWritten + this.#unframedBytes
    if (position === this.#marked) return
    this.#marked = position
    if (this.#state.name === 'attached') this.#state.carrier.sendMark(position)
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return
    const closed = new Promise<void>((resolve) => this.once('close', resolve))
    this.destroy()
    await closed
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#write([chunk], done)
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#write(
      chunks.map(({ chunk }) => chunk),
      done,
    )
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#onFinished = done
    this.#send.end()
    this.#pump()
  }

  override _read(): void {
    this.#wanted = true
    this.#feed()
  }

  /** Readers take bytes here, or straight from a push. */
  // biome-ignore lint/suspicious/noExplicitAny: Readable's own signature.
  override read(size?: number): any {
    const chunk = super.read(size)
    this.#acknowledge()
    return chunk
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const goodbye = error === null && this.#complete ? undefined : encodeClose(encodeReason(error))
    this.#leave(goodbye, () => done(error))
  }

  /** Written, but still with Node's Writable. */
  get #unframedBytes(): number {
    return this.writableLength - (this.#held?.bytes ?? 0)
  }

  /** True when both directions have ended and every byte was taken. */
  get #complete(): boolean {
    return this.#send.finished && this.#receive.ended && this.#consumed === this.#receive.received
  }

  /** Numbers our reader has taken. */
  get #consumed(): number {
    const waiting = this.bufferedBytes
    return waiting === 0 ? this.#receive.received : this.#receive.bytesReceived - waiting
  }

  #write(chunks: readonly Buffer[], done: (error?: Error | null) => void): void {
    this.#send.append(chunks)
    this.#pump()
    if (this.#send.retainedBytes < this.#sendBufferBytes) done()
    else this.#held = { bytes: chunks.reduce((sum, { length }) => sum + length, 0), done }
  }

  #attachment(stream: Duplex): Attachment {
    const heartbeat = new Heartbeat({
      clock: this.#clock,
      waitingSince: () => this.#waitingSince,
      sendPing: (token) => carrier.sendPing(token),
      onRoundTrip: (ms) => {
        this.#roundTripMs = ms
        this.emit('roundTrip', ms)
      },
      onSilent: () => this.#detach('silent'),
    })
    const carrier = new FramedCarrier(stream, {
      onFrame: (frame) => {
        heartbeat.heard()
        if (this.#reserve?.carrier === carrier) this.#useReserve(this.#reserve, frame)
        else this.#receiveFrame(frame, carrier, heartbeat)
      },
      onRoom: () => this.#pump(),
      onLost: (reason, cause) => {
        if (this.#reserve?.carrier === carrier) this.#giveUpReserve()
        else this.#detach(reason, cause)
      },
      onViolation: (error) => {
        this.destroy(error instanceof FarportError ? error : violation(`sent ${error.message}`))
      },
    })
    return { carrier, heartbeat }
  }

  /** Makes it the carrier in use, all but sending data; false when the channel did not survive that. */
  #takeOver({ carrier, heartbeat }: Attachment, peerReceived: number): boolean {
    if (this.#state.name === 'attached') {
      this.#state.heartbeat.stop()
      this.#state.carrier.drop()
    } else if (this.#state.name === 'detached') clearTimeout(this.#state.expiry)
    const state: State = { name: 'attached', carrier, heartbeat }
    this.#state = state
    this.#attaches++
    try {
      this.#send.rewind(peerReceived)
    } catch (error) {
      this.destroy(error as FarportError)
      return false
    }
    this.emit('attach')
    if (this.#state !== state) return false
    this.#sendAck()
    // Wanted as long as the peer's reader has bytes before it to come to.
    if (this.#send.unacknowledgedBytes > this.#send.bytesWritten - this.#marked)
      carrier.sendMark(this.#marked)
    heartbeat.start()
    return true
  }

  /** The peer has moved. Its first frame, an ACK, is newer than the count in its hello: heeded first, less is repeated. */
  #useReserve(reserve: Reserve, frame: Frame): void {
    clearTimeout(reserve.expiry)
    this.#reserve = undefined
    if (!this.#takeOver(reserve, reserve.peerReceived)) return
    this.#receiveFrame(frame, reserve.carrier, reserve.heartbeat)
    this.#pump()
  }

  #giveUpReserve(): void {
    const reserve = this.#reserve
    if (reserve === undefined) return
    clearTimeout(reserve.expiry)
    this.#reserve = undefined
    reserve.carrier.drop()
  }

  /** Sends what the credit and the carrier allow. */
  #pump(): void {
    const state = this.#state
    if (state.name !== 'attached') return
    // Sending may end in the loss of this very carrier: what is taken then would be lost to the next one.
    while (!state.carrier.full && this.#state === state) {
      const frame = this.#send.take()
      if (frame === undefined) break
      state.carrier.sendData(frame)
    }
    if (this.#send.outstanding) this.#waitingSince ??= this.#clock()
  }

  #receiveFrame(frame: Frame, carrier: FramedCarrier, heartbeat: Heartbeat): void {
    switch (frame.type) {
      case 'data': {
        const fresh = this.#receive.accept(frame.offset, frame.payload)
        if (fresh === undefined) break
        this.#unacknowledgedFrames++
        if (this.#wanted) this.#wanted = this.push(fresh)
        else this.#receive.keep(fresh)
        this.#acknowledge()
        break
      }
      case 'end':
        this.#receive.acceptEnd(frame.offset)
        this.#feed()
        this.#acknowledge()
        break
      case 'mark':
        // One that comes again, on a new carrier, must not be taken for a mark behind what has come since.
        if (frame.offset <= this.#peerMarked) break
        this.#peerMarked = frame.offset
        this.emit('mark', frame.offset)
        break
      case 'ack':
        this.#send.acknowledge(frame.consumed, frame.window)
        if (!this.#send.outstanding) this.#waitingSince = undefined
        this.#pump()
        this.#release()
        break
      case 'ping':
        carrier.sendPong(frame.token)
        break
      case 'pong':
        heartbeat.pong(frame.token)
        break
      case 'close':
        this.#leave(undefined, () => {})
        this.destroy(decodeReason(frame.reason))
        break
    }
  }

  /** Gives the reader what it asked for, and the end behind the last byte. */
  #feed(): void {
    while (this.#wanted) {
      const bytes = this.#receive.take()
      if (bytes === undefined) break
      this.#wanted = this.push(bytes)
    }
    if (!this.#receive.ended || this.#endPushed || this.#receive.bufferedBytes > 0) return
    this.#endPushed = true
    this.push(null)
  }

  /** Tells the peer what our reader has taken: at once where it may be waiting for that, else a little later. */
  #acknowledge(): void {
    const consumed = this.#consumed
    const due = consumed - this.#acknowledged
    if (due <= 0 || this.#state.name !== 'attached') return
    if (
      due >= Math.min(this.#window / 4, MAX_UNACKNOWLEDGED_BYTES) ||
      this.#unacknowledgedFrames >= MAX_UNACKNOWLEDGED_FRAMES ||
      (this.#receive.ended && consumed === this.#receive.received)
    )
      this.#sendAck()
    else this.#ackTimer ??= setTimeout(() => this.#acknowledgeLate(), ACK_DELAY_MS)
  }

  #acknowledgeLate(): void {
    this.#ackTimer = undefined
    if (this.#consumed > this.#acknowledged) this.#sendAck()
  }

  #sendAck(): void {
    if (this.#state.name !== 'attached') return
    // unshift() can take a byte back from the reader; what the peer was told stays told.
    this.#acknowledged = Math.max(this.#acknowledged, this.#consumed)
    this.#unacknowledgedFrames = 0
    this.#state.carrier.sendAck(this.#acknowledged, this.#receive.grant(this.#acknowledged, this.#window))
  }

  /** Lets go on what an acknowledgement was awaited for. */
  #release(): void {
    const held = this.#held
    if (held !== undefined && this.#send.retainedBytes < this.#sendBufferBytes) {
      this.#held = undefined
      held.done()
    }
    if (this.#send.finished) this.#finish()
  }

  #finish(): void {
    const finished = this.#onFinished
    this.#onFinished = undefined
    finished?.()
  }

  #detach(reason: DetachReason, cause?: Error): void {
    if (this.#state.name !== 'attached') return
    this.#state.heartbeat.stop()
    this.#state.carrier.drop()
    this.#stopAckTimer()
    this.#state = this.#detached()
    // With everything taken both ways, the peer has only hung up.
    if (!this.#complete) this.emit('detach', reason, cause)
  }

  #detached(since = this.#clock()): State {
    const leftMs = this.#resumeMs - (this.#clock() - since)
    const expiry = setTimeout(() => this.#expire(), Math.min(MAX_TIMEOUT_MS, Math.max(0, leftMs)))
    return { name: 'detached', since, expiry }
  }

  #expire(): void {
    // The peer has ended and taken all our bytes; only its word on our END went missing. Nothing is lost.
    if (this.#receive.ended && this.#onFinished !== undefined && this.#send.unacknowledgedBytes === 0) {
      this.#finish()
      return
    }
    const seconds = Math.round(this.#resumeMs / SECOND)
    this.destroy(
      new FarportError(
        'ERR_CHANNEL_LOST',
        `the connection to the peer was lost for longer than ${seconds} s`,
      ),
    )
  }

  /** From whatever state to `ended`. */
  #leave(lastWords: Buffer | undefined, onLeft: () => void): void {
    const state = this.#state
    if (state.name === 'ended') {
      onLeft()
      return
    }
    this.#lostBytes = this.unacknowledged
    this.#state = { name: 'ended' }
    // The peer may be listening there already.
    clearTimeout(this.#reserve?.expiry)
    this.#reserve?.carrier.hangUp(lastWords, () => {})
    this.#reserve = undefined
    this.#stopAckTimer()
    this.#receive.discard()
    const held = this.#held
    this.#held = undefined
    held?.done(new FarportError('ERR_CHANNEL_LOST', 'the channel was closed'))
    if (state.name === 'detached') {
      clearTimeout(state.expiry)
      onLeft()
    } else {
      state.heartbeat.stop()
      state.carrier.hangUp(lastWords, onLeft)
    }
  }

  #stopAckTimer(): void {
    clearTimeout(this.#ackTimer)
    this.#ackTimer = undefined
  }
}

function clampWindow(bytes: number): number {
  return Math.min(MAX_WINDOW, Math.max(MIN_WINDOW, Math.trunc(bytes)))
}
