import { Duplex } from 'node:stream'
import type { Channel } from '../channel/channel.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import {
  type ClientRequest,
  type InForce,
  MAX_OUTSTANDING_REQUESTS,
  Rfc2217Client,
} from '../rfc2217/client.ts'
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
import type { SerialSettings } from '../serial/settings.ts'
import { type CarrierPath, ChannelKeeper, type KeeperOptions, type Welcomed } from './keeper.ts'
import { channelWindow } from './window.ts'

export type RemoteEvent =
  | { state: 'up'; path?: CarrierPath['kind'] }
  /** Now on another path, without a pause; that one's round trip. */
  | { state: 'moved'; path?: CarrierPath['kind']; roundTripMs: number }
  /** Another carrier, or another channel, is being looked for. */
  | { state: 'down'; reason: string }
  /** Bytes that may not have reached the device in time: those nobody acknowledged, commands among them. */
  | { state: 'dropped'; bytes: number }

export interface RemotePortOptions extends KeeperOptions {
  report: (event: RemoteEvent) => void
  log: Logger
}

/** Bytes from the device that wait for a reader, at most. Only answers that are awaited make it more than a stream's usual. */
const MAX_UNREAD_BYTES = 512 * 1024

/** With less than this on its way to the agent, a request is heard there within a round trip. */
const PROMPT_BYTES = 16 * 1024

/** Break, framing, parity and overrun of NOTIFY-LINESTATE: what is an error, and not just a full buffer. */
const LINE_ERRORS_MASK = 0x1e

/**
 * Opens a port of a peer. From then on it is a serial port like any other: lost carriers, and an agent that is restarted,
 * are mended below it, with settings and lines restored.
 * @throws FarportError the agent's refusal, or why it can't be reached
 */
export async function openRemotePort(options: RemotePortOptions, signal: AbortSignal): Promise<SerialPort> {
  const port = new RemotePort(options)
  await port.open(signal)
  return port
}

type Line =
  | { state: 'opening' }
  | {
      state: 'live'
      channel: Channel
      client: Rfc2217Client
      waiting: Map<ClientRequest, PromiseWithResolvers<InForce>>
    }
  /** No channel: what is written is held until `dropAt` (on the clock of `performance`), then dropped. */
  | { state: 'lost'; dropAt: number }
  | { state: 'closed' }

/** A write that has to wait: for the peer to resume, or for a new channel. */
interface Held {
  bytes: Buffer
  done: (error?: Error | null) => void
  timer?: NodeJS.Timeout
}

interface Drain extends PromiseWithResolvers<void> {
  /** Bytes written before it. */
  position: number
}

class RemotePort extends Duplex implements SerialPort {
  readonly #options: RemotePortOptions
  #keeper: ChannelKeeper | undefined
  #line: Line = { state: 'opening' }
  #description: PortDescription = { path: '', modemLines: false }
  #settings: SerialSettings | undefined
  #outputs: OutputLines = { dtr: true, rts: true }
  #lines: InputLines = { cts: false, dsr: false, ri: false, dcd: false }
  #break = false
  /** True once somebody set lines here: only then are they put back on a new channel. */
  #linesSet = false
  #held: Held | undefined
  /** In the order of their positions. */
  readonly #drains: Drain[] = []
  /** Bytes taken by `_write` so far, and up to which of them a purge wants them gone. */
  #writtenBytes = 0
  #purgeUpTo = 0
  /** Purges of what is on its way here that wait for their answer: all that comes before it is what they are about. */
  #purgesOfRx = 0
  /** Set while the stream's own buffer is emptied: it can only be read, and reading tells listeners. */
  #emptying = false

  constructor(options: RemotePortOptions) {
    super()
    this.#options = options
    this.once('finish', () => this.destroy())
  }

