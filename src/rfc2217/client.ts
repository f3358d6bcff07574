/**
 * The client half of RFC 2217: the side that uses a serial port elsewhere. Bytes in, events out; it holds no stream and
 * no timer.
 *
 *     stream.write(client.start())
 *     stream.write(client.request({ type: 'configure', change: { baudRate: 115_200, parity: 'even' } }))
 *     for await (const chunk of stream)
 *       for (const event of client.push(chunk)) …     // data, answer, modem-state, …
 *
 * Servers differ. What is allowed for here, each time for one message and never for the connection:
 * - sredird answers a baud rate with eight octets, and DTR and RTS with the flow control (105 1).
 * - ser2net leaves what it can't do unanswered: see `forget`. Up to 4.3 it answers masks with the states themselves (106, 107).
 * - hub4com always answers flow control with none, and tells levels of the modem lines without deltas.
 * - Some say no to our WILL COM-PORT and yes to DO COM-PORT, some answer questions without ever having agreed.
 * - Any server of a shared port tells what others have set, unasked.
 */
import { BINARY, BRK, ECHO, SUPPRESS_GO_AHEAD } from '../telnet/bytes.ts'
import { TelnetDecoder } from '../telnet/decoder.ts'
import { command, concat, escapeIac, subnegotiation } from '../telnet/encoder.ts'
import { type Side, TelnetOptions } from '../telnet/options.ts'
import {
  type ClientRequest,
  type InForce,
  inForceByOtherReply,
  type Question,
  questions,
  type Subject,
} from './client-request.ts'
import { Rfc2217Error } from './error.ts'
import { HeldOutput } from './held-output.ts'
import type { InputLines, LineChanges, LineErrors } from './line.ts'
import { errorsOf } from './line-state.ts'
import { COM_PORT, decodeMessage, encodeMessage, isKnown, type Message } from './messages.ts'
import { changesBetween, type ModemState } from './modem-state.ts'

export type { ClientRequest, InForce } from './client-request.ts'

export type ClientEvent =
  /** Bytes from the device. */
  | { type: 'data'; bytes: Uint8Array }
  /** Bytes for the peer. */
  | { type: 'send'; bytes: Uint8Array }
  /** The peer knows RFC 2217. */
  | { type: 'active' }
  /** The peer does not know RFC 2217, or not any more: data passes, requests won't be answered. */
  | { type: 'refused' }
  /** All replies to a request are there. `request` is the object that was given to `request()`. */
  | { type: 'answer'; request: ClientRequest; inForce: InForce }
  /** Somebody else changed the port. */
  | { type: 'settings'; inForce: InForce }
  /** `changes` counts edges since the last one: two for a pulse. */
  | { type: 'modem-state'; lines: InputLines; changes: LineChanges }
  /** Errors on the line; each that is told counts as one. */
  | { type: 'line-state'; errors: LineErrors }
  /** The peer takes neither data nor commands until `resume`: stop giving it data. Requests wait in here. */
  | { type: 'suspend' }
  | { type: 'resume' }
  /** What the peer calls itself, as it sent it: not safe to print as it is. */
  | { type: 'signature'; text: string }
  | { type: 'malformed'; reason: string }

/** So many requests may be without an answer at one time. */
export const MAX_OUTSTANDING_REQUESTS = 64

/** A question that has no reply yet. */
interface Step extends Question {
  outstanding: Outstanding
}

interface Outstanding {
  request: ClientRequest
  repliesLeft: number
  inForce: InForce
}

/** The subjects of SET-CONTROL, whose replies some servers mix up. */
const CONTROLS: readonly Subject[] = ['outputFlow', 'inputFlow', 'dtr', 'rts', 'break']

const NOTHING = new Uint8Array(0)

const NO_DELTAS: InputLines = { cts: false, dsr: false, ri: false, dcd: false }

