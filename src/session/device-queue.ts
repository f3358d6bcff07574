import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import type { Logger } from '../log.ts'
import { Packer } from '../serial/packer.ts'
import type { PortState, SerialPort } from '../serial/port.ts'
import type { Command } from './port-commands.ts'

/** What is left to do, in the order it came. */
type Item = { type: 'data'; bytes: Uint8Array; purges: number } | { type: 'command'; command: Command }

/** Where data goes: while the device is away it is held first, and dropped when it is stale. */
type Flow = { state: 'flowing' } | { state: 'held'; timer?: NodeJS.Timeout } | { state: 'dropped' }

interface DeviceQueueOptions {
  readonly perform: (command: Command) => Promise<void>
  /** Told what goes to the port, as it does. */
  readonly onWrite: (bytes: Uint8Array) => void
  /** Bytes with less silence between them than this are written together; by default each goes on at once. */
  readonly gapMs?: number
  /** What waits for a device that is unplugged is thrown away after so long. Left out, it waits as long as it takes. */
  readonly staleMs?: number
  readonly log: Logger
}

/**
 * How far a stream is read ahead of the port, so that a purge is seen although the bytes before it are stuck. Beyond it
 * the stream is left alone until the port has caught up.
 */
const MAX_BYTES_AHEAD = 64 * 1024
const MAX_ITEMS_AHEAD = 256

/** What a stream brings for a port: data, and commands among it, done in order and with the port's own pace. */
export class DeviceQueue implements Disposable {
  readonly #stream: Duplex
  readonly #port: SerialPort
  readonly #perform: (command: Command) => Promise<void>
  readonly #onWrite: (bytes: Uint8Array) => void
  readonly #packer: Packer | undefined
  readonly #staleMs: number | undefined
  readonly #log: Logger
  readonly #items: Item[] = []
  #bytesAhead = 0
  /** How often data was thrown away. */
  #purges = 0
  #working: Promise<void> | undefined
  #flow: Flow = { state: 'flowing' }
  #staleBytes = 0
  #over = false

  /** The stream is paused while there is too much to do, and destroyed with the error when a command fails. */
  constructor(stream: Duplex, port: SerialPort, options: DeviceQueueOptions) {
    const { perform, onWrite, gapMs, staleMs, log } = options
    this.#stream = stream
    this.#port = port
    this.#perform = perform
    this.#onWrite = onWrite
    this.#staleMs = staleMs
    this.#log = log
    if (gapMs !== undefined)
      this.#packer = new Packer({ gapMs }, (piece) => {
        if (!port.destroyed) this.#writeNow(piece)
      })
    if (port.state === 'absent') this.#hold()
  }

  data(bytes: Uint8Array): void {
    if (this.#flow.state === 'dropped') this.#staleBytes += bytes.length
    else if (this.#working === undefined && !this.#port.writableNeedDrain) this.#write(bytes)
    else this.#push({ type: 'data', bytes, purges: this.#purges })
  }

  command(command: Command): void {
    this.#push({ type: 'command', command })
  }

  /** Throws away what the port has not taken; commands stay. */
  forgetData(): void {
    this.#purges++
    this.#packer?.discard()
    const kept = this.#items.filter(({ type }) => type !== 'data')
    this.#items.splice(0, this.#items.length, ...kept)
    this.#bytesAhead = 0
    if (this.#items.length <= MAX_ITEMS_AHEAD) this.#stream.resume()
  }

  /** Writes what is being gathered. */
  flush(): void {
    this.#packer?.flush()
  }

  /** The device was unplugged, or is back. */
  follow(state: PortState): void {
    if (state === 'absent') this.#hold()
    else this.#letFlow()
  }

  /** Resolves when all is done and has left the port, or the signal is aborted. */
  async finish(signal: AbortSignal): Promise<void> {
    const late = signal.aborted ? undefined : once(signal, 'abort')
    await Promise.race([this.#working, late])
    this.flush()
    if (!this.#port.destroyed) await this.#port.drain({ signal }).catch(() => {})
  }

  /** What is still to do is not done any more: the port may be somebody else's. */
  [Symbol.dispose](): void {
    this.#over = true
    this.#letFlow()
    this.#packer?.[Symbol.dispose]()
    this.forgetData()
  }

  #push(item: Item): void {
    this.#items.push(item)
    if (item.type === 'data') this.#bytesAhead += item.bytes.length
    if (this.#bytesAhead > MAX_BYTES_AHEAD || this.#items.length > MAX_ITEMS_AHEAD) this.#stream.pause()
    this.#working ??= this.#work()
      .catch((error: unknown) => {
        this.#stream.destroy(error instanceof Error ? error : new Error(String(error)))
      })
      .finally(() => {
        this.#working = undefined
      })
  }

  async #work(): Promise<void> {
    for (let item = this.#items.shift(); item !== undefined && !this.#over; item = this.#items.shift()) {
      switch (item.type) {
        case 'data':
          this.#bytesAhead -= item.bytes.length
          if (this.#port.writableNeedDrain) await this.#portReady()
          // A purge may have come meanwhile; what it was about is not to be written after it.
          if (!this.#port.destroyed && item.purges === this.#purges) this.#write(item.bytes)
          break
        case 'command':
          await this.#perform(item.command)
          break
        default:
          item satisfies never
      }
      if (
        this.#bytesAhead <= MAX_BYTES_AHEAD / 2 &&
        this.#items.length <= MAX_ITEMS_AHEAD / 2 &&
        this.#stream.isPaused()
      )
        this.#stream.resume()
    }
  }

  /** Resolves when the port takes bytes again, or never will. */
  async #portReady(): Promise<void> {
    const stop = new AbortController()
    await Promise.race([
      once(this.#port, 'drain', { signal: stop.signal }),
      once(this.#port, 'close', { signal: stop.signal }),
    ]).catch(() => {})
    stop.abort()
  }

  #write(bytes: Uint8Array): void {
    if (this.#packer === undefined) this.#writeNow(bytes)
    else this.#packer.push(bytes)
  }

  #writeNow(bytes: Uint8Array): void {
    this.#onWrite(bytes)
    this.#port.write(bytes)
  }

  #hold(): void {
    this.#letFlow()
    const ms = this.#staleMs
    this.#flow = { state: 'held', ...(ms !== undefined && { timer: setTimeout(() => this.#drop(), ms) }) }
  }

  /** A machine must not get yesterday's commands when it is plugged in again. */
  #drop(): void {
    this.#flow = { state: 'dropped' }
    this.#staleBytes += this.#bytesAhead + this.#port.writableLength
    this.forgetData()
    this.#port.purge('tx').catch((error: Error) => this.#stream.destroy(error))
  }

  #letFlow(): void {
    if (this.#flow.state === 'held') clearTimeout(this.#flow.timer)
    this.#flow = { state: 'flowing' }
    if (this.#staleBytes > 0)
      this.#log.warn(
        { bytes: this.#staleBytes },
        'bytes for a device that was away for too long were dropped',
      )
    this.#staleBytes = 0
  }
}
