import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { Channel } from '../channel/channel.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { Rfc2217Server } from '../rfc2217/server.ts'
import type { ServerRequest } from '../rfc2217/server-request.ts'
import type { ResetProfile } from '../serial/line-sequence.ts'
import { LineSequencer } from '../serial/line-sequencer.ts'
import { Packer, type Packing } from '../serial/packer.ts'
import type {
  InputLines,
  LineChanges,
  LineErrors,
  OutputLines,
  PortState,
  SerialPort,
} from '../serial/port.ts'
import { formatSettings, type SerialSettings } from '../serial/settings.ts'
import { EarlyAnswers } from './early-answers.ts'
import { Rfc2217Port } from './rfc2217-port.ts'

export interface ServeOptions {
  /** What whoever is at the other end of the stream may do now; asked each time. */
  may: (right: 'use' | 'configure' | 'lines') => boolean
  /** Told after settings were changed from there. */
  onConfigured?: (inForce: Readonly<SerialSettings>, before: Readonly<SerialSettings>) => void
  /** Told after lines were changed from there, of each that did. */
  onLinesChanged?: (changed: LinesChanged) => void
  /** Others read the port, too: so it is left flowing at the end, and not paused. */
  leaveFlowing?: boolean
  /** Somebody waits for the port: the last bytes get no more time. */
  hurry?: AbortSignal
  /** How the board is reset, where its sequence is to be run here when the other end makes it. */
  reset?: ResetProfile
  /** How bytes are gathered, both ways. By default each goes on at once. */
  pack?: Packing
  /** Counted as bytes pass, for whoever wants to know meanwhile. */
  traffic?: Traffic
  /** What waits for a device that is unplugged is thrown away after so long. Left out, it waits as long as it takes. */
  staleMs?: number
  /** Told what goes to the port, as it does. */
  onWrite?: (bytes: Uint8Array) => void
  /** Sent to the other end as if the device had, before anything else. */
  greeting?: Uint8Array
  log: Logger
}

/** `sequence` is the name of the one that was run. */
export type LinesChanged = Partial<OutputLines> & { break?: boolean; sequence?: string }

/** Bytes of data, without what RFC 2217 adds. */
export interface Traffic {
  toDevice: number
  fromDevice: number
}

/** Where the bytes go that are for the device: while it is away they are held first, and dropped when they are stale. */
type ToDevice = { state: 'flowing' } | { state: 'held'; timer?: NodeJS.Timeout } | { state: 'dropped' }

/** What is left to do on the port, in the order it came. */
type Item =
  | { type: 'data'; bytes: Uint8Array; purges: number }
  | { type: 'request'; request: Exclude<ServerRequest, { type: 'purge' }> }
  | { type: 'break' }

/**
 * How far the stream is read ahead of the port, so that a purge is seen although the bytes before it are stuck. Beyond it
 * the stream is left alone until the port has caught up.
 */
const MAX_BYTES_AHEAD = 64 * 1024
const MAX_ITEMS_AHEAD = 256

/** What IAC BRK stands for; the length tcsendbreak(3) uses. */
const BREAK_MS = 250
/** How long the last bytes may take after the stream has ended: what Linux allows a closing tty (closing_wait). */
const LINGER_MS = 30_000
/** The same when the stream was not ended but torn down: its bytes were taken, so they get a chance, and no more. */
const SHORT_LINGER_MS = 2_000
/** Longest wait for the bytes before a command to leave. pyserial gives an answer 3 s. */
const MAX_DRAIN_MS = 2_500
/** What may sit in a driver behind our own buffers. */
const DRIVER_BUFFER = 4096

/**
 * Gives a serial port to the other end of a stream, by RFC 2217: to a farport peer on a channel, or to a local program on
 * a socket. Resolves when the stream is over and what it brought is done; the port stays open and is the caller's.
 */
export async function servePort(stream: Duplex, port: SerialPort, options: ServeOptions): Promise<Traffic> {
  const service = new PortService(stream, port, options)
  await service.ended
  return service.traffic
}

