/**
 * The access-server half of RFC 2217: the side that has the serial port. Bytes in, events out; it holds no stream, no
 * timer and no port.
 *
 *     stream.write(server.start())
 *     for await (const chunk of stream)
 *       for (const event of server.push(chunk))
 *         switch (event.type) {
 *           case 'data':    await port.write(event.bytes)
 *           case 'send':    stream.write(event.bytes)
 *           case 'request': stream.write(server.answer(event.request, await port.configure(event.request.change)))
 *           …
 *
 * Every request gets an answer, also one that can't be fulfilled: clients wait for it, some for seconds, and give up when
 * it doesn't come.
 */
import { AYT, BINARY, BRK, ECHO, NOP, SUPPRESS_GO_AHEAD } from '../telnet/bytes.ts'
import { TelnetDecoder, type TelnetEvent } from '../telnet/decoder.ts'
import { command, concat, escapeIac, subnegotiation } from '../telnet/encoder.ts'
import { TelnetOptions } from '../telnet/options.ts'
import { Rfc2217Error } from './error.ts'
import { HeldOutput } from './held-output.ts'
import type { InputLines, LineChanges, LineErrors, LineSettings, OutputLines } from './line.ts'
import { errorBits, lineStateOf } from './line-state.ts'
import {
  COM_PORT,
  decodeMessage,
  encodeMessage,
  isKnown,
  type Malformed,
  type Message,
  type SetMessage,
  type Value,
} from './messages.ts'
import { ModemNotifier } from './modem-notifier.ts'
import { modemStateOf } from './modem-state.ts'
import {
  type BreakRequest,
  type ConfigureRequest,
  type JoinableMessage,
  joinRequest,
  type LinesRequest,
  type PurgeRequest,
  requestOf,
  type ServerRequest,
  type SettingMessage,
} from './server-request.ts'

export type { ServerRequest } from './server-request.ts'

export type ServerEvent =
  /** Bytes for the device. */
  | { type: 'data'; bytes: Uint8Array }
  /** Bytes for the peer. */
  | { type: 'send'; bytes: Uint8Array }
  /** Something to do on the port and then to `answer`, in the order of the requests. */
  | { type: 'request'; request: ServerRequest }
  /** A short break is wanted (IAC BRK); nothing is answered. */
  | { type: 'break' }
  /** The peer knows RFC 2217: now tell it the `modemState`. */
  | { type: 'active' }
  /** The peer takes no data until `resume`: stop reading the port. */
  | { type: 'suspend' }
  | { type: 'resume' }
  /** What the peer calls itself, as it sent it. */
  | { type: 'signature'; text: string }
  | { type: 'malformed'; reason: string }

/**
 * A UART can only divide its clock, so a driver may report 115,384 for 115,200. Clients insist on reading back what they
 * asked for; up to this deviation a receiver can't tell the difference.
 */
const BAUD_RATE_TOLERANCE = 0.02

/** So many questions about the break may wait for the request before them. */
const MAX_QUERIES_BEHIND = 64

/** The answer to a purge of something that doesn't exist. */
const NOTHING_PURGED = { unknown: 0 }

const NO_BYTES = new Uint8Array(0)

