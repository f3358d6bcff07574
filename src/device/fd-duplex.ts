import { close as closeFd } from 'node:fs'
import { Duplex } from 'node:stream'
import { getSystemErrorName } from 'node:util'
import { FarportError } from '../errors.ts'
import type { FdPoll, Libc, Ready } from './libc.ts'

/** One slab serves many reads; a new one is taken when less than a full tty read is left of it. */
const SLAB_BYTES = 64 * 1024
const MIN_READ_BYTES = 4096
/** A read that brings this much is likely to leave more; below it, asking again costs more than waiting to be told. */
const MORE_LIKELY_BYTES = 2048
/** What one descriptor may read before the others get their turn. */
const TURN_BYTES = 64 * 1024

export interface FdDuplexOptions {
  /** Open, non-blocking, and from now on this stream's to close. Without it the stream waits for `attach()`. */
  fd?: number
  /**
   * Sees the bytes of each read(2) by itself, as packet mode of a PTY needs, and answers those that go into the stream;
   * an empty answer puts nothing there. The bytes are nobody else's: views of them may be kept. Runs in stream order,
   * before the bytes can be read.
   */
  onRead?: (bytes: Buffer) => Buffer
  /** How much is held for a reader that does not read. */
  readableHighWaterMark?: number
  writableHighWaterMark?: number
}

interface Sending {
  bytes: Buffer
  readonly lengthBytes: number
  readonly done: (error?: Error | null) => void
}

interface Waiter {
  /** The count of completed bytes that satisfies it. */
  readonly at: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * A stream over a non-blocking descriptor that can be polled: a tty, either side of a PTY, inotify. The descriptor may
 * come and go while the stream stays.
 *
 * A blocked write never stops reads and costs no CPU: it waits for the descriptor to have room. A reader that falls
 * behind stops reads. Nothing is copied: chunks are views of a slab whose bytes are handed out once.
 *
 * `'hangup'` (code: string) says that the far side is gone: a read or write failed (`EIO`, `ENODEV`), or a read found the
 * end (`EOF`). Polling has stopped, so nothing spins, and writes are held. The owner decides: `retry()`, `detach()` and
 * another `attach()`, or `destroy()`. It comes once until then.
 */
export class FdDuplex extends Duplex {
  readonly #libc: Libc
  readonly #onRead: ((bytes: Buffer) => Buffer) | undefined
  #device: { readonly fd: number; readonly poll: FdPoll; state: 'open' | 'hung up' } | undefined

  #wanted = false
  #slab = Buffer.alloc(0)
  #discarding = false

  #sending: Sending | undefined
  #completedBytes = 0
  #discardUpTo = 0
  readonly #waiters = new Set<Waiter>()

  readonly #ready: Ready = { readable: false, writable: false, disconnect: false }
  #awaitsTurn = false

  constructor(libc: Libc, options: FdDuplexOptions = {}) {
    const { readableHighWaterMark = SLAB_BYTES, writableHighWaterMark = SLAB_BYTES } = options
    super({ readableHighWaterMark, writableHighWaterMark })
    this.#libc = libc
    this.#onRead = options.onRead
    if (options.fd !== undefined) this.attach(options.fd)
  }

  /** The descriptor, while there is one. */
  get fd(): number | undefined {
    return this.#device?.fd
  }

  /** Goes on with this descriptor: writes that were held go there. */
  attach(fd: number): void {
    if (this.#device !== undefined) throw new Error('a descriptor is attached already')
    const poll = this.#libc.poll(fd, (ready) => {
      this.#ready.readable ||= ready.readable
      this.#ready.writable ||= ready.writable
      this.#ready.disconnect ||= ready.disconnect
      if (this.#awaitsTurn) return
      this.#awaitsTurn = true
      this.#libc.round.add(this.#takeTurn)
    })
    this.#device = { fd, poll, state: 'open' }
    this.#send()
    this.#updateInterest()
  }

  /** Lets go of the descriptor without closing it. Reads wait and writes are held until another is attached. */
  detach(): number | undefined {
    const device = this.#device
    this.#device = undefined
    device?.poll.close()
    this.#clearReady()
    return device?.fd
  }

