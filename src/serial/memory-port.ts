import { FarportError } from '../errors.ts'
import { lineChanges } from './line-changes.ts'
import type {
  InputLines,
  LineErrors,
  OutputLines,
  PortDescription,
  PortSource,
  PortState,
  PurgeWhat,
  SerialPort,
} from './port.ts'
import { PortStream } from './port-stream.ts'
import { DEFAULT_SETTINGS, type SerialSettings } from './settings.ts'

/** What is wired to a memory port's connector: a cable with another port at its end, a loop plug, a device. */
export interface Attachment {
  /** Bytes on TxD. Answers how many it took; the rest is offered again when it calls `transmitMore()`. */
  onBytes(bytes: Uint8Array): number
  /** The port has room again, after `receive()` did not take everything. */
  onRoom(): void
  onOutputs(outputs: Readonly<OutputLines>): void
  onBreak(on: boolean): void
  onClose(): void
}

export interface MemoryPortOptions {
  description: PortDescription
  settings?: Partial<SerialSettings>
  /** Called once, with the port: answers what its connector is wired to. */
  attach: (port: MemoryPort) => Attachment
  /** What the receive buffer holds before `receive()` takes no more, within one chunk. */
  receiveBufferBytes?: number
  /** Bytes take as long as the baud rate says. Otherwise they take no time at all. */
  paced?: boolean
  /** Milliseconds that only go forward, for pacing. */
  clock?: () => number
}

const MAX_CHUNK_BYTES = 16 * 1024
const DEFAULT_BUFFER_BYTES = 64 * 1024
const MAX_BAUD_RATE = 0xffff_ffff
/** A paced port hands over what it sends in this much time at once: timers are no finer. */
const BURST_MS = 10
/** Time lost beyond this, by a machine that slept, is not made up for. */
const MAX_LATE_MS = 100

const XON = 0x11
const XOFF = 0x13

const ALL_LOW: Readonly<InputLines> = { cts: false, dsr: false, ri: false, dcd: false }

/**
 * A serial port without hardware: a UART in memory. The stream and the rest of SerialPort is the side a program sees;
 * `receive`, `drive`, `report`, `transmitMore`, `unplug` and `plug` are the side of what is attached to it.
 *
 * Output flow control is kept. Input flow control needs none: a sender that understands `receive()` waits by itself, and
 * one that doesn't overruns, as on a wire.
 */
export class MemoryPort extends PortStream implements SerialPort {
  readonly description: PortDescription
  readonly #attachment: Attachment
  /** Undefined where bytes take no time. */
  readonly #pacedBy: (() => number) | undefined

  #state: PortState = 'open'
  #settings: SerialSettings
  #outputs: OutputLines = { dtr: true, rts: true }
  #breaking = false
  /** As the device drives them, whether it is plugged in or not. */
  #driven: InputLines = { ...ALL_LOW }

  #hasRoom = true
  #transmitting = false
  #stoppedByXoff = false
  #burst: NodeJS.Timeout | undefined

  constructor(options: MemoryPortOptions) {
    const bufferBytes = options.receiveBufferBytes ?? DEFAULT_BUFFER_BYTES
    super({ readableHighWaterMark: bufferBytes, writableHighWaterMark: MAX_CHUNK_BYTES })
    this.description = options.description
    this.#settings = { ...DEFAULT_SETTINGS, ...options.settings }
    this.#pacedBy = options.paced ? (options.clock ?? (() => performance.now())) : undefined
    this.#attachment = options.attach(this)
    this.#attachment.onOutputs(this.outputs)
  }

  get state(): PortState {
    return this.#state
  }