class PortService {
  readonly ended: Promise<void>
  readonly traffic: Traffic
  readonly #greeting: Uint8Array | undefined
  readonly #stream: Duplex
  readonly #port: SerialPort
  readonly #may: ServeOptions['may']
  readonly #onConfigured: ServeOptions['onConfigured']
  readonly #onLinesChanged: ServeOptions['onLinesChanged']
  readonly #onWrite: ServeOptions['onWrite']
  readonly #leaveFlowing: boolean
  readonly #hurry: AbortSignal | undefined
  readonly #sequencer: LineSequencer | undefined
  readonly #packToDevice: Packer | undefined
  readonly #packFromDevice: Packer | undefined
  readonly #staleMs: number | undefined
  readonly #log: Logger
  readonly #server = new Rfc2217Server({ signature: 'farport' })
  readonly #todo: Item[] = []
  #bytesAhead = 0
  /** Data before this position of the channel is not wanted any more: see Channel.mark(). */
  #skipTo = 0
  /** How often data was thrown away. */
  #purges = 0
  #working: Promise<void> | undefined
  /** For a program here and a port that is far away. A peer on a channel is told nothing before it is so. */
  readonly #early: EarlyAnswers | undefined
  /** From here on the port may be somebody else's. */
  #over = false
  #refusedBytes = 0
  #toDevice: ToDevice = { state: 'flowing' }
  #staleBytes = 0