  /** After a hang-up: the far side may be back. */
  retry(): void {
    if (this.#device?.state !== 'hung up') return
    this.#device.state = 'open'
    this.#send()
    this.#updateInterest()
  }

  /** Resolves once the descriptor has taken everything written so far; rejects with the signal's reason. */
  async taken(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    if (this.writableLength === 0) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter = { at: this.#completedBytes + this.writableLength, resolve, reject }
    const abort = () => reject(signal?.reason)
    this.#waiters.add(waiter)
    signal?.addEventListener('abort', abort)
    try {
      await promise
    } finally {
      signal?.removeEventListener('abort', abort)
      this.#waiters.delete(waiter)
    }
  }

  /** Throws away the writes that the descriptor has not taken. They complete. */
  discardUnsent(): void {
    this.#discardUpTo = this.#completedBytes + this.writableLength
    if (this.#sending) this.#complete(this.#sending)
    this.#updateInterest()
  }

  /** Throws away what was read from the descriptor and not from the stream. */
  discardUnread(): void {
    // A stream gives up its buffer only by being read, and reading tells listeners; `emit` keeps that from them.
    this.#discarding = true
    for (let left = this.readableLength; left > 0; ) {
      // No more at once than the high-water mark: asking for more would raise it for good.
      const bytes = Math.min(left, this.readableHighWaterMark)
      this.read(bytes)
      left -= bytes
    }
    this.#discarding = false
  }

  override emit(event: string | symbol, ...args: unknown[]): boolean {
    return event === 'data' && this.#discarding ? false : super.emit(event, ...args)
  }

  override _read(): void {
    this.#wanted = true
    this.#updateInterest()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#sending = { bytes: chunk, lengthBytes: chunk.length, done }
    if (this.#completedBytes < this.#discardUpTo) this.#complete(this.#sending)
    else this.#send()
    this.#updateInterest()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const fd = this.detach()
    const closed = error ?? new FarportError('ERR_DEVICE_ABSENT', 'The port is closed.')
    this.#sending?.done(closed)
    this.#sending = undefined
    for (const waiter of this.#waiters) waiter.reject(closed)
    // In the pool: closing a UART waits for bytes that flow control holds up, 30 s at worst.
    if (fd === undefined) done(error)
    else closeFd(fd, () => done(error))
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.destroy()
    if (!this.closed) await new Promise<void>((resolve) => this.once('close', resolve))
  }

  readonly #takeTurn = (): void => {
    this.#awaitsTurn = false
    const { readable, writable, disconnect } = this.#ready
    this.#clearReady()
    if (writable) this.#send()
    const blocked = writable && this.#sending !== undefined
    if (this.#wanted) {
      if (readable) this.#receive()
    } else if (disconnect || blocked) this.#receiveTheLast()
    this.#updateInterest()
  }

  #receive(): void {
    let turnBytes = 0
    do {
      if (this.#device?.state !== 'open') return
      if (this.#slab.length < MIN_READ_BYTES) this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
      const n = this.#libc.read(this.#device.fd, this.#slab)
      if (n === 0) this.#checkHangup()
      if (n < 0) this.#fail(n)
      if (n <= 0) return
      const bytes = this.#slab.subarray(0, n)
      this.#slab = this.#slab.subarray(n)
      turnBytes += n
      const kept = this.#onRead === undefined ? bytes : this.#onRead(bytes)
      if (kept.length > 0) this.#wanted = this.push(kept) && this.#wanted
      if (n < MORE_LIKELY_BYTES) return
    } while (this.#wanted && turnBytes < TURN_BYTES)
  }

  /**
   * A hang-up is told again and again, also as room to write, until the end is read. So what is left is read though nobody
   * wants it yet: no more than the kernel holds for a tty.
   */
  #receiveTheLast(): void {
    if (this.#device?.state === 'open' && this.#libc.isHungUp(this.#device.fd)) this.#receive()
  }

  #send(): void {
    const sending = this.#sending
    if (sending === undefined || this.#device?.state !== 'open') return
    for (;;) {
      const n = this.#libc.write(this.#device.fd, sending.bytes)
      if (n < 0) this.#fail(n)
      if (n === sending.bytes.length) break
      if (n <= 0) return
      sending.bytes = sending.bytes.subarray(n)
    }
    this.#complete(sending)
  }

  #complete(sending: Sending): void {
    this.#sending = undefined
    this.#completedBytes += sending.lengthBytes
    sending.done()
    for (const waiter of this.#waiters) if (waiter.at <= this.#completedBytes) waiter.resolve()
  }

  #fail(negativeErrno: number): void {
    const code = getSystemErrorName(negativeErrno)
    if (code !== 'EAGAIN' && code !== 'EINTR') this.#hangUp(code)
  }

  /** A read of nothing is the end, except from a tty set to VMIN 0, as any program with the same tty may do. */
  #checkHangup(): void {
    if (this.#device === undefined) return
    try {
      this.#libc.inputQueue(this.#device.fd)
    } catch {
      this.#hangUp('EOF')
    }
  }

  #hangUp(code: string): void {
    if (this.#device?.state !== 'open') return
    this.#device.state = 'hung up'
    this.#updateInterest()
    this.emit('hangup', code)
  }

  #clearReady(): void {
    this.#ready.readable = false
    this.#ready.writable = false
    this.#ready.disconnect = false
  }

  #updateInterest(): void {
    if (this.#device === undefined) return
    const { poll, state } = this.#device
    if (state === 'hung up') poll.waitFor('nothing')
    else if (this.#sending) poll.waitFor(this.#wanted ? 'read or write' : 'write')
    else poll.waitFor(this.#wanted ? 'read' : 'disconnect')
  }
}
