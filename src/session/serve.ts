import type { Duplex } from 'node:stream'
import { Channel } from '../channel/channel.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { Rfc2217Server } from '../rfc2217/server.ts'
import type { ServerRequest } from '../rfc2217/server-request.ts'
import { Packer, type Packing } from '../serial/packer.ts'
import type { InputLines, LineChanges, LineErrors, PortState, SerialPort } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'
import { DeviceQueue } from './device-queue.ts'
import { EarlyAnswers } from './early-answers.ts'
import { type Command, PortCommands, type PortCommandsOptions } from './port-commands.ts'
import { Rfc2217Port } from './rfc2217-port.ts'

export interface ServeOptions
  extends Pick<PortCommandsOptions, 'onConfigured' | 'onLinesChanged' | 'reset' | 'log'> {
  /** What whoever is at the other end of the stream may do now; asked each time. */
  readonly may: (right: 'use' | 'configure' | 'lines') => boolean
  /** Others read the port, too: so it is left flowing at the end, and not paused. */
  readonly leaveFlowing?: boolean
  /** Somebody waits for the port: the last bytes get no more time. */
  readonly hurry?: AbortSignal
  /** How bytes are gathered, both ways. By default each goes on at once. */
  readonly pack?: Packing
  /** Counted as bytes pass, for whoever wants to know meanwhile. */
  readonly traffic?: Traffic
  /** What waits for a device that is unplugged is thrown away after so long. Left out, it waits as long as it takes. */
  readonly staleMs?: number
  /** Told what goes to the port, as it does. */
  readonly onWrite?: (bytes: Uint8Array) => void
  /** Sent to the other end as if the device had, before anything else. */
  readonly greeting?: Uint8Array
}

/** Bytes of data, without what RFC 2217 adds. */
export interface Traffic {
  toDevice: number
  fromDevice: number
}