  async open(signal: AbortSignal): Promise<void> {
    this.#keeper = await ChannelKeeper.open(
      this.#options,
      {
        opened: (channel, carrier) => this.#opened(channel, carrier),
        down: (reason) => this.#options.report({ state: 'down', reason }),
        up: ({ path }) => this.#options.report({ state: 'up', ...kindOf(path) }),
        moved: ({ path, roundTripMs }) =>
          this.#options.report({ state: 'moved', ...kindOf(path), roundTripMs: Math.round(roundTripMs) }),
        stayed: (error) => this.#options.log.debug({ err: error }, 'could not move to the better path'),
        lost: (error, unacknowledged) => this.#lost(error, unacknowledged),
      },
      signal,
    )
  }

  get description(): PortDescription {
    return this.#description
  }

  get state(): PortState {
    return this.#line.state === 'live' ? 'open' : 'absent'
  }

  get settings(): Readonly<SerialSettings> {
    if (this.#settings === undefined) throw new FarportError('ERR_INTERNAL', 'the port is not open yet')
    return this.#settings
  }

  get outputs(): Readonly<OutputLines> {
    return this.#outputs
  }

  get lines(): Readonly<InputLines> {
    return this.#lines
  }

  async configure(change: Partial<SerialSettings>): Promise<Readonly<SerialSettings>> {
    const wanted = { ...this.settings, ...change }
    if (Object.keys(change).length === 0) return this.settings
    // RFC 2217 sets both directions with one code: the other one has to be named to stay.
    const asked = change.outputFlow === undefined ? change : { ...change, inputFlow: wanted.inputFlow }
    if (!isExpressible(asked)) return this.settings
    const inForce = await this.#ask({ type: 'configure', change: asked })
    this.#settings = { ...wanted, ...settingsOf(inForce) }
    this.#resizeWindow()
    return this.#settings
  }

  async setLines(change: Partial<OutputLines>): Promise<Readonly<OutputLines>> {
    if (Object.keys(change).length === 0) return this.#outputs
    this.#linesSet = true
    this.#outputs = { ...this.#outputs, ...change }
    const { dtr, rts } = await this.#ask({ type: 'set-lines', change })
    this.#outputs = { dtr: dtr ?? this.#outputs.dtr, rts: rts ?? this.#outputs.rts }
    return this.#outputs
  }

  async setBreak(on: boolean): Promise<void> {
    this.#break = on
    await this.#ask({ type: 'set-break', on })
  }

  async purge(what: PurgeWhat): Promise<void> {
    if (what !== 'tx') this.#empty()
    if (what !== 'rx') {
      this.#purgeUpTo = this.#writtenBytes + this.writableLength
      this.#releaseHeld()
      // What is already on the channel is skipped over there: the mark overtakes it.
      if (this.#line.state === 'live') this.#line.channel.mark()
    }
    const answer = this.#ask({ type: 'purge', what })
    if (what === 'rx' && this.#unacknowledged > PROMPT_BYTES) {
      // Behind bytes that are stuck the answer may never come, and what the device says meanwhile must not be lost.
      answer.catch(() => {})
      return
    }
    // The answer comes behind all that was on its way here.
    if (what !== 'tx') this.#purgesOfRx++
    try {
      await answer
    } finally {
      if (what !== 'tx') this.#purgesOfRx--
    }
  }

  /** The agent answers a question only after the bytes before it have left the device. */
  async drain({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    signal?.throwIfAborted()
    const drain: Drain = {
      position: this.#writtenBytes + this.writableLength,
      ...Promise.withResolvers<void>(),
    }
    const onAbort = () => drain.reject(signal?.reason)
    signal?.addEventListener('abort', onAbort)
    this.#drains.push(drain)
    this.#askWhatIsDue()
    try {
      await drain.promise
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  override _read(): void {
    if (this.#line.state === 'live') this.#line.channel.resume()
  }

  override _write(bytes: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    const end = this.#writtenBytes + bytes.length
    const wanted = bytes.subarray(Math.min(bytes.length, Math.max(0, this.#purgeUpTo - this.#writtenBytes)))
    const line = this.#line
    const finished = () => {
      this.#writtenBytes = end
      this.#askWhatIsDue()
      done(this.destroyed ? portClosed() : null)
    }
    if (wanted.length === 0) finished()
    // A channel that dies with these bytes counts them itself; the port goes on.
    else if (line.state === 'live' && !line.client.suspended)
      line.channel.write(line.client.data(wanted), finished)
    else this.#hold(bytes, done)
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return
    const closed = new Promise<void>((resolve) => this.once('close', resolve))
    this.destroy()
    await closed
  }

  override _final(done: (error?: Error | null) => void): void {
    const line = this.#line
    this.#keeper?.stop()
    if (line.state !== 'live' || line.channel.destroyed) {
      done()
      return
    }
    line.channel.once('close', () => done())
    line.channel.end()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const line = this.#line
    this.#line = { state: 'closed' }
    this.#keeper?.stop()
    this.#drop()
    for (const { reject } of this.#drains.splice(0)) reject(portClosed())
    if (line.state === 'live') {
      for (const { reject } of line.waiting.values()) reject(portClosed())
      line.channel.destroy()
    }
    done(error)
  }

  #opened(channel: Channel, { welcome, path }: Welcomed): void {
    if (this.#line.state === 'closed') {
      channel.destroy()
      return
    }
    const again = this.#line.state === 'lost'
    const client = new Rfc2217Client({ signature: 'farport' })
    this.#line = { state: 'live', channel, client, waiting: new Map() }
    this.#description = welcome.description
    channel.on('data', (chunk: Buffer) => this.#receive(chunk))
    channel.on('attach', () => this.#resizeWindow())
    channel.on('roundTrip', () => this.#resizeWindow())
    channel.write(client.start())
    channel.write(client.request({ type: 'set-masks', lineState: LINE_ERRORS_MASK }))
    if (!again) {
      this.#settings = { ...welcome.settings }
      this.#outputs = welcome.outputs
      this.#lines = welcome.lines
    } else this.#restore()
    this.#resizeWindow()
    this.#options.report({ state: 'up', ...kindOf(path) })
    if (again) this.emit('state', 'open')
    this.#releaseHeld()
  }

  /** A new channel begins with the port as the agent opens it; the program here still believes in what it set. */
  #restore(): void {
    const again: ClientRequest[] = [{ type: 'configure', change: this.settings }]
    if (this.#linesSet) again.push({ type: 'set-lines', change: this.#outputs })
    if (this.#break) again.push({ type: 'set-break', on: true })
    for (const request of again) this.#ask(request).catch(() => {})
  }

  #lost(error: FarportError, unacknowledged: number): void {
    const line = this.#line
    if (line.state !== 'live') return
    this.#line = { state: 'lost', dropAt: performance.now() + this.#options.resumeMs }
    if (this.#held !== undefined) this.#hold(this.#held.bytes, this.#held.done)
    // What was asked for is restored on the next channel, so that is the honest answer.
    for (const { resolve } of line.waiting.values()) resolve({})
    this.#options.log.warn({ err: error, unacknowledged }, 'the channel is lost')
    this.#options.report({ state: 'down', reason: error.message })
    if (unacknowledged > 0) this.#options.report({ state: 'dropped', bytes: unacknowledged })
    this.emit('state', 'absent')
  }

  #receive(chunk: Buffer): void {
    const line = this.#line
    if (line.state !== 'live') return
    const { channel, client, waiting } = line
    for (const event of client.push(chunk)) {
      switch (event.type) {
        case 'data':
          if (this.#purgesOfRx === 0) this.#receiveData(event.bytes)
          break
        case 'send':
          channel.write(event.bytes)
          break
        case 'answer': {
          const asked = waiting.get(event.request)
          waiting.delete(event.request)
          asked?.resolve(event.inForce)
          if (waiting.size === 0 && this.readableLength >= this.readableHighWaterMark) channel.pause()
          break
        }
        case 'settings':
          this.#settings = { ...this.settings, ...settingsOf(event.inForce) }
          this.#resizeWindow()
          this.emit('settings', this.#settings)
          break
        case 'modem-state':
          this.#takeLines(event.lines, event.changes)
          break
        case 'line-state':
          this.emit('lineErrors', event.errors)
          break
        case 'resume':
          this.#releaseHeld()
          break
        case 'refused':
          channel.destroy(
            new FarportError('ERR_PROTOCOL', 'the agent does not speak RFC 2217 on the channel'),
          )
          break
        case 'malformed':
          this.#options.log.debug({ reason: event.reason }, 'malformed telnet')
          break
        case 'active':
        case 'suspend':
        case 'signature':
          break
        default:
          event satisfies never
      }
    }
  }

  /**
   * Answers come behind the bytes of the device, so while one is awaited these are taken in although nobody reads them; up
   * to a limit, and then lost as in the full buffer of any serial port.
   */
  #receiveData(bytes: Uint8Array): void {
    const line = this.#line
    if (this.readableLength + bytes.length > MAX_UNREAD_BYTES)
      this.emit('lineErrors', { framing: 0, parity: 0, overrun: 1, break: 0 } satisfies LineErrors)
    else if (!this.push(bytes) && line.state === 'live' && line.waiting.size === 0) line.channel.pause()
  }

  /** The first report of a channel repeats what the welcome said; only news is an event. */
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

  /** Sends a request and waits for its answer; without a channel the answer is empty: nothing is known to be different. */
  async #ask(request: ClientRequest): Promise<InForce> {
    const line = this.#line
    if (line.state === 'closed') throw portClosed()
    if (line.state !== 'live') return {}
    if (line.client.outstandingRequests >= MAX_OUTSTANDING_REQUESTS) {
      const [oldest] = line.waiting.values()
      await oldest?.promise
      return await this.#ask(request)
    }
    const answer = Promise.withResolvers<InForce>()
    line.waiting.set(request, answer)
    line.channel.resume()
    line.channel.write(line.client.request(request))
    return await answer.promise
  }

  /** A drain's question goes behind the bytes written before it, and before those written since. */
  #askWhatIsDue(): void {
    while (this.#drains[0] !== undefined && this.#drains[0].position <= this.#writtenBytes) {
      const [{ resolve, reject }] = this.#drains.splice(0, 1) as [Drain]
      this.#ask({ type: 'query', what: ['baudRate'] }).then(() => resolve(), reject)
    }
  }

  #hold(bytes: Buffer, done: Held['done']): void {
    this.#held = { bytes, done }
    if (this.#line.state === 'lost')
      this.#held.timer = setTimeout(
        () => this.#drop(),
        Math.max(0, this.#line.dropAt - performance.now()),
      ).unref()
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
    if (this.#line.state === 'lost') this.#options.report({ state: 'dropped', bytes: held.bytes.length })
    held.done(this.destroyed ? portClosed() : null)
  }

  get #unacknowledged(): number {
    return this.#line.state === 'live' ? this.#line.channel.unacknowledged : 0
  }

  #resizeWindow(): void {
    if (this.#line.state !== 'live') return
    const { channel } = this.#line
    channel.window = channelWindow(this.settings.baudRate, channel.roundTripMs)
  }
}

function settingsOf({
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

function kindOf(path: CarrierPath | undefined): { path?: CarrierPath['kind'] } {
  return path === undefined ? {} : { path: path.kind }
}

function portClosed(): FarportError {
  return new FarportError('ERR_DEVICE_ABSENT', 'the port was closed')
}

/** Whether RFC 2217 has a code for it; what it has not can't be asked for, so the answer is what is in force. */
function isExpressible({ baudRate = 1 }: Partial<SerialSettings>): boolean {
  return Number.isInteger(baudRate) && baudRate > 0 && baudRate <= 0xffff_ffff
}