export class Rfc2217Client {
  readonly #signature: string
  readonly #telnet = new TelnetDecoder()
  readonly #options = new TelnetOptions({
    local: [COM_PORT, BINARY, SUPPRESS_GO_AHEAD],
    remote: [COM_PORT, BINARY, SUPPRESS_GO_AHEAD, ECHO],
  })
  readonly #output = new HeldOutput()
  /** What awaits a reply, oldest first: servers keep the order of each kind. */
  #steps: Step[] = []
  /** The flow control last heard of, to tell news from an answer. */
  #flows: Pick<InForce, 'outputFlow' | 'inputFlow'> = {}
  #lines: InputLines | undefined
  #heardTelnet = false
  /** It has sent a message of the option, whatever it said before. */
  #speaksAnyway = false

  /** `signature` is what a server is told that asks whom it serves. */
  constructor({ signature = '' } = {}) {
    this.#signature = signature
  }

  /** The opening negotiation, to be sent first. esp-link takes a stream for telnet only if it begins with IAC WILL. */
  start(): Uint8Array {
    return concat([
      this.#options.enable('local', COM_PORT, BINARY, SUPPRESS_GO_AHEAD),
      this.#options.enable('remote', BINARY, SUPPRESS_GO_AHEAD),
    ])
  }

  /** Whether the peer agreed to RFC 2217, in either direction, or speaks it without a word about it. */
  get active(): boolean {
    return (
      this.#options.isOn('local', COM_PORT) || this.#options.isOn('remote', COM_PORT) || this.#speaksAnyway
    )
  }

  /** Whether the peer has negotiated anything. One that never does has no telnet, and its bytes are as they are. */
  get heardTelnet(): boolean {
    return this.#heardTelnet
  }

  /** Whether the peer wants neither data nor commands now. */
  get suspended(): boolean {
    return this.#output.suspended
  }

  /**
   * Gives the chunk's events one at a time and in stream order; the caller may do something slow in between, but must
   * take them all before the next push.
   */
  *push(chunk: Uint8Array): Generator<ClientEvent, void> {
    for (const event of this.#telnet.push(chunk)) {
      switch (event.type) {
        case 'data':
        case 'malformed':
          yield event
          break
        case 'negotiate': {
          this.#heardTelnet = true
          const wasActive = this.active
          const { reply, change } = this.#options.receive(event.verb, event.option)
          yield* this.#send(this.#output.pass(reply))
          if (change?.option === COM_PORT && change.to === 'off') this.#speaksAnyway = false
          if (this.active !== wasActive) yield { type: this.active ? 'active' : 'refused' }
          else if (!this.active && change?.option === COM_PORT && change.to === 'refused')
            yield* this.#refused(change.side)
          break
        }
        case 'command':
          break
        case 'subnegotiation': {
          if (event.option !== COM_PORT) {
            yield { type: 'malformed', reason: `a subnegotiation of option ${event.option}` }
            break
          }
          const message = decodeMessage(event.payload, 'server')
          if (message.type === 'malformed') {
            yield message
            break
          }
          if (!this.active) {
            this.#speaksAnyway = true
            yield { type: 'active' }
          }
          yield* this.#message(message)
          break
        }
      }
    }
  }

  /**
   * Asks for something; gives the bytes to send. The answer comes as an event, with this very object. Several requests
   * may be outstanding, and need not be answered in their order. A server that is known to speak RFC 2217 may be asked
   * before `active`.
   * @throws Rfc2217Error when MAX_OUTSTANDING_REQUESTS are waiting already, for a value that the protocol can't express,
   * and for a request that asks nothing (it would never be answered).
   */
  request(request: ClientRequest): Uint8Array {
    if (this.outstandingRequests >= MAX_OUTSTANDING_REQUESTS)
      throw new Rfc2217Error(`${MAX_OUTSTANDING_REQUESTS} requests are waiting for their answers`)
    const asked = questions(request)
    if (asked.length === 0) throw new Rfc2217Error(`an empty ${request.type} request`)

    const bytes = encode(...asked.map(({ message }) => message))
    const outstanding = { request, repliesLeft: asked.length, inForce: {} }
    for (const { subject, message } of asked) this.#steps.push({ subject, message, outstanding })
    return this.#output.pass(bytes)
  }

  get outstandingRequests(): number {
    return new Set(this.#steps.map((step) => step.outstanding)).size
  }

  /**
   * Stops waiting for an answer; gives what has come of it. For servers that leave unanswered what they can't do: how long
   * to wait is the caller's to know. A reply that comes later is taken for news.
   */
  forget(request: ClientRequest): InForce {
    const inForce = this.#steps.find((step) => step.outstanding.request === request)?.outstanding.inForce
    this.#steps = this.#steps.filter((step) => step.outstanding.request !== request)
    return inForce ?? {}
  }

  /**
   * Bytes for the device, made ready for the peer; without a 0xff in them they are not copied.
   * @throws Rfc2217Error while suspended: stop at `suspend`, go on at `resume`.
   */
  data(bytes: Uint8Array): Uint8Array {
    if (this.suspended) throw new Rfc2217Error('the peer takes no data now (FLOWCONTROL-SUSPEND)')
    return escapeIac(bytes)
  }

  /** A short break, as long as the server sees fit. Nothing is answered. */
  shortBreak(): Uint8Array {
    return this.#output.pass(command(BRK))
  }

  /** Asks what the server calls itself; not all of them answer. */
  askSignature(): Uint8Array {
    return this.#output.pass(encode({ type: 'signature', text: '' }))
  }

  /** The side that the RFC means for a client is refused: the other one is asked for before we take it for a no. */
  *#refused(side: Side): Generator<ClientEvent, void> {
    const ask = side === 'local' ? this.#options.enable('remote', COM_PORT) : NOTHING
    if (ask.length === 0) yield { type: 'refused' }
    else yield* this.#send(this.#output.pass(ask))
  }

  *#message(message: Message): Generator<ClientEvent, void> {
    switch (message.type) {
      case 'signature':
        // An empty signature of our own would be a question, and might go back and forth for ever.
        if (message.text !== '') yield { type: 'signature', text: message.text }
        else if (this.#signature !== '')
          yield* this.#send(this.#output.pass(encode({ type: 'signature', text: this.#signature })))
        break
      case 'set-baud-rate':
        yield* this.#inForce('baudRate', isKnown(message.value) ? { baudRate: message.value } : {})
        break
      case 'set-data-bits':
        yield* this.#inForce('dataBits', isKnown(message.value) ? { dataBits: message.value } : {})
        break
      case 'set-parity':
        yield* this.#inForce('parity', isKnown(message.value) ? { parity: message.value } : {})
        break
      case 'set-stop-bits':
        yield* this.#inForce('stopBits', isKnown(message.value) ? { stopBits: message.value } : {})
        break
      case 'set-output-flow':
        yield* this.#flow('outputFlow', isKnown(message.value) ? { outputFlow: message.value } : {})
        break
      case 'set-input-flow':
        yield* this.#flow('inputFlow', isKnown(message.value) ? { inputFlow: message.value } : {})
        break
      case 'set-break':
        yield* this.#inForce('break', isKnown(message.value) ? { break: message.value } : {})
        break
      case 'set-dtr':
        yield* this.#inForce('dtr', isKnown(message.value) ? { dtr: message.value } : {})
        break
      case 'set-rts':
        yield* this.#inForce('rts', isKnown(message.value) ? { rts: message.value } : {})
        break
      case 'set-control':
        yield { type: 'malformed', reason: `SET-CONTROL ${message.value.unknown} from a server` }
        break
      case 'notify-modem-state':
        if (message.value !== 'query') yield* this.#modemState(message.value)
        break
      case 'notify-line-state': {
        if (message.value === 'query') break
        const errors = errorsOf(message.value)
        if (Object.values(errors).some((count) => count > 0)) yield { type: 'line-state', errors }
        yield* this.#acknowledged('lineStateMask')
        break
      }
      case 'suspend':
        if (this.suspended) break
        this.#output.suspend()
        yield { type: 'suspend' }
        break
      case 'resume':
        if (this.suspended) yield* this.#resume()
        break
      case 'set-line-state-mask':
        yield* this.#acknowledged('lineStateMask')
        break
      case 'set-modem-state-mask':
        yield* this.#acknowledged('modemStateMask')
        break
      case 'purge':
        yield* this.#acknowledged('purge')
        break
    }
  }

  /** A value in force: the answer to the oldest question about it, and news if there is none. */
  *#inForce(subject: keyof InForce, inForce: InForce): Generator<ClientEvent, void> {
    const step = this.#oldest(subject)
    if (step) yield* this.#answered(step, inForce)
    else if (subject in inForce) yield { type: 'settings', inForce }
  }

  /**
   * A flow control in force. Where it was not asked for and is no news, it stands for a server's answer to another control:
   * sredird answers DTR and RTS like that, though it does set them.
   */
  *#flow(subject: 'outputFlow' | 'inputFlow', inForce: InForce): Generator<ClientEvent, void> {
    const value = inForce[subject]
    const known = this.#flows[subject]
    const isNews = value !== undefined && known !== undefined && value !== known
    this.#flows = { ...this.#flows, ...inForce }

    const other = isNews ? undefined : this.#oldest(...CONTROLS)
    if (this.#oldest(subject) || !other) yield* this.#inForce(subject, inForce)
    else yield* this.#answered(other, inForceByOtherReply(other.message, value))
  }

  /**
   * The modem lines. While a mask is on its way this is also its reply, since ser2net up to 4.3 sends none but this one;
   * and what it repeats of the deltas is old then, and of the levels only what the mask shows.
   */
  *#modemState(state: ModemState): Generator<ClientEvent, void> {
    const mask = this.#oldest('modemStateMask')
    if (mask?.message.type !== 'set-modem-state-mask' || mask.message.value !== 0) {
      const changes = changesBetween(this.#lines, mask ? { ...state, deltas: NO_DELTAS } : state)
      this.#lines = state.lines
      yield { type: 'modem-state', lines: state.lines, changes }
    }
    if (mask) yield* this.#answered(mask, {})
  }

  /** The reply to something that has no value to keep; without a question it means nothing. */
  *#acknowledged(subject: Subject): Generator<ClientEvent, void> {
    const step = this.#oldest(subject)
    if (step) yield* this.#answered(step, {})
  }

  #oldest(...subjects: readonly Subject[]): Step | undefined {
    return this.#steps.find((step) => subjects.includes(step.subject))
  }

  *#answered(step: Step, inForce: InForce): Generator<ClientEvent, void> {
    this.#steps.splice(this.#steps.indexOf(step), 1)
    const { outstanding } = step
    Object.assign(outstanding.inForce, inForce)
    outstanding.repliesLeft--
    if (outstanding.repliesLeft === 0)
      yield { type: 'answer', request: outstanding.request, inForce: outstanding.inForce }
  }

  *#resume(): Generator<ClientEvent, void> {
    const { held, dropped } = this.#output.resume()
    yield* this.#send(concat(held))
    if (dropped > 0)
      yield { type: 'malformed', reason: `${dropped} messages dropped: suspended for too much` }
    yield { type: 'resume' }
  }

  *#send(bytes: Uint8Array): Generator<ClientEvent, void> {
    if (bytes.length > 0) yield { type: 'send', bytes }
  }
}

function encode(...messages: Message[]): Uint8Array {
  return concat(messages.map((message) => subnegotiation(COM_PORT, encodeMessage(message, 'client'))))
}