  get settings(): Readonly<SerialSettings> {
    return { ...this.#settings }
  }

  get outputs(): Readonly<OutputLines> {
    return { ...this.#outputs }
  }

  get lines(): Readonly<InputLines> {
    return { ...(this.#state === 'open' ? this.#driven : ALL_LOW) }
  }

  async configure(change: Partial<SerialSettings>): Promise<Readonly<SerialSettings>> {
    this.mustBeOpen()
    const baudRate = change.baudRate ?? 0
    const known = Number.isInteger(baudRate) && baudRate > 0 && baudRate <= MAX_BAUD_RATE
    this.#settings = {
      ...this.#settings,
      ...change,
      baudRate: known ? baudRate : this.#settings.baudRate,
    }
    if (this.#settings.outputFlow !== 'xonxoff') this.#stoppedByXoff = false
    this.transmitMore()
    return this.settings
  }

  async setLines(change: Partial<OutputLines>): Promise<Readonly<OutputLines>> {
    this.mustBeOpen()
    this.#outputs = { ...this.#outputs, ...change }
    if (this.#state === 'open') this.#attachment.onOutputs(this.outputs)
    return this.outputs
  }

  async setBreak(on: boolean): Promise<void> {
    this.mustBeOpen()
    if (on === this.#breaking) return
    this.#breaking = on
    if (this.#state === 'open') this.#attachment.onBreak(on)
  }

  async purge(what: PurgeWhat): Promise<void> {
    this.mustBeOpen()
    if (what !== 'tx') this.discardUnread()
    if (what !== 'rx') {
      clearTimeout(this.#burst)
      this.#burst = undefined
      this.discardUnsent()
    }
  }

  drain({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    return this.allSent(signal)
  }

  /** Bytes on RxD. Answers how many it took; when not all, `onRoom()` follows once there is room. */
  receive(bytes: Uint8Array): number {
    if (this.destroyed || this.#state === 'absent') return bytes.length
    if (!this.#hasRoom) return 0
    const taken = bytes.subarray(0, MAX_CHUNK_BYTES)
    // A copy: the sender may use its buffer again as soon as its write is done.
    const chunk = this.#settings.outputFlow === 'xonxoff' ? this.#obeyFlow(taken) : Buffer.from(taken)
    if (chunk.length > 0) this.#hasRoom = this.push(chunk)
    return taken.length
  }

  /** What is attached can take bytes again. */
  transmitMore(): void {
    // The bytes run other ports' code, and that may come back here: the loop below sees what it changed.
    if (this.#transmitting) return
    this.#transmitting = true
    try {
      if (this.#pacedBy === undefined) while (this.#shiftOut(MAX_CHUNK_BYTES));
      else this.#scheduleBurst(this.#pacedBy, this.#pacedBy())
    } finally {
      this.#transmitting = false
    }
  }

  /** Moves input lines; those that really change are reported in one event. */
  drive(change: Partial<InputLines>): void {
    if (this.destroyed) return
    const before = this.lines
    this.#driven = { ...this.#driven, ...change }
    this.#tellLines(before)
  }

  /** Something went wrong on the line, so many times. */
  report(errors: Partial<LineErrors>): void {
    if (!this.destroyed) this.emit('lineErrors', { framing: 0, parity: 0, overrun: 0, break: 0, ...errors })
  }

  /** The device goes away. Writes wait for it. */
  unplug(): void {
    if (this.destroyed || this.#state === 'absent') return
    const before = this.lines
    this.#state = 'absent'
    this.#tellLines(before)
    this.emit('state', this.#state)
  }

  /** The device is back, and gets the lines it had. */
  plug(): void {
    if (this.destroyed || this.#state === 'open') return
    this.#state = 'open'
    this.#attachment.onOutputs(this.outputs)
    this.#tellLines(ALL_LOW)
    this.emit('state', this.#state)
    this.transmitMore()
  }

  override _read(): void {
    if (this.#hasRoom) return
    this.#hasRoom = true
    this.#attachment.onRoom()
  }

  protected override send(): void {
    this.transmitMore()
  }

  protected override release(): void {
    clearTimeout(this.#burst)
    this.#attachment.onClose()
  }

  #tellLines(before: Readonly<InputLines>): void {
    const changes = lineChanges(before, this.lines)
    if (changes === undefined) return
    this.emit('lines', this.lines, changes)
    this.transmitMore()
  }

  /** What the flow control says now. */
  #maySend(): boolean {
    if (this.#state === 'absent') return false
    switch (this.#settings.outputFlow) {
      case 'none':
        return true
      case 'rtscts':
        return this.#driven.cts
      case 'dsr':
        return this.#driven.dsr
      case 'dcd':
        return this.#driven.dcd
      case 'xonxoff':
        return !this.#stoppedByXoff
    }
  }

  /** Sends up to `limit` bytes; false when no more can go now. */
  #shiftOut(limit: number): boolean {
    const unsent = this.unsent
    if (unsent === undefined || !this.#maySend()) return false
    const taken = this.#attachment.onBytes(unsent.subarray(0, limit))
    // Taking them can have led to a purge, and the next write is not this one.
    if (unsent === this.unsent) this.sent(taken)
    return taken > 0
  }

  #scheduleBurst(clock: () => number, startsAtMs: number): void {
    if (this.#burst !== undefined || this.unsent === undefined || !this.#maySend()) return
    const byteMs = (1000 * bitsPerByte(this.#settings)) / this.#settings.baudRate
    const bytes = Math.min(this.unsent.length, Math.max(1, Math.floor(BURST_MS / byteMs)))
    const endsAtMs = Math.max(startsAtMs, clock() - MAX_LATE_MS) + bytes * byteMs
    this.#burst = setTimeout(() => {
      const more = this.#shiftOut(bytes)
      this.#burst = undefined
      // From where this one should have ended: a timer that fires late must not slow the line down.
      if (more) this.#scheduleBurst(clock, endsAtMs)
    }, endsAtMs - clock())
  }

  /** Swallows XON and XOFF, as a driver does that keeps software flow control. */
  #obeyFlow(bytes: Uint8Array): Buffer {
    const last = bytes.findLast((byte) => byte === XON || byte === XOFF)
    if (last !== undefined) this.#stoppedByXoff = last === XOFF
    if (last === XON) this.transmitMore()
    return Buffer.from(bytes.filter((byte) => byte !== XON && byte !== XOFF))
  }
}

/**
 * A source of memory ports that can be open once at a time. `settings` are what the device behind it is used to, where
 * the opener does not say.
 */
export function memorySource(options: MemoryPortOptions): PortSource {
  let open: MemoryPort | undefined
  return {
    description: options.description,
    present: async () => true,
    async open({ settings, signal }) {
      signal?.throwIfAborted()
      if (open !== undefined)
        throw new FarportError('ERR_PORT_BUSY', `${options.description.path} is already open.`)
      const port = new MemoryPort({ ...options, settings: { ...options.settings, ...settings } })
      open = port
      port.once('close', () => {
        open = undefined
      })
      return port
    },
  }
}

function bitsPerByte({ dataBits, parity, stopBits }: SerialSettings): number {
  return 1 + dataBits + (parity === 'none' ? 0 : 1) + stopBits
}
