import { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { ClientRequest, InForce } from '../rfc2217/client.ts'
import type {
  InputLines,
  LineChanges,
  LineErrors,
  OutputLines,
  PortDescription,
  PortState,
  PurgeWhat,
  SerialPort,
} from '../serial/port.ts'
import { DEFAULT_SETTINGS, type SerialSettings } from '../serial/settings.ts'
import { Conversation, type Patience } from './conversation.ts'
import type { Traffic } from './serve.ts'

export interface Rfc2217PortOptions {
  /** How long a write waits for a server to come back before its bytes are dropped. */
  holdMs: number
  /** For servers that may leave requests unanswered. */
  patience?: Patience
  /** Bytes that waited for `holdMs` in vain. */
  onDropped?: (bytes: number) => void
  /** The settings in force may be others now. */
  onSettings?: (settings: Readonly<SerialSettings>) => void
  /** The device behind the server has gone (false), or is there again. */
  onDevice?: (there: boolean) => void
  /** The port is being closed: no server is wanted any more. */
  onClosing?: () => void
  /** Counted as bytes pass, for whoever wants to know meanwhile. */
  traffic?: Traffic
  log: Logger
}

/** How data gets to the server; what else it is told goes the same way at once. */
export interface Outlet {
  /** Sends the bytes and calls `done` when it can take more. One write at a time. */
  write(bytes: Buffer, done: () => void): void
  /** What was written and is not sent, or not done, is not wanted any more; the write that waits completes. */
  purge(): void
  /** The server takes data again. */
  resume(): void
  /** Bytes that the server may not have seen yet. */
  readonly unconfirmedBytes: number
  /** Ends the stream behind what was written; called back when that has arrived, or can't. */
  end(done: () => void): void
}

/** What a server has told of its port. */
export interface Known {
  description: PortDescription
  settings: Readonly<SerialSettings>
  outputs: Readonly<OutputLines>
  /** Left out where it tells them by itself. */
  lines?: Readonly<InputLines>
}

/** Bytes from the device that wait for a reader, at most. Only answers that are awaited make it more than a stream's usual. */
const MAX_UNREAD_BYTES = 512 * 1024

/** Short of that by the largest chunk of a socket. */
const ENOUGH_UNREAD_BYTES = MAX_UNREAD_BYTES - 64 * 1024

/** The same before the port is open, in chunks of at most 64 KiB: what does not fit is lost, as before any port is open. */
const MAX_EARLY_CHUNKS = 8

/** With less than this on its way, a request is heard by the server within a round trip. */
const PROMPT_BYTES = 16 * 1024

/** From then on each write waits this long: a program that writes without end must not keep a processor busy with it. */
const DROP_PAUSE_MS = 500

const ALL_LOW: InputLines = { cts: false, dsr: false, ri: false, dcd: false }
const NO_CHANGES: LineChanges = { cts: 0, dsr: 0, ri: 0, dcd: 0 }

/** Break, framing, parity and overrun of NOTIFY-LINESTATE: what is an error, and not just a full buffer. */
const LINE_ERRORS_MASK = 0x1e

type Line =
  | { state: 'opening' }
  | { state: 'live'; conversation: Conversation; outlet: Outlet }
  /** A farport agent has lost its device, and puts all back that it knows of when it returns. Writes as below. */
  | { state: 'away'; conversation: Conversation; outlet: Outlet; dropAt: number; missed: Missed }
  /** No server: what is written is held until `dropAt` (on the clock of `performance`), then dropped. */
  | { state: 'lost'; dropAt: number }
  | { state: 'closed' }

/** What was asked for while the device was away; the server has not heard of it. */
interface Missed {
  settings: boolean
  lines: boolean
  break: boolean
}

/** A write that has to wait: for the server to resume, or to be there again. */
interface Held {
  bytes: Buffer
  done: (error?: Error | null) => void
  timer?: NodeJS.Timeout
}

interface Drain extends PromiseWithResolvers<void> {
  /** Bytes written before it. */
  position: number
}

/**
 * A serial port behind an RFC 2217 server, whatever the stream to it runs over. It outlives its streams: whoever has made
 * one says `converse` and, once the server has agreed, `begin`; and `lose` when it is gone. On a new one settings, lines
 * and break are put back as they were set here.
 *
 * A farport agent whose device is unplugged says FLOWCONTROL-SUSPEND, which it has no other use for, and
 * FLOWCONTROL-RESUME when the device is back. That is all it takes: its lines go low by NOTIFY-MODEMSTATE, and a client
 * that knows of no unplugged devices just sends nothing meanwhile. Of another server it is flow control.
 */
export class Rfc2217Port extends Duplex implements SerialPort {
  readonly #options: Rfc2217PortOptions
  readonly #traffic: Traffic
  #line: Line = { state: 'opening' }
  /** The newest, whether the port is open on it or not. */
  #conversation: Conversation | undefined
  /** What it brought before the port was open on it: a server's complaint, if it hangs up. */
  #early: Uint8Array[] = []
  #description: PortDescription = { path: '', modemLines: false }
  #settings: Readonly<SerialSettings> = DEFAULT_SETTINGS
  #outputs: Readonly<OutputLines> = { dtr: true, rts: true }
  #lines: InputLines = ALL_LOW
  #break = false
  /** Requests for lines so far: only the answer to the last one says how they are. */
  #linesAsked = 0
  #held: Held | undefined
  /** In the order of their positions. */
  readonly #drains: Drain[] = []
  /** Bytes taken by `_write` so far, and up to which of them a purge wants them gone. */
  #writtenBytes = 0
  #purgeUpTo = 0
  /** Purges of what is on its way here that wait for their answer: all that comes before it is what they are about. */
  #purgesOfRx = 0
  /** An answer waits behind more than anybody reads: what does not fit is thrown away until it is there. */
  #overdue = false
  #overdueTimer: NodeJS.Timeout | undefined
  /** Set while the stream's own buffer is emptied: it can only be read, and reading tells listeners. */
  #emptying = false

  constructor(options: Rfc2217PortOptions) {
    super()
    this.#options = options
    this.#traffic = options.traffic ?? { toDevice: 0, fromDevice: 0 }
    this.once('finish', () => this.destroy())
  }

  /** Speaks to the server on this stream from now on; its bytes are read here. */
  converse(stream: Duplex): Conversation {
    const { patience, log } = this.#options
    const conversation = new Conversation(stream, {
      handlers: {
        data: (bytes) => this.#receiveData(conversation, bytes),
        news: (inForce) => this.#takeNews(inForce),
        lines: (lines, changes) => this.#takeLines(lines, changes),
        lineErrors: (errors) => void this.emit('lineErrors', errors),
        suspended: () => this.#leave(),
        resumed: () => this.#flow(),
        asked: () => this.#listen(conversation),
        settled: () => {
          this.#overdue = false
          if (this.readableLength >= this.readableHighWaterMark) stream.pause()
        },
      },
      ...(patience && { patience }),
      log,
    })
    this.#conversation = conversation
    this.#early = []
    return conversation
  }

  /** The server has the port. What it told of it counts the first time; later it is told how the port was left here. */
  begin(conversation: Conversation, outlet: Outlet, known: Known): void {
    const again = this.#line.state === 'lost'
    this.#line = { state: 'live', conversation, outlet }
    this.#description = known.description
    conversation.ask({ type: 'set-masks', lineState: LINE_ERRORS_MASK }).catch(() => {})
    if (again) this.#restore()
    else {
      this.#settings = { ...known.settings }
      this.#outputs = { ...known.outputs }
      if (known.lines !== undefined) this.#lines = { ...known.lines }
    }
    this.#options.onSettings?.(this.#settings)
    if (again) this.emit('state', 'open')
    for (const bytes of this.#early.splice(0)) this.#receiveData(conversation, bytes)
    this.#releaseHeld()
  }

  /** The server is gone. */
  lose(): void {
    this.#conversation?.end()
    const line = this.#line
    if (line.state !== 'live' && line.state !== 'away') return
    const { dropAt } = line.state === 'away' ? line : { dropAt: performance.now() + this.#options.holdMs }
    this.#line = { state: 'lost', dropAt }
    this.#takeLines(ALL_LOW, NO_CHANGES)
    if (line.state === 'away') return
    this.#holdAgain()
    this.emit('state', 'absent')
  }

  get description(): PortDescription {
    return this.#description
  }

  get state(): PortState {
    return this.#line.state === 'live' ? 'open' : 'absent'
  }

  get settings(): Readonly<SerialSettings> {
    return this.#settings
  }

  get outputs(): Readonly<OutputLines> {
    return this.#outputs
  }

  get lines(): Readonly<InputLines> {
    return this.#lines
  }

  async configure(change: Partial<SerialSettings>): Promise<Readonly<SerialSettings>> {
    if (Object.keys(change).length === 0 || !isExpressible(change)) return this.#settings
    // RFC 2217 sets both directions with one code: the other one has to be named to stay.
    const asked =
      change.outputFlow === undefined ? change : { inputFlow: this.#settings.inputFlow, ...change }
    if (this.#line.state === 'away') this.#line.missed.settings = true
    this.#takeSettings(await this.#ask({ type: 'configure', change: asked }, asked))
    return this.#settings
  }

  async setLines(change: Partial<OutputLines>): Promise<Readonly<OutputLines>> {
    if (Object.keys(change).length === 0) return this.#outputs
    const asked = ++this.#linesAsked
    if (this.#line.state === 'away') this.#line.missed.lines = true
    this.#outputs = { ...this.#outputs, ...change }
    const { dtr, rts } = await this.#ask({ type: 'set-lines', change }, change)
    // A server that leaves it unanswered has a port without lines: its state is the one asked for.
    const inForce = { dtr: dtr ?? this.#outputs.dtr, rts: rts ?? this.#outputs.rts }
    if (asked === this.#linesAsked) this.#outputs = inForce
    return inForce
  }

  async setBreak(on: boolean): Promise<void> {
    this.#break = on
    if (this.#line.state === 'away') this.#line.missed.break = true
    await this.#ask({ type: 'set-break', on }, { break: on })
  }

  async purge(what: PurgeWhat): Promise<void> {
    if (what !== 'tx') this.#empty()
    const stuck = this.#line.state === 'live' && this.#line.outlet.unconfirmedBytes > PROMPT_BYTES
    if (what !== 'rx') {
      this.#purgeUpTo = this.#writtenBytes + this.writableLength
      this.#releaseHeld()
      if (this.#line.state === 'live' || this.#line.state === 'away') this.#line.outlet.purge()
    }
    let awaited = what !== 'tx' && !(what === 'rx' && stuck)
    if (awaited) this.#purgesOfRx++
    // What the device says to the next bytes may come in one piece with the answer.
    const purged = () => {
      if (awaited) this.#purgesOfRx--
      awaited = false
    }
    const answer = this.#ask({ type: 'purge', what }, {}, purged)
    if (what === 'rx' && stuck) {
      // Behind bytes that are stuck the answer may never come, and what the device says meanwhile must not be lost.
      answer.catch(() => {})
      return
    }
    // The answer comes behind all that was on its way here.
    try {
      await answer
    } finally {
      purged()
    }
  }

  async drain({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    signal?.throwIfAborted()
    if (this.#line.state === 'closed') throw portClosed()
    const drain: Drain = {
      position: this.#writtenBytes + this.writableLength,
      ...Promise.withResolvers<void>(),
    }
    const onAbort = () => drain.reject(signal?.reason)
    signal?.addEventListener('abort', onAbort)
    this.#drains.push(drain)
    this.#confirmWhatIsDue()
    try {
      await drain.promise
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  override _read(): void {
    this.#conversation?.stream.resume()
  }

  override _write(bytes: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    const end = this.#writtenBytes + bytes.length
    const wanted = bytes.subarray(Math.min(bytes.length, Math.max(0, this.#purgeUpTo - this.#writtenBytes)))
    const line = this.#line
    const finished = () => {
      this.#writtenBytes = end
      this.#confirmWhatIsDue()
      done(this.destroyed ? portClosed() : null)
    }
    if (wanted.length === 0) finished()
    // A stream that dies with these bytes counts them itself; the port goes on.
    else if (line.state === 'live' && !line.conversation.suspended) {
      this.#traffic.toDevice += wanted.length
      line.outlet.write(wanted, finished)
    } else this.#hold(bytes, done)
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return
    const closed = new Promise<void>((resolve) => this.once('close', resolve))
    this.destroy()
    await closed
  }

  override _final(done: (error?: Error | null) => void): void {
    const line = this.#line
    this.#options.onClosing?.()
    const { stream } = this.#conversation ?? {}
    if ((line.state !== 'live' && line.state !== 'away') || stream?.destroyed) done()
    else line.outlet.end(() => done())
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#line = { state: 'closed' }
    clearTimeout(this.#overdueTimer)
    this.#options.onClosing?.()
    this.#drop()
    for (const { reject } of this.#drains.splice(0)) reject(portClosed())
    this.#conversation?.end()
    this.#conversation?.stream.destroy()
    done(error)
  }

  /** A new stream begins with the port as the server opens it; the program here still believes in what it set. */
  #restore(): void {
    this.#askAgain({ settings: true, lines: this.#linesAsked > 0, break: this.#break })
  }

  #askAgain(missed: Missed): void {
    const again: Promise<unknown>[] = []
    if (missed.settings) again.push(this.configure(this.#settings))
    if (missed.lines) again.push(this.setLines(this.#outputs))
    if (missed.break) again.push(this.setBreak(this.#break))
    for (const done of again) done.catch(() => {})
  }

  #takeSettings(inForce: InForce): void {
    this.#settings = { ...this.#settings, ...settingsOf(inForce) }
    this.#options.onSettings?.(this.#settings)
  }

  #takeNews(inForce: InForce): void {
    const { dtr = this.#outputs.dtr, rts = this.#outputs.rts } = inForce
    this.#outputs = { dtr, rts }
    if (Object.keys(settingsOf(inForce)).length === 0) return
    this.#takeSettings(inForce)
    this.emit('settings', this.#settings)
  }

  /**
   * Answers come behind the bytes of the device, so while one is awaited these are taken in although nobody reads them; up
   * to a limit, and then lost as in the full buffer of any serial port.
   */
  #receiveData(conversation: Conversation, bytes: Uint8Array): void {
    if (this.#purgesOfRx > 0 || conversation !== this.#conversation || this.destroyed) return
    if (this.#line.state === 'opening' || this.#line.state === 'lost') {
      if (this.#early.length < MAX_EARLY_CHUNKS) this.#early.push(bytes)
      return
    }
    const full = this.readableLength + bytes.length > MAX_UNREAD_BYTES
    if (!full) this.#traffic.fromDevice += bytes.length
    if (full) this.emit('lineErrors', { framing: 0, parity: 0, overrun: 1, break: 0 } satisfies LineErrors)
    else if (!this.push(bytes) && !(conversation.waits && this.#mayTakeMore)) conversation.stream.pause()
  }

  /** A channel has no more than its window under way to us; a socket has megabytes, of which not all would fit in. */
  get #mayTakeMore(): boolean {
    return this.#options.patience === undefined || this.#overdue || this.readableLength < ENOUGH_UNREAD_BYTES
  }

  /** Lets the answer come, unless too much is unread already; then that has `patience` to be read. */
  #listen({ stream }: Conversation): void {
    if (this.#mayTakeMore) stream.resume()
    else
      this.#overdueTimer ??= setTimeout(() => {
        this.#overdueTimer = undefined
        this.#overdue = this.#conversation?.waits ?? false
        if (this.#overdue) this.#conversation?.stream.resume()
      }, this.#options.patience?.limitMs).unref()
  }

  /** The first report of a stream repeats what is known; only news is an event. */
  #takeLines(lines: InputLines, changes: LineChanges): void {
    const before = this.#lines
    this.#lines = lines
    const names = Object.keys(lines) as (keyof InputLines)[]
    const edges = (name: keyof InputLines) => Math.max(changes[name], lines[name] === before[name] ? 0 : 1)
    if (names.every((name) => edges(name) === 0)) return
    this.emit('lines', lines, Object.fromEntries(names.map((name) => [name, edges(name)])) as LineChanges)
  }

  override emit(event: string | symbol, ...args: unknown[]): boolean {
    return event === 'data' && this.#emptying ? false : super.emit(event, ...args)
  }

  #empty(): void {
    this.#emptying = true
    while (this.read() !== null);
    this.#emptying = false
  }

  /**
   * What is in force after a request. Without a server, or when it goes before it has answered, that is the `wish`: it is
   * restored on the next stream.
   */
  async #ask(request: ClientRequest, wish: InForce, onAnswer?: () => void): Promise<InForce> {
    const line = this.#line
    if (line.state === 'closed') throw portClosed()
    if (line.state !== 'live') return wish
    const inForce = await line.conversation.ask(request, onAnswer)
    if (this.destroyed) throw portClosed()
    return this.#line === line ? inForce : { ...wish, ...inForce }
  }

  /** A drain's question goes behind the bytes written before it, and before those written since. */
  #confirmWhatIsDue(): void {
    while (this.#drains[0] !== undefined && this.#drains[0].position <= this.#writtenBytes) {
      const [{ resolve, reject }] = this.#drains.splice(0, 1) as [Drain]
      const line = this.#line
      if (line.state !== 'live') resolve()
      else line.conversation.confirm().then(() => (this.destroyed ? reject(portClosed()) : resolve()), reject)
    }
  }

  #leave(): void {
    const line = this.#line
    // Servers that are waited for with patience are not farport's.
    if (line.state !== 'live' || this.#options.patience !== undefined) return
    const { conversation, outlet } = line
    const missed = { settings: false, lines: false, break: false }
    this.#line = {
      state: 'away',
      conversation,
      outlet,
      dropAt: performance.now() + this.#options.holdMs,
      missed,
    }
    this.#holdAgain()
    this.#options.onDevice?.(false)
    this.emit('state', 'absent')
  }

  #flow(): void {
    const line = this.#line
    if (line.state === 'away') {
      const { conversation, outlet, missed } = line
      this.#line = { state: 'live', conversation, outlet }
      this.#askAgain(missed)
      this.#options.onDevice?.(true)
      this.emit('state', 'open')
    }
    if (this.#line.state === 'live') this.#line.outlet.resume()
    this.#releaseHeld()
  }

  /** From now on only for so long. */
  #holdAgain(): void {
    if (this.#held !== undefined) this.#hold(this.#held.bytes, this.#held.done)
  }

  #hold(bytes: Buffer, done: Held['done']): void {
    clearTimeout(this.#held?.timer)
    this.#held = { bytes, done }
    if (this.#line.state !== 'lost' && this.#line.state !== 'away') return
    const leftMs = this.#line.dropAt - performance.now()
    // A timer may come up to 1 ms early, and what is left then is no pause.
    this.#held.timer = setTimeout(() => this.#drop(), leftMs >= 1 ? leftMs : DROP_PAUSE_MS).unref()
  }

  #releaseHeld(): void {
    const held = this.#held
    this.#held = undefined
    if (held === undefined) return
    clearTimeout(held.timer)
    this._write(held.bytes, 'buffer', held.done)
  }

  /** Gives up what waits to be written, and says so: a machine must not get yesterday's commands. */
  #drop(): void {
    const held = this.#held
    this.#held = undefined
    if (held === undefined) return
    clearTimeout(held.timer)
    if (this.#line.state === 'lost' || this.#line.state === 'away')
      this.#options.onDropped?.(held.bytes.length)
    held.done(this.destroyed ? portClosed() : null)
  }
}

/** The settings among what is in force. */
export function settingsOf({
  baudRate,
  dataBits,
  parity,
  stopBits,
  outputFlow,
  inputFlow,
}: InForce): Partial<SerialSettings> {
  const all = { baudRate, dataBits, parity, stopBits, outputFlow, inputFlow }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

function portClosed(): FarportError {
  return new FarportError('ERR_DEVICE_ABSENT', 'the port was closed')
}

/** Whether RFC 2217 has a code for it; what it has not can't be asked for, so the answer is what is in force. */
function isExpressible({ baudRate = 1 }: Partial<SerialSettings>): boolean {
  return Number.isInteger(baudRate) && baudRate > 0 && baudRate <= 0xffff_ffff
}
