import type { MessageStream } from '@libp2p/interface'
import { FairQueue, type Outgoing } from './fair-queue.ts'

const DATA = 0
const WINDOW_UPDATE = 1
const GO_AWAY = 3
/** What one stream may have waiting before it is told to stop, and what it has left when it is told to go on. */
const FULL_BYTES = 16 * 1024
const ROOM_BYTES = 4 * 1024
/** What leaves at once, and so is what a keystroke may have to wait for: at most, and on the slowest path. */
const MAX_BATCH_BYTES = 48 * 1024
const MIN_BATCH_BYTES = 1536
/** How long a batch should take to leave: short enough not to be felt, long enough not to wake us all the time. */
const BATCH_MS = { min: 4, max: 16 }

/** What AbstractMessageStream of @libp2p/utils 7 has besides. */
interface Connection extends MessageStream {
  readonly writeStatus: string
}

/**
 * What leaves a connection passes here: the frames of one turn of the event loop together, as one message of Noise and one
 * packet; and where the path is slower than we are, those of each stream in turn, for as long as the connection takes
 * more. That needs a connection which says early that it is full: see tcp-unsent.ts.
 */
export class Outbox {
  readonly #connection: Connection
  readonly #onRoom: (streamID: number) => void
  readonly #queue = new FairQueue()
  /** Streams that were told to stop. */
  readonly #stopped = new Set<number>()
  #scheduled = false
  #batchBytes = MAX_BATCH_BYTES
  #fullSince = 0

  /** @param onRoom hears of each stream that may go on */
  constructor(connection: MessageStream, onRoom: (streamID: number) => void) {
    this.#connection = connection as Connection
    this.#onRoom = onRoom
    connection.addEventListener('drain', () => {
      this.#learn(performance.now() - this.#fullSince)
      this.#send()
    })
    connection.addEventListener('close', () => this.#queue.clear())
  }

  hasRoom(streamID: number): boolean {
    return this.#queue.bytesOf(streamID) < FULL_BYTES
  }

  /**
   * Takes a frame, and answers whether its stream may send more; if not, it is told when.
   * @throws Error when the connection is not open any more
   */
  push(frame: Outgoing): boolean {
    if (this.#connection.writeStatus !== 'writable') throw new Error('the connection has been closed')
    const { streamID, type, flag } = frame
    if (type === DATA || (type === WINDOW_UPDATE && flag !== 0)) this.#queue.push(frame)
    else if (type === GO_AWAY) this.#sendLast(frame)
    else this.#queue.pushUrgent(frame)
    this.#sendThisTurn()
    if (this.hasRoom(streamID)) return true
    this.#stopped.add(streamID)
    return false
  }

  #sendThisTurn(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    process.nextTick(() => {
      this.#scheduled = false
      this.#send()
    })
  }

  #send(): void {
    const connection = this.#connection
    while (!this.#queue.isEmpty && connection.writeStatus === 'writable' && !connection.writableNeedsDrain) {
      try {
        if (!connection.send(this.#queue.take(this.#batchBytes))) this.#fullSince = performance.now()
      } catch (error) {
        connection.abort(error as Error)
      }
      this.#tellWhoMayGoOn()
    }
  }

  /** Whoever closes the connection behind it waits for what the connection itself has. */
  #sendLast(goAway: Outgoing): void {
    while (!this.#queue.isEmpty) this.#connection.send(this.#queue.take(MAX_BATCH_BYTES))
    this.#queue.pushUrgent(goAway)
    this.#connection.send(this.#queue.take(MAX_BATCH_BYTES))
  }

  #learn(tookMs: number): void {
    if (tookMs > BATCH_MS.max) this.#batchBytes = Math.max(MIN_BATCH_BYTES, this.#batchBytes / 2)
    else if (tookMs < BATCH_MS.min) this.#batchBytes = Math.min(MAX_BATCH_BYTES, this.#batchBytes * 2)
  }

  #tellWhoMayGoOn(): void {
    for (const streamID of this.#stopped) {
      if (this.#queue.bytesOf(streamID) > ROOM_BYTES) continue
      this.#stopped.delete(streamID)
      this.#onRoom(streamID)
    }
  }
}