export class Rfc2217Server {
  readonly #signature: string
  readonly #telnet = new TelnetDecoder()
  readonly #options = new TelnetOptions({
    local: [COM_PORT, BINARY, SUPPRESS_GO_AHEAD, ECHO],
    remote: [COM_PORT, BINARY, SUPPRESS_GO_AHEAD],
  })
  readonly #output = new HeldOutput()
  readonly #modem = new ModemNotifier()
  #lineStateMask = 0
  #lineErrorBits = 0
  /** No device can be asked whether a break is on. */
  #breakOn = false
  /** The last request about the break, while it has no answer. */
  #breakRequest: BreakRequest | undefined

  /** `signature` is what clients are told when they ask what they talk to. */
  constructor({ signature }: { signature: string }) {
    this.#signature = signature
  }

  /**
   * The opening negotiation, to be sent first. WILL ECHO is not a promise: it keeps telnet programs from echoing on their
   * own. There is no DONT ECHO in it, since not echoing is where the peer begins.
   */
  start(): Uint8Array {
    return concat([
      this.#options.enable('remote', COM_PORT, BINARY, SUPPRESS_GO_AHEAD),
      this.#options.enable('local', BINARY, SUPPRESS_GO_AHEAD, ECHO),
    ])
  }

  /** Whether the peer agreed to RFC 2217. pyserial asks for it in both directions and is content with either. */
  get active(): boolean {
    return this.#options.isOn('remote', COM_PORT) || this.#options.isOn('local', COM_PORT)
  }

  /** Whether the peer wants neither data nor commands now. */
  get suspended(): boolean {
    return this.#output.suspended
  }

  /**
   * Gives the chunk's events one at a time and in stream order; the caller may do something slow in between, but must
   * take them all before the next push. Settings that come together make one request, and so do DTR and RTS.
   */
  *push(chunk: Uint8Array): Generator<ServerEvent, void> {
    let open: ConfigureRequest | LinesRequest | undefined
    for (const event of this.#telnet.push(chunk)) {
      const message = comPortMessage(event)
      if (message && isJoinable(message)) {
        const joined = open && joinRequest(open, message)
        if (open && !joined) yield { type: 'request', request: open }
        open = joined ?? requestOf(message)
        continue
      }
      if (open) yield { type: 'request', request: open }
      open = undefined
      if (message) yield* this.#message(message)
      else yield* this.#telnetEvent(event)
    }
    if (open) yield { type: 'request', request: open }
  }

  /**
   * The answer to a request: `inForce` is how things stand after it, whether or not it could be fulfilled. A port without
   * modem lines answers with the lines asked for. Give the bytes to the peer (there are none while it is suspended).
   */
  answer(request: ConfigureRequest, inForce: Readonly<LineSettings>): Uint8Array
  answer(request: LinesRequest, inForce: Readonly<OutputLines>): Uint8Array
  answer(request: BreakRequest, inForce: boolean): Uint8Array
  answer(request: PurgeRequest): Uint8Array
  answer(
    request: ServerRequest,
    inForce?: Readonly<LineSettings> | Readonly<OutputLines> | boolean,
  ): Uint8Array {
    switch (request.type) {
      case 'configure': {
        const settings = inForce as LineSettings
        return this.#pass(...request.asked.map((asked) => settingInForce(asked, settings)))
      }
      case 'set-lines': {
        const { dtr, rts } = inForce as OutputLines
        return this.#pass(
          ...request.asked.map(({ type }) => ({ type, value: type === 'set-dtr' ? dtr : rts }) as const),
        )
      }
      case 'set-break':
        this.#breakOn = inForce as boolean
        if (request === this.#breakRequest) this.#breakRequest = undefined
        return this.#pass(
          ...new Array<Message>(1 + request.queriesBehind).fill({ type: 'set-break', value: this.#breakOn }),
        )
      case 'purge':
        return this.#pass({ type: 'purge', value: request.what })
    }
  }

  /**
   * Bytes of the device, made ready for the peer; without a 0xff in them they are not copied.
   * @throws Rfc2217Error while suspended: stop reading the port at `suspend`, go on at `resume`.
   */
  data(bytes: Uint8Array): Uint8Array {
    if (this.suspended) throw new Rfc2217Error('the peer takes no data now (FLOWCONTROL-SUSPEND)')
    return escapeIac(bytes)
  }

  /**
   * The modem lines as they are now; to be called at `active` and whenever they change. `changes` counts the edges since
   * the last call, for pulses. Gives what has to be sent, if anything: the first report always, then what the peer's mask
   * lets through. What happens while the peer is suspended is told at its resume.
   */
  modemState(lines: Readonly<InputLines>, changes?: Readonly<LineChanges>): Uint8Array | undefined {
    this.#modem.update(lines, changes)
    return this.#modemReport()
  }

  /** Errors on the line since the last call. Gives what has to be sent, if the peer's mask asks for any of it. */
  lineState(errors: Readonly<LineErrors>): Uint8Array | undefined {
    this.#lineErrorBits |= errorBits(errors)
    return this.#lineReport()
  }

  /**
   * Tells the peer to send neither data nor commands (true), or that it may again. Gives nothing to a peer without
   * RFC 2217.
   */
  holdOff(on: boolean): Uint8Array | undefined {
    return this.active ? this.#pass({ type: on ? 'suspend' : 'resume' }) : undefined
  }

  /** Tells the peer of settings that someone else changed. Gives nothing to a peer without RFC 2217. */
  settings(inForce: Readonly<Partial<LineSettings>>): Uint8Array | undefined {
    if (!this.active) return undefined
    const { baudRate, dataBits, parity, stopBits, outputFlow, inputFlow } = inForce
    const messages: SetMessage[] = []
    if (baudRate !== undefined) messages.push({ type: 'set-baud-rate', value: baudRate })
    if (dataBits !== undefined) messages.push({ type: 'set-data-bits', value: dataBits })
    if (parity !== undefined) messages.push({ type: 'set-parity', value: parity })
    if (stopBits !== undefined) messages.push({ type: 'set-stop-bits', value: stopBits })
    if (outputFlow !== undefined) messages.push({ type: 'set-output-flow', value: outputFlow })
    if (inputFlow !== undefined) messages.push({ type: 'set-input-flow', value: inputFlow })
    return messages.length === 0 ? undefined : this.#pass(...messages)
  }

  *#telnetEvent(event: TelnetEvent): Generator<ServerEvent, void> {
    switch (event.type) {
      case 'data':
      case 'malformed':
        yield event
        break
      case 'negotiate': {
        const wasActive = this.active
        const { reply } = this.#options.receive(event.verb, event.option)
        yield* this.#send(this.#output.pass(reply))
        if (!wasActive && this.active) {
          this.#modem.restart()
          yield { type: 'active' }
        }
        break
      }
      case 'command':
        // The others (NOP to keep a connection alive, …) are a matter between telnet programs.
        if (event.code === BRK) yield { type: 'break' }
        // RFC 854 wants a sign of life. Words would be taken for what the device says.
        else if (event.code === AYT) yield* this.#send(this.#output.pass(command(NOP)))
        break
      case 'subnegotiation':
        yield { type: 'malformed', reason: `a subnegotiation of option ${event.option}` }
        break
    }
  }

  *#message(message: Exclude<Message, JoinableMessage> | Malformed): Generator<ServerEvent, void> {
    switch (message.type) {
      case 'signature':
        // An empty signature of our own would be a question, and might go back and forth for ever.
        if (message.text !== '') yield { type: 'signature', text: message.text }
        else if (this.#signature !== '')
          yield* this.#send(this.#pass({ type: 'signature', text: this.#signature }))
        break
      case 'set-break':
        yield* this.#break(message)
        break
      case 'purge':
        if (isKnown(message.value)) yield { type: 'request', request: { type: 'purge', what: message.value } }
        else yield* this.#send(this.#pass({ type: 'purge', value: NOTHING_PURGED }))
        break
      case 'notify-line-state':
        // An error is an event, not a state: there is none to tell afterwards.
        yield* this.#send(this.#pass({ type: 'notify-line-state', value: lineStateOf(0) }))
        break
      case 'notify-modem-state':
        yield* this.#send(
          this.#pass({ type: 'notify-modem-state', value: modemStateOf(this.#modem.levelBits) }),
        )
        break
      case 'set-line-state-mask':
        if (message.value !== 'query') this.#lineStateMask = message.value
        yield* this.#send(this.#pass({ type: 'set-line-state-mask', value: this.#lineStateMask }))
        break
      case 'set-modem-state-mask':
        if (message.value !== 'query') this.#modem.mask = message.value
        yield* this.#send(this.#pass({ type: 'set-modem-state-mask', value: this.#modem.mask }))
        break
      case 'suspend':
        if (this.suspended) break
        this.#output.suspend()
        yield { type: 'suspend' }
        break
      case 'resume':
        if (this.suspended) yield* this.#resume()
        break
      case 'malformed':
        yield message
        break
    }
  }

  *#break({ value }: SetMessage & { type: 'set-break' }): Generator<ServerEvent, void> {
    const open = this.#breakRequest
    if (isKnown(value)) {
      this.#breakRequest = { type: 'set-break', on: value, queriesBehind: 0 }
      yield { type: 'request', request: this.#breakRequest }
    } else if (open === undefined) {
      yield* this.#send(this.#pass({ type: 'set-break', value: this.#breakOn }))
    } else if (open.queriesBehind < MAX_QUERIES_BEHIND) {
      open.queriesBehind++
    } else {
      yield { type: 'malformed', reason: `more than ${MAX_QUERIES_BEHIND} queries behind one request` }
    }
  }

  *#resume(): Generator<ServerEvent, void> {
    const { held, dropped } = this.#output.resume()
    yield* this.#send(concat([...held, this.#modemReport() ?? NO_BYTES, this.#lineReport() ?? NO_BYTES]))
    if (dropped > 0)
      yield { type: 'malformed', reason: `${dropped} answers dropped: too many asked while suspended` }
    yield { type: 'resume' }
  }

  #modemReport(): Uint8Array | undefined {
    if (!this.active || this.suspended) return undefined
    const bits = this.#modem.take()
    return bits === undefined
      ? undefined
      : this.#pass({ type: 'notify-modem-state', value: modemStateOf(bits) })
  }

  #lineReport(): Uint8Array | undefined {
    if (this.suspended) return undefined
    const bits = this.#lineErrorBits & this.#lineStateMask
    this.#lineErrorBits = 0
    if (!this.active || bits === 0) return undefined
    return this.#pass({ type: 'notify-line-state', value: lineStateOf(bits) })
  }

  #pass(...messages: Message[]): Uint8Array {
    return this.#output.pass(
      concat(messages.map((message) => subnegotiation(COM_PORT, encodeMessage(message, 'server')))),
    )
  }

  *#send(bytes: Uint8Array): Generator<ServerEvent, void> {
    if (bytes.length > 0) yield { type: 'send', bytes }
  }
}

