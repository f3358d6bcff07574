import { stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type {
  InputLines,
  OutputLines,
  PortDescription,
  PortSource,
  PortState,
  PurgeWhat,
  SerialPort,
} from '../serial/port.ts'
import { DEFAULT_SETTINGS, type SerialSettings } from '../serial/settings.ts'
import type { DeviceLock } from './device-lock.ts'
import { FdDuplex } from './fd-duplex.ts'
import { isSystemError, type Libc, loadLibc } from './libc.ts'
import { LineWatch } from './line-watch.ts'
import { type LockedTty, openLocked } from './locked-tty.ts'
import { changedSettings } from './termios-settings.ts'
import { GONE, isPty, type Tty, type Wanted } from './tty.ts'

export interface LinuxPortOptions {
  /** What is known of the device besides its path. */
  description?: Partial<PortDescription>
  /** Whether DTR and RTS go back to how they were found when the port closes. It decides whether some boards reset. */
  restoreLines?: boolean
  /** The C library; another one where a test plays the driver. */
  libc?: Libc
  /** Where the device is now, looked for each time it is opened; it rejects while there is none. By default at its path. */
  locate?: () => Promise<string>
  /** Where lock files are; see device-lock.ts. */
  lockFolder?: string
  log?: Logger
}

/** An unplugged device is looked for this often. */
const RETRY_INTERVAL_MS = 250
/** How often lines, counts and settings are looked at, while somebody listens. */
const LOOK_INTERVAL_MS = 15
/** Settings that another program has changed can wait longer than lines. */
const LOOKS_PER_SETTINGS = 4
/** What keeps the looking up. */
const WATCHED_EVENTS = ['lines', 'lineErrors', 'settings']
/** More than the hardware of a port holds: a UART 16 to 256 bytes, a USB adapter some hundred. */
const FIFO_BYTES = 1024
const MAX_DRAIN_INTERVAL_MS = 20
/** An `end()` gives up on what flow control, or the absence of the device, holds up for this long. */
const END_STALL_MS = 5000
const STALL_CHECK_INTERVAL_MS = 100
/** Start, data, parity and stop of one byte, about. */
const BITS_PER_BYTE = 11
const ALL_LOW: InputLines = { cts: false, dsr: false, ri: false, dcd: false }

type Device = { state: 'open'; tty: Tty; lock: DeviceLock | undefined } | { state: 'absent' }

/** A serial port of this machine: any tty that Linux has, by any path that leads to it. */
export function linuxPort(path: string, options: LinuxPortOptions = {}): PortSource {
  const describe = (): PortDescription => ({ path, modemLines: !isPty(path), ...options.description })
  return {
    get description() {
      return describe()
    },
    async present() {
      const found = await stat(path).catch(() => undefined)
      return found?.isCharacterDevice() ?? false
    },
    async open({ settings, outputs = {}, signal }) {
      signal?.throwIfAborted()
      const libc = options.libc ?? loadLibc()
      const wanted = { settings: { ...DEFAULT_SETTINGS, ...settings }, outputs }
      const locate = options.locate ?? (async () => path)
      const opened = await openLocked(libc, await locate(), wanted, options)
      const port = new LinuxPort(libc, opened, outputs, describe(), { ...options, locate })
      if (signal?.aborted) {
        await port[Symbol.asyncDispose]()
        signal.throwIfAborted()
      }
      return port
    },
  }
}

type Located = LinuxPortOptions & Required<Pick<LinuxPortOptions, 'locate'>>

/** One opening of a Linux serial port. The stream below it lives on while devices come and go. */
class LinuxPort extends FdDuplex implements SerialPort {
  readonly description: PortDescription
  readonly #libc: Libc
  readonly #options: Located
  readonly #closing = new AbortController()
  #device: Device

  #settings: SerialSettings
  #outputs: OutputLines
  /** The lines that somebody has set: a device that comes back gets them again. */
  #outputsSet: Readonly<Partial<OutputLines>>

  #watch: LineWatch | undefined
  #looks = 0
  #looking: NodeJS.Timeout | undefined

  constructor(
    libc: Libc,
    { tty, lock, settings, outputs }: LockedTty,
    outputsSet: Readonly<Partial<OutputLines>>,
    description: PortDescription,
    options: Located,
  ) {
    super(libc)
    this.#libc = libc
    this.#options = options
    this.#outputsSet = outputsSet
    this.description = { ...description, modemLines: tty.hasModemLines }
    this.#device = { state: 'open', tty, lock }
    this.#settings = settings
    this.#outputs = outputs ?? { dtr: true, rts: true }
    this.once('finish', () => this.destroy())
    this.on('hangup', () => this.#lose())
    this.on('newListener', (event) => WATCHED_EVENTS.includes(event) && this.#startLooking())
    this.on('removeListener', () => this.#stopLookingForNobody())
    this.attach(tty.fd)
  }

  get state(): PortState {
    return this.#device.state
  }

  get settings(): Readonly<SerialSettings> {
    return { ...this.#settings }
  }

  get outputs(): Readonly<OutputLines> {
    return { ...this.#outputs }
  }

  get lines(): Readonly<InputLines> {
    return this.#watch?.lines ?? this.#ask((tty) => tty.lines()) ?? ALL_LOW
  }

  async configure(change: Partial<SerialSettings>): Promise<Readonly<SerialSettings>> {
    this.#mustBeOpen()
    this.#configure(change)
    return this.settings
  }

  async setLines(change: Partial<OutputLines>): Promise<Readonly<OutputLines>> {
    this.#mustBeOpen()
    this.#outputsSet = { ...this.#outputsSet, ...change }
    this.#setOutputs(change)
    return this.outputs
  }

  async setBreak(on: boolean): Promise<void> {
    this.#mustBeOpen()
    this.#ask((tty) => tty.setBreak(on))
  }

  async purge(what: PurgeWhat): Promise<void> {
    this.#mustBeOpen()
    // The driver first, so that a held-up write does not go on into the room that this makes.
    this.#ask((tty) => tty.flush(what))
    if (what !== 'tx') this.discardUnread()
    if (what !== 'rx') this.discardUnsent()
  }

  async drain({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    this.#mustBeOpen()
    await this.taken(signal)
    await this.#driverDrained(signal)
  }

  /** Closes once the written bytes are out, or when none has left for some seconds. */
  override end(...last: unknown[]): this {
    const ends = this.writable
    super.end(...(last as Parameters<FdDuplex['end']>))
    if (ends) this.#closeWhenStalled().catch((error) => this.destroy(error))
    return this
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#driverDrained().then(() => done(), done)
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#looking)
    this.#looking = undefined
    this.#closing.abort(error ?? portClosed())
    const lock = this.#device.state === 'open' ? this.#device.lock : undefined
    if (this.#device.state === 'open') this.#device.tty.restore({ lines: this.#restoreLines })
    super._destroy(error, (failed) => {
      if (lock === undefined) done(failed)
      // Behind the close: until then the device is not free.
      else void lock.release().then(() => done(failed))
    })
  }

  get #restoreLines(): boolean {
    return this.#options.restoreLines ?? true
  }

  #mustBeOpen(): void {
    if (this.destroyed) throw portClosed()
  }

  #configure(change: Partial<SerialSettings>): void {
    this.#settings =
      this.#ask((tty) => tty.configure(change, this.#settings)) ?? changedSettings(change, this.#settings)
  }

  #setOutputs(change: Partial<OutputLines>): void {
    this.#outputs = { ...this.#outputs, ...change }
    this.#ask((tty) => tty.setOutputs(change))
    this.#outputs = this.#ask((tty) => tty.outputs()) ?? this.#outputs
  }

  /** Asks the device, if there is one; undefined when it is gone, or goes while asked. */
  #ask<T>(question: (tty: Tty) => T): T | undefined {
    if (this.#device.state === 'absent') return undefined
    try {
      return question(this.#device.tty)
    } catch (error) {
      if (!isSystemError(error, ...GONE)) throw error
      this.#lose()
      return undefined
    }
  }

  #lose(): void {
    if (this.#device.state === 'absent' || this.destroyed) return
    this.detach()
    // At once: while we hold it, the system can not give the returning device its old name.
    const { tty, lock } = this.#device
    tty.close()
    void lock?.release()
    this.#device = { state: 'absent' }
    if (this.#watch !== undefined) this.#look(this.#watch)
    this.emit('state', 'absent')
    this.#waitForReturn().catch((error) => this.destroy(error))
  }

  async #waitForReturn(): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      await delay(RETRY_INTERVAL_MS, undefined, { ref: false, signal }).catch(() => {})
      if (signal.aborted) return
      const wanted = { settings: this.#settings, outputs: this.#outputsSet }
      // Whatever is in the way, a program or a missing right, may go away as well.
      const opened = await this.#reopen(wanted).catch(() => undefined)
      if (opened !== undefined) return await this.#resume(opened, wanted)
    }
  }

  async #reopen(wanted: Wanted): Promise<LockedTty> {
    const { log: _told, ...options } = this.#options
    return await openLocked(this.#libc, await this.#options.locate(), wanted, options)
  }

  async #resume({ tty, lock, settings, outputs }: LockedTty, wanted: Wanted): Promise<void> {
    if (this.destroyed) {
      tty.restore({ lines: this.#restoreLines })
      tty.close()
      await lock?.release()
      return
    }
    const asked = { settings: this.#settings, outputs: this.#outputsSet }
    this.#device = { state: 'open', tty, lock }
    this.#settings = settings
    this.#outputs = outputs ?? this.#outputs
    // What was asked for while the device was being opened.
    if (asked.settings !== wanted.settings) this.#configure(asked.settings)
    if (asked.outputs !== wanted.outputs) this.#setOutputs(asked.outputs)
    if (this.#device.state !== 'open') return
    this.emit('state', 'open')
    // Another device may have come back than the one that went.
    if (!sameSettings(this.#settings, asked.settings)) this.emit('settings', this.settings)
    this.attach(tty.fd)
  }

  async #driverDrained(signal?: AbortSignal): Promise<void> {
    const either = signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal
    // No tcdrain(): it would hold a thread of the pool for as long as flow control holds the line.
    let leavingSinceMs: number | undefined
    for (;;) {
      either.throwIfAborted()
      const output = this.#ask((tty) => tty.output())
      if (output === undefined || output === 'sent') return
      const { outputFlow } = this.#settings
      const byteMs = this.#byteMs
      // Some adapters never say that they have sent it all. Nothing but flow control holds it longer than it takes.
      leavingSinceMs = output === 'leaving' ? (leavingSinceMs ?? performance.now()) : undefined
      const leftMs = (leavingSinceMs ?? Number.NaN) + FIFO_BYTES * byteMs - performance.now()
      if (outputFlow === 'none' && leftMs <= 0) return
      await delay(Math.min(Math.max(1, byteMs), MAX_DRAIN_INTERVAL_MS), undefined, { signal: either }).catch(
        () => either.throwIfAborted(),
      )
    }
  }

  async #closeWhenStalled(): Promise<void> {
    const { signal } = this.#closing
    let leastBytes = Number.POSITIVE_INFINITY
    let sinceMs = performance.now()
    while (!this.destroyed) {
      const bytes = this.writableLength + (this.#ask((tty) => tty.queuedBytes()) ?? 0)
      if (bytes < leastBytes) sinceMs = performance.now()
      leastBytes = Math.min(bytes, leastBytes)
      const stallMs = Math.max(END_STALL_MS, FIFO_BYTES * this.#byteMs)
      if (performance.now() - sinceMs >= stallMs) this.destroy()
      else await delay(STALL_CHECK_INTERVAL_MS, undefined, { ref: false, signal }).catch(() => {})
    }
  }

  get #byteMs(): number {
    return (1000 * BITS_PER_BYTE) / this.#settings.baudRate
  }

  #startLooking(): void {
    if (this.#looking !== undefined || this.destroyed) return
    const watch = new LineWatch({
      lines: () => this.#ask((tty) => tty.lines()),
      counters: () => this.#ask((tty) => tty.counters()),
    })
    this.#watch = watch
    this.#lookLater(watch)
  }

  /** All ports look on the same beat, so that many of them cost one wake-up and not one each. */
  #lookLater(watch: LineWatch): void {
    const untilBeatMs = LOOK_INTERVAL_MS - (performance.now() % LOOK_INTERVAL_MS)
    const delayMs = untilBeatMs < LOOK_INTERVAL_MS / 2 ? untilBeatMs + LOOK_INTERVAL_MS : untilBeatMs
    this.#looking = setTimeout(() => {
      this.#lookLater(watch)
      this.#look(watch)
    }, delayMs).unref()
  }

  #stopLookingForNobody(): void {
    if (this.#looking === undefined) return
    if (WATCHED_EVENTS.some((event) => this.listenerCount(event) > 0)) return
    clearTimeout(this.#looking)
    this.#looking = undefined
    this.#watch = undefined
  }

  #look(watch: LineWatch): void {
    const { lines, errors } = watch.look()
    if (lines) this.emit('lines', lines.now, lines.changes)
    if (errors) this.emit('lineErrors', errors)
    this.#looks++
    if (this.#looks % LOOKS_PER_SETTINGS !== 0) return
    const settings = this.#ask((tty) => tty.settings(this.#settings))
    if (settings === undefined || sameSettings(settings, this.#settings)) return
    this.#settings = settings
    this.emit('settings', this.settings)
  }
}

function sameSettings(a: SerialSettings, b: SerialSettings): boolean {
  return Object.entries(a).every(([name, value]) => b[name as keyof SerialSettings] === value)
}

function portClosed(): FarportError {
  return new FarportError('ERR_DEVICE_ABSENT', 'The port is closed.')
}