/** How long the last bytes may take after the stream has ended: what Linux allows a closing tty (closing_wait). */
const LINGER_MS = 30_000
/** The same when the stream was not ended but torn down: its bytes were taken, so they get a chance, and no more. */
const SHORT_LINGER_MS = 2_000

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
  readonly #stream: Duplex
  readonly #port: SerialPort
  readonly #options: ServeOptions
  readonly #may: ServeOptions['may']
  readonly #log: Logger
  readonly #server = new Rfc2217Server({ signature: 'farport' })
  readonly #queue: DeviceQueue
  readonly #commands: PortCommands
  /** For a program here and a port that is far away. A peer on a channel is told nothing before it is so. */
  readonly #early: EarlyAnswers | undefined
  /** Of what the device sends. */
  readonly #packer: Packer | undefined
  /** Data before this position of the channel is not wanted any more: see Channel.mark(). */
  #skipTo = 0
  #refusedBytes = 0

  constructor(stream: Duplex, port: SerialPort, options: ServeOptions) {
    const { may, pack, staleMs, traffic = { toDevice: 0, fromDevice: 0 }, log } = options
    this.traffic = traffic
    this.#stream = stream
    this.#port = port
    this.#options = options
    this.#may = may
    this.#log = log
    const send = (bytes: Uint8Array | undefined) => this.#send(bytes)
    this.#queue = new DeviceQueue(stream, port, {
      perform: (command) => this.#perform(command),
      onWrite: (bytes) => {
        traffic.toDevice += bytes.length
        options.onWrite?.(bytes)
      },
      // A device's own end or length of a piece says nothing about what it is sent.
      ...(pack?.gapMs !== undefined && { gapMs: pack.gapMs }),
      ...(staleMs !== undefined && { staleMs }),
      log,
    })
    const flush = () => this.#queue.flush()
    this.#commands = new PortCommands(port, this.#server, { ...options, flush, send })
    this.#packer = pack && new Packer(pack, (piece) => this.#sendData(piece))
    this.#early =
      port instanceof Rfc2217Port && !(stream instanceof Channel)
        ? new EarlyAnswers(port, this.#server, send)
        : undefined
    this.ended = this.#run()
  }

  async #run(): Promise<void> {
    const stream = this.#stream
    const port = this.#port
    const { leaveFlowing = false, greeting } = this.#options
    const over = Promise.withResolvers<void>()
    const onOver = () => over.resolve()
    const onPortError = (error: Error) => stream.destroy(error)
    const onPortClose = () =>
      stream.destroy(new FarportError('ERR_DEVICE_ABSENT', 'the serial port was closed'))
    const onDrain = () => {
      if (!this.#server.suspended) port.resume()
    }
    stream.on('data', this.#onChunk).on('mark', this.#onMark).on('drain', onDrain)
    stream.on('end', onOver).on('close', onOver).on('error', onOver)
    port.on('data', this.#onDeviceData).on('lines', this.#onLines).on('lineErrors', this.#onLineErrors)
    port.on('settings', this.#onSettings).on('error', onPortError).on('close', onPortClose)
    port.on('state', this.#onState)
    if (stream.destroyed || stream.readableEnded) onOver()
    this.#send(this.#server.start())
    if (greeting !== undefined) this.#send(this.#server.data(greeting))

    await over.promise
    port.off('data', this.#onDeviceData).off('lines', this.#onLines).off('lineErrors', this.#onLineErrors)
    if (leaveFlowing) port.resume()
    else port.pause()
    this.#packer?.flush()
    await this.#finish()
    // From here on the port may be somebody else's.
    this.#commands[Symbol.dispose]()
    this.#queue[Symbol.dispose]()
    this.#packer?.[Symbol.dispose]()
    port.off('state', this.#onState)
    port.off('settings', this.#onSettings).off('error', onPortError).off('close', onPortClose)
    stream.off('data', this.#onChunk).off('mark', this.#onMark).off('drain', onDrain)
    stream.off('end', onOver).off('close', onOver)
    if (this.#refusedBytes > 0)
      this.#log.warn({ bytes: this.#refusedBytes }, 'bytes of a peer that may not write were dropped')
    stream.end()
  }

  /** Lets the port take what came before the end, but not for ever. */
  async #finish(): Promise<void> {
    const soon = this.#port.state === 'absent' || !this.#stream.readableEnded
    const timeout = AbortSignal.timeout(soon ? SHORT_LINGER_MS : LINGER_MS)
    const { hurry } = this.#options
    await this.#queue.finish(hurry === undefined ? timeout : AbortSignal.any([timeout, hurry]))
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
          if (!wanted) break
          if (this.#may('use')) this.#queue.data(event.bytes)
          else this.#refusedBytes += event.bytes.length
          break
        case 'send':
          this.#send(event.bytes)
          break
        case 'request':
          if (event.request.type === 'purge') this.#purge(event.request)
          else this.#queue.command(event.request)
          break
        case 'break':
          this.#queue.command(event)
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

  async #perform(command: Command): Promise<void> {
    const { type } = command
    if (this.#early !== undefined && type !== 'break' && this.#may('configure') && this.#may('lines'))
      await this.#early.perform(command)
    else await this.#commands.perform(command)
  }

  /** Not queued: it is about what is stuck in the queue. */
  #purge(request: ServerRequest & { type: 'purge' }): void {
    const done = () => this.#send(this.#server.answer(request))
    if (!this.#may('use')) {
      done()
      return
    }
    if (request.what !== 'rx') this.#queue.forgetData()
    if (request.what !== 'tx') this.#packer?.discard()
    const purged = this.#port.purge(request.what)
    // What comes from the device until the far end has purged is thrown away, whether somebody waits for that or not.
    if (this.#early !== undefined) done()
    purged.then(this.#early ? undefined : done, (error: Error) => this.#stream.destroy(error))
  }

  /** The peer has purged what it sent: its request is behind bytes that are stuck, so the mark has come ahead of it. */
  readonly #onMark = (position: number): void => {
    if (!this.#may('use')) return
    this.#skipTo = position
    this.#queue.forgetData()
    this.#port.purge('tx').catch((error: Error) => this.#stream.destroy(error))
  }

  #send(bytes: Uint8Array | undefined): void {
    if (bytes !== undefined && bytes.length > 0 && !this.#stream.writableEnded && !this.#stream.destroyed)
      this.#stream.write(bytes)
  }

  readonly #onDeviceData = (bytes: Uint8Array): void => {
    this.traffic.fromDevice += bytes.length
    if (this.#packer === undefined) this.#sendData(bytes)
    else this.#packer.push(bytes)
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
    this.#queue.follow(state)
    this.#tellState(state)
  }

  /** To a peer of ours FLOWCONTROL-SUSPEND says that the device is away; a program here notices that its writes wait. */
  #tellState(state: PortState): void {
    if (this.#stream instanceof Channel) this.#send(this.#server.holdOff(state === 'absent'))
  }

  readonly #onSettings = (settings: Readonly<SerialSettings>): void => {
    this.#send(this.#server.settings(settings))
  }
}
