import { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'

interface Sending {
  /** What has not been sent of it. */
  bytes: Buffer
  readonly lengthBytes: number
  readonly done: (error?: Error | null) => void
}

interface Drain {
  /** The count of finished bytes that satisfies it. */
  readonly at: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * What the streams of serial ports have in common: one write at a time, and purge, drain and closing as SerialPort promises
 * them. Bytes written are counted, so that a purge or a drain means those written until then and no others.
 */
export abstract class PortStream extends Duplex {
  #sending: Sending | undefined
  #finishedBytes = 0
  #discardUpTo = 0
  #drains: Drain[] = []
  #discarding = false
  readonly #closed = new Promise<void>((resolve) => this.once('close', resolve))

  constructor(options: { readableHighWaterMark: number; writableHighWaterMark: number }) {
    super(options)
    this.once('finish', () => this.destroy())
  }

  /** Sends what it can of `unsent`, telling `sent()`. Called when there is something new. */
  protected abstract send(): void

  /** Lets go of the device. */
  protected abstract release(): void | Promise<void>

  /** What is left of the write that is under way. */
  protected get unsent(): Buffer | undefined {
    return this.#sending?.bytes
  }

  /** So many bytes of `unsent` have gone. */
  protected sent(bytes: number): void {
    const sending = this.#sending
    if (sending === undefined) return
    sending.bytes = sending.bytes.subarray(bytes)
    if (sending.bytes.length === 0) this.#finish(sending)
  }

  /** Everything written and not sent is thrown away; those writes complete. */
  protected discardUnsent(): void {
    this.#discardUpTo = this.#finishedBytes + this.writableLength
    if (this.#sending) this.#finish(this.#sending)
  }

  /** A stream can only give up its buffer by being read, and reading tells listeners; `emit` keeps that from them. */
  protected discardUnread(): void {
    this.#discarding = true
    for (let left = this.readableLength; left > 0; ) {
      // No more at once than the high-water mark: asking for more would raise it for good.
      const bytes = Math.min(left, this.readableHighWaterMark)
      this.read(bytes)
      left -= bytes
    }
    this.#discarding = false
  }

  /** Resolves once everything written so far was sent or thrown away. */
  protected async allSent(signal: AbortSignal | undefined): Promise<void> {
    this.mustBeOpen()
    signal?.throwIfAborted()
    if (this.writableLength === 0) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const drain = { at: this.#finishedBytes + this.writableLength, resolve, reject }
    const abort = () => reject(signal?.reason)
    this.#drains.push(drain)
    signal?.addEventListener('abort', abort)
    try {
      await promise
    } finally {
      signal?.removeEventListener('abort', abort)
      this.#drains = this.#drains.filter((other) => other !== drain)
    }
  }

  protected mustBeOpen(): void {
    if (this.destroyed) throw portClosed()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#sending = { bytes: chunk, lengthBytes: chunk.length, done }
    if (this.#finishedBytes < this.#discardUpTo) this.#finish(this.#sending)
    else this.send()
  }

  override async _destroy(error: Error | null, done: (error?: Error | null) => void): Promise<void> {
    const closed = error ?? portClosed()
    this.#sending?.done(closed)
    this.#sending = undefined
    for (const drain of this.#drains) drain.reject(closed)
    await this.release()
    done(error)
  }

  override emit(event: string | symbol, ...args: unknown[]): boolean {
    return event === 'data' && this.#discarding ? false : super.emit(event, ...args)
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.destroy()
    await this.#closed
  }

  #finish(sending: Sending): void {
    this.#sending = undefined
    this.#finishedBytes += sending.lengthBytes
    sending.done()
    for (const drain of this.#drains) if (drain.at <= this.#finishedBytes) drain.resolve()
  }
}

function portClosed(): FarportError {
  return new FarportError('ERR_DEVICE_ABSENT', 'The port is closed.')
}