/** The event's RFC 2217 message, if it is one; also before the option is agreed, since some clients don't wait. */
function comPortMessage(event: TelnetEvent): Message | Malformed | undefined {
  if (event.type !== 'subnegotiation' || event.option !== COM_PORT) return undefined
  return decodeMessage(event.payload, 'client')
}

function isJoinable(message: Message | Malformed): message is JoinableMessage {
  switch (message.type) {
    case 'set-baud-rate':
    case 'set-data-bits':
    case 'set-parity':
    case 'set-stop-bits':
    case 'set-output-flow':
    case 'set-input-flow':
    case 'set-control':
    case 'set-dtr':
    case 'set-rts':
      return true
    default:
      return false
  }
}

/** What the answer to one message says. */
function settingInForce(asked: SettingMessage, settings: Readonly<LineSettings>): SetMessage {
  switch (asked.type) {
    case 'set-baud-rate':
      return { ...asked, value: baudRateToReport(asked.value, settings.baudRate) }
    case 'set-data-bits':
      return { type: asked.type, value: settings.dataBits }
    case 'set-parity':
      return { type: asked.type, value: settings.parity }
    case 'set-stop-bits':
      return { type: asked.type, value: settings.stopBits }
    case 'set-input-flow':
      return { type: asked.type, value: settings.inputFlow }
    case 'set-output-flow':
    case 'set-control':
      return { type: 'set-output-flow', value: settings.outputFlow }
  }
}

function baudRateToReport(asked: Value<number>, inForce: number): number {
  if (!isKnown(asked)) return inForce
  return Math.abs(asked - inForce) <= asked * BAUD_RATE_TOLERANCE ? asked : inForce
}