  constructor(stream: Duplex, port: SerialPort, options: ServeOptions) {
    const { may, onConfigured, onLinesChanged, leaveFlowing = false, hurry, reset, pack, log } = options
    this.traffic = options.traffic ?? { toDevice: 0, fromDevice: 0 }
    this.#greeting = options.greeting
    this.#stream = stream
    this.#port = port
    this.#may = may
    this.#onConfigured = onConfigured
    this.#onLinesChanged = onLinesChanged
    this.#leaveFlowing = leaveFlowing
    this.#onWrite = options.onWrite
    this.#hurry = hurry
    this.#staleMs = options.staleMs
    this.#log = log
    this.#sequencer =
      reset && new LineSequencer(port, reset, (sequence) => this.#onLinesChanged?.({ sequence }))
    // A device's own end or length of a piece says nothing about what it is sent.
    this.#packToDevice =
      pack?.gapMs === undefined
        ? undefined
        : new Packer({ gapMs: pack.gapMs }, (piece) => {
            if (!port.destroyed) this.#writeNow(piece)
          })
    this.#packFromDevice = pack && new Packer(pack, (piece) => this.#sendData(piece))
    this.#early =
      port instanceof Rfc2217Port && !(stream instanceof Channel)
        ? new EarlyAnswers(port, this.#server, (bytes) => this.#send(bytes))
        : undefined
    this.ended = this.#run()
  }

  async #run(): Promise<void> {
    const stream = this.#stream
    const port = this.#port
    const over = Promise.withResolvers<void>()
    const onOver = () => over.resolve()
    const onPortError = (error: Error) => stream.destroy(error)
    const onPortClose = () =>
      stream.destroy(new FarportError('ERR_DEVICE_ABSENT', 'the serial port was closed'))
    const onDrain = () => {
      if (!this.#server.suspended) port.resume()
    }
    stream
      .on('data', this.#onChunk)
      .on('mark', this.#onMark)
      .on('drain', onDrain)
      .on('end', onOver)
      .on('close', onOver)
      .on('error', onOver)
    port.on('data', this.#onDeviceData).on('lines', this.#onLines).on('lineErrors', this.#onLineErrors)
    port.on('settings', this.#onSettings).on('error', onPortError).on('close', onPortClose)
    port.on('state', this.#onState)
    if (port.state === 'absent') this.#hold()
    if (stream.destroyed || stream.readableEnded) onOver()
    this.#send(this.#server.start())
    if (this.#greeting !== undefined) this.#send(this.#server.data(this.#greeting))

    await over.promise
    port.off('data', this.#onDeviceData).off('lines', this.#onLines).off('lineErrors', this.#onLineErrors)
    if (this.#leaveFlowing) port.resume()
    else port.pause()
    this.#packFromDevice?.flush()
    await this.#finish()
    this.#over = true
    port.off('state', this.#onState)
    this.#letFlow()
    this.#sequencer?.[Symbol.dispose]()
    this.#packToDevice?.[Symbol.dispose]()
    this.#packFromDevice?.[Symbol.dispose]()
    this.#forgetData()
    port.off('settings', this.#onSettings).off('error', onPortError).off('close', onPortClose)
    stream
      .off('data', this.#onChunk)
      .off('mark', this.#onMark)
      .off('drain', onDrain)
      .off('end', onOver)
      .off('close', onOver)
    if (this.#refusedBytes > 0)
      this.#log.warn({ bytes: this.#refusedBytes }, 'bytes of a peer that may not write were dropped')
    stream.end()
  }

  /** Lets the port take what came before the end, but not for ever. */
  async #finish(): Promise<void> {
    const soon = this.#port.state === 'absent' || !this.#stream.readableEnded
    const timeout = AbortSignal.timeout(soon ? SHORT_LINGER_MS : LINGER_MS)
    const signal = this.#hurry === undefined ? timeout : AbortSignal.any([timeout, this.#hurry])
    const late = signal.aborted ? undefined : once(signal, 'abort')
    await Promise.race([this.#working, late])
    this.#packToDevice?.flush()
    if (!this.#port.destroyed) await this.#port.drain({ signal }).catch(() => {})
  }

  readonly #onChunk = (chunk: Uint8Array): void => {
    const stale = this.#stream instanceof Channel ? this.#skipTo - (this.#stream.position - chunk.length) : 0
    if (stale <= 0) this.#take(chunk, true)
    else {
      this.#take(chunk.subarray(0, stale), false)
      this.#take(chunk.subarray(stale), true)
    }
  }

  /** Commands always count; data only where it is `wanted`. */
  #take(chunk: Uint8Array, wanted: boolean): void {
    for (const event of this.#server.push(chunk)) {
      switch (event.type) {
        case 'data':
          if (!wanted || this.#isStale(event.bytes)) break
          if (!this.#may('use')) this.#refusedBytes += event.bytes.length
          else if (this.#working === undefined && !this.#port.writableNeedDrain) this.#write(event.bytes)
          else this.#queue({ type: 'data', bytes: event.bytes, purges: this.#purges })
          break
        case 'send':
          this.#send(event.bytes)
          break
        case 'request':
          if (event.request.type === 'purge') this.#purge(event.request)
          else this.#queue({ type: 'request', request: event.request })
          break
        case 'break':
          this.#queue({ type: 'break' })
          break
        case 'active':
          this.#send(this.#server.modemState(this.#port.lines))
          if (this.#port.state === 'absent') this.#tellState('absent')
          break
        case 'suspend':
          this.#port.pause()
          break
        case 'resume':
          if (!this.#stream.writableNeedDrain) this.#port.resume()
          break
        case 'signature':
          this.#log.debug({ signature: event.text }, 'the other end names itself')
          break
        case 'malformed':
          this.#log.debug({ reason: event.reason }, 'malformed telnet')
          break
        default:
          event satisfies never
      }
    }
  }

  #queue(item: Item): void {
    this.#todo.push(item)
    if (item.type === 'data') this.#bytesAhead += item.bytes.length
    if (this.#bytesAhead > MAX_BYTES_AHEAD || this.#todo.length > MAX_ITEMS_AHEAD) this.#stream.pause()
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined
    })
  }

  /** Does what is queued, in order and with the port's own pace. Never rejects: a port that fails closes the stream. */
  async #work(): Promise<void> {
    for (let item = this.#todo.shift(); item !== undefined && !this.#over; item = this.#todo.shift()) {
      switch (item.type) {
        case 'data':
          this.#bytesAhead -= item.bytes.length
          if (this.#port.writableNeedDrain) await this.#portReady()
          // A purge may have come meanwhile; what it was about is not to be written after it.
          if (!this.#port.destroyed && item.purges === this.#purges) this.#write(item.bytes)
          break
        case 'request':
          await this.#perform(item.request)
          break
        case 'break':
          if (this.#may('lines')) await this.#break()
          break
        default:
          item satisfies never
      }
      if (
        this.#bytesAhead <= MAX_BYTES_AHEAD / 2 &&
        this.#todo.length <= MAX_ITEMS_AHEAD / 2 &&
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

  async #perform(request: Exclude<ServerRequest, { type: 'purge' }>): Promise<void> {
    const port = this.#port
    const server = this.#server
    if (this.#early !== undefined && this.#may('configure') && this.#may('lines')) {
      await this.#early.perform(request).catch((error: Error) => this.#stream.destroy(error))
      return
    }
    await this.#settle()
    if (this.#over) return
    try {
      switch (request.type) {
        case 'configure': {
          const asked = Object.keys(request.change).length > 0
          if (asked && this.#may('configure')) {
            const before = { ...port.settings }
            const inForce = await port.configure(request.change)
            if (request.change.baudRate !== undefined && this.#may('lines'))
              await this.#sequencer?.setBaudRate(inForce.baudRate)
            this.#log.debug({ before: formatSettings(before), now: formatSettings(inForce) }, 'settings')
            this.#onConfigured?.(inForce, before)
          }
          this.#send(server.answer(request, port.settings))
          break
        }
        case 'set-lines': {
          const asked = Object.keys(request.change).length > 0
          if (asked && this.#may('lines')) {
            const before = { ...port.outputs }
            await (this.#sequencer ?? port).setLines(request.change)
            this.#tellLines(before, port.outputs)
          }
          this.#send(server.answer(request, (this.#sequencer ?? port).outputs))
          break
        }
        case 'set-break': {
          const allowed = this.#may('lines')
          if (allowed) {
            await port.setBreak(request.on)
            this.#onLinesChanged?.({ break: request.on })
          }
          this.#send(server.answer(request, allowed && request.on))
          break
        }
        default:
          request satisfies never
      }
    } catch (error) {
      this.#stream.destroy(error instanceof Error ? error : new Error(String(error)))
    }
  }

  /** Not queued: it is about what is stuck in the queue. */
  #purge(request: ServerRequest & { type: 'purge' }): void {
    const done = () => this.#send(this.#server.answer(request))
    if (!this.#may('use')) {
      done()
      return
    }
    if (request.what !== 'rx') this.#forgetData()
    if (request.what !== 'tx') this.#packFromDevice?.discard()
    const purged = this.#port.purge(request.what)
    // What comes from the device until the far end has purged is thrown away, whether somebody waits for that or not.
    if (this.#early !== undefined) done()
    purged.then(this.#early ? undefined : done, (error: Error) => this.#stream.destroy(error))
  }

  /** The peer has purged what it sent: its request is behind bytes that are stuck, so the mark has come ahead of it. */
  readonly #onMark = (position: number): void => {
    if (!this.#may('use')) return
    this.#skipTo = position
    this.#forgetData()
    this.#port.purge('tx').catch((error: Error) => this.#stream.destroy(error))
  }

  #forgetData(): void {
    this.#purges++
    this.#packToDevice?.discard()
    const kept = this.#todo.filter((item) => item.type !== 'data')
    this.#todo.splice(0, this.#todo.length, ...kept)
    this.#bytesAhead = 0
    if (this.#todo.length <= MAX_ITEMS_AHEAD) this.#stream.resume()
  }

  async #break(): Promise<void> {
    await this.#settle()
    if (this.#over) return
    await this.#port.setBreak(true)
    this.#onLinesChanged?.({ break: true })
    await delay(BREAK_MS)
    await this.#port.setBreak(false)
    this.#onLinesChanged?.({ break: false })
  }

  #tellLines(before: Readonly<OutputLines>, { dtr, rts }: Readonly<OutputLines>): void {
    if (dtr !== before.dtr || rts !== before.rts)
      this.#onLinesChanged?.({ ...(dtr !== before.dtr && { dtr }), ...(rts !== before.rts && { rts }) })
  }

  /**
   * Lets the bytes before a command leave before it acts, as the peer meant it: a program that waits for its output
   * (tcdrain) on a far port can't see it leave. A line that is held up would wait for ever, so there is a limit: the time
   * the bytes take at this speed.
   */
  async #settle(): Promise<void> {
    const port = this.#port
    this.#packToDevice?.flush()
    if (port.state === 'absent') return
    const bytes = port.writableLength + DRIVER_BUFFER
    const limitMs = Math.min(
      MAX_DRAIN_MS,
      50 + Math.ceil((bytes * 12_500) / Math.max(1, port.settings.baudRate)),
    )
    await port.drain({ signal: AbortSignal.timeout(limitMs) }).catch(() => {})
  }

  #send(bytes: Uint8Array | undefined): void {
    if (bytes !== undefined && bytes.length > 0 && !this.#stream.writableEnded && !this.#stream.destroyed)
      this.#stream.write(bytes)
  }

  #write(bytes: Uint8Array): void {
    this.traffic.toDevice += bytes.length
    if (this.#packToDevice === undefined) this.#writeNow(bytes)
    else this.#packToDevice.push(bytes)
  }

  #writeNow(bytes: Uint8Array): void {
    this.#onWrite?.(bytes)
    this.#port.write(bytes)
  }

  readonly #onDeviceData = (bytes: Uint8Array): void => {
    this.traffic.fromDevice += bytes.length
    if (this.#packFromDevice === undefined) this.#sendData(bytes)
    else this.#packFromDevice.push(bytes)
  }

  #sendData(bytes: Uint8Array): void {
    if (this.#stream.writableEnded || this.#stream.destroyed) return
    if (!this.#stream.write(this.#server.data(bytes))) this.#port.pause()
  }

  readonly #onLines = (lines: InputLines, changes: LineChanges): void => {
    this.#send(this.#server.modemState(lines, changes))
  }

  readonly #onLineErrors = (errors: LineErrors): void => {
    this.#send(this.#server.lineState(errors))
  }

  readonly #onState = (state: PortState): void => {
    if (state === 'absent') this.#hold()
    else this.#letFlow()
    this.#tellState(state)
  }

  /** To a peer of ours FLOWCONTROL-SUSPEND says that the device is away; a program here notices that its writes wait. */
  #tellState(state: PortState): void {
    if (this.#stream instanceof Channel) this.#send(this.#server.holdOff(state === 'absent'))
  }

  #hold(): void {
    this.#letFlow()
    const ms = this.#staleMs
    this.#toDevice = { state: 'held', ...(ms !== undefined && { timer: setTimeout(() => this.#drop(), ms) }) }
  }

  /** A machine must not get yesterday's commands when it is plugged in again. */
  #drop(): void {
    this.#toDevice = { state: 'dropped' }
    this.#staleBytes += this.#bytesAhead + this.#port.writableLength
    this.#forgetData()
    this.#port.purge('tx').catch((error: Error) => this.#stream.destroy(error))
  }

  #isStale({ length }: Uint8Array): boolean {
    if (this.#toDevice.state !== 'dropped') return false
    this.#staleBytes += length
    return true
  }

  #letFlow(): void {
    if (this.#toDevice.state === 'held') clearTimeout(this.#toDevice.timer)
    this.#toDevice = { state: 'flowing' }
    if (this.#staleBytes > 0)
      this.#log.warn(
        { bytes: this.#staleBytes },
        'bytes for a device that was away for too long were dropped',
      )
    this.#staleBytes = 0
  }

  readonly #onSettings = (settings: Readonly<SerialSettings>): void => {
    this.#send(this.#server.settings(settings))
  }
}
