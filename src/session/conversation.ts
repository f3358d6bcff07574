import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import {
  type ClientRequest,
  type InForce,
  MAX_OUTSTANDING_REQUESTS,
  Rfc2217Client,
} from '../rfc2217/client.ts'
import type { InputLines, LineChanges, LineErrors } from '../serial/port.ts'

/** What comes from the server unasked. */
export interface ConversationHandlers {
  data(bytes: Uint8Array): void
  /** Somebody else changed the port. */
  news(inForce: InForce): void
  lines(lines: InputLines, changes: LineChanges): void
  lineErrors(errors: LineErrors): void
  /** The server takes no data until `resumed`. */
  suspended(): void
  /** The server takes data again. */
  resumed(): void
  /** A question waits for its answer, behind whatever comes from the device. */
  asked(): void
  /** The last one has it. */
  settled(): void
}

/** How long a server that may leave questions unanswered is waited for. */
export interface Patience {
  /** After the answer to a later question: servers go through them in order, or nearly. */
  readonly graceMs: number
  /** Without one. */
  readonly limitMs: number
}

export interface ConversationOptions {
  handlers: ConversationHandlers
  /** For servers that are not farport's, which answers everything. */
  patience?: Patience
  log: Logger
}

interface Waiting extends PromiseWithResolvers<InForce> {
  readonly onAnswer?: (() => void) | undefined
  timer?: NodeJS.Timeout
}

/** `rfc2217`, `telnet` without it, or `bytes`: a server that has not said a word of telnet. */
export type Dialect = 'rfc2217' | 'telnet' | 'bytes'

/** Every known server answers this one, so it shows how far the server has come. */
const HOW_FAR: readonly (keyof InForce)[] = ['baudRate']

const CONFIRMATIONS_AT_ONCE = MAX_OUTSTANDING_REQUESTS / 4

/** An RFC 2217 client on one stream: questions with their answers as promises, and everything else as it comes. */
export class Conversation {
  readonly stream: Duplex
  readonly #client = new Rfc2217Client({ signature: 'farport' })
  readonly #handlers: ConversationHandlers
  readonly #patience: Patience | undefined
  readonly #log: Logger
  readonly #waiting = new Map<ClientRequest, Waiting>()
  readonly #agreed = Promise.withResolvers<boolean>()
  #dialect: Dialect = 'rfc2217'
  #confirms = true

  constructor(stream: Duplex, { handlers, patience, log }: ConversationOptions) {
    this.stream = stream
    this.#handlers = handlers
    this.#patience = patience
    this.#log = log
    stream.on('data', (chunk: Buffer) => this.#receive(chunk))
    stream.write(this.#client.start())
  }

  /** Whether the server can be asked how far it has come. */
  get confirms(): boolean {
    return this.#confirms && this.#dialect === 'rfc2217'
  }

  /** From now on it is not asked that: it did not answer. */
  doNotConfirm(): void {
    this.#confirms = false
  }

  /** Whether data has to wait until `resumed`. */
  get suspended(): boolean {
    return this.#client.suspended
  }

  /** Whether a question waits for its answer. */
  get waits(): boolean {
    return this.#waiting.size > 0
  }

  /**
   * Finds out what the server speaks, and speaks that from then on. Before it agrees nothing is asked of it: a server
   * without telnet would give the question to the device.
   */
  async agree(limitMs: number): Promise<Dialect> {
    const timer = setTimeout(() => this.#agreed.resolve(false), limitMs)
    const active = await this.#agreed.promise
    clearTimeout(timer)
    this.#dialect = active ? 'rfc2217' : this.#client.heardTelnet ? 'telnet' : 'bytes'
    return this.#dialect
  }

  /**
   * What the server says to be in force then; empty from one that does not know RFC 2217. A farport agent is waited for
   * as long as its channel lives. Another server may leave unanswered what it can't do: then, after a bounded wait, what
   * it did answer.
   * @param onAnswer called when the answer is read, before anything behind it is: the promise comes only after
   */
  async ask(request: ClientRequest, onAnswer?: () => void): Promise<InForce> {
    if (this.#dialect !== 'rfc2217') return {}
    const answer = this.#put(request, onAnswer)
    if (answer === undefined) return await this.#later(() => this.ask(request, onAnswer))
    const patience = this.#patience
    if (patience === undefined) return await answer.promise
    answer.timer = setTimeout(() => this.#giveUp(request), patience.limitMs)
    const behind = this.#confirms ? this.#put({ type: 'query', what: HOW_FAR }) : undefined
    void behind?.promise.then(() => {
      if (!this.#waiting.has(request)) return
      clearTimeout(answer.timer)
      answer.timer = setTimeout(() => this.#giveUp(request), patience.graceMs)
    })
    return await answer.promise
  }

  /**
   * Resolves when the server has come as far as this in what we sent: a farport agent when those bytes have left the
   * device, others when they have passed them on to it. At once where it can't be told.
   */
  async confirm(): Promise<void> {
    if (!this.confirms) return
    const answer = this.#put({ type: 'query', what: HOW_FAR })
    if (answer === undefined) return await this.#later(() => this.confirm())
    await answer.promise
  }

  /** Bytes for the device as the server wants them. */
  data(bytes: Uint8Array): Uint8Array {
    return this.#dialect === 'bytes' ? bytes : this.#client.data(bytes)
  }

  /** The stream is gone, or given up: what was asked is answered with nothing. */
  end(): void {
    this.#agreed.resolve(false)
    for (const { resolve, timer, onAnswer } of this.#waiting.values()) {
      clearTimeout(timer)
      onAnswer?.()
      resolve({})
    }
    this.#waiting.clear()
  }

  #put(request: ClientRequest, onAnswer?: () => void): Waiting | undefined {
    // Room for confirmations is kept, so that many requests can't hold up the data between them.
    const most =
      request.type === 'query' ? MAX_OUTSTANDING_REQUESTS : MAX_OUTSTANDING_REQUESTS - CONFIRMATIONS_AT_ONCE
    if (this.#client.outstandingRequests >= most) return undefined
    const answer: Waiting = { ...Promise.withResolvers<InForce>(), onAnswer }
    this.#waiting.set(request, answer)
    this.stream.write(this.#client.request(request))
    this.#handlers.asked()
    return answer
  }

  async #later<T>(again: () => Promise<T>): Promise<T> {
    const [oldest] = this.#waiting.values()
    await oldest?.promise
    return await again()
  }

  #giveUp(request: ClientRequest): void {
    this.#log.debug({ request: request.type }, 'the server left a request unanswered')
    this.#answer(request, this.#client.forget(request))
  }

  #answer(request: ClientRequest, inForce: InForce): void {
    const asked = this.#waiting.get(request)
    this.#waiting.delete(request)
    clearTimeout(asked?.timer)
    asked?.onAnswer?.()
    asked?.resolve(inForce)
    if (this.#waiting.size === 0) this.#handlers.settled()
  }

  #receive(chunk: Buffer): void {
    const handlers = this.#handlers
    if (this.#dialect === 'bytes') {
      handlers.data(chunk)
      return
    }
    for (const event of this.#client.push(chunk)) {
      switch (event.type) {
        case 'data':
          handlers.data(event.bytes)
          break
        case 'send':
          this.stream.write(event.bytes)
          break
        case 'answer':
          this.#answer(event.request, event.inForce)
          break
        case 'settings':
          handlers.news(event.inForce)
          break
        case 'modem-state':
          handlers.lines(event.lines, event.changes)
          break
        case 'line-state':
          handlers.lineErrors(event.errors)
          break
        case 'resume':
          handlers.resumed()
          break
        case 'active':
          this.#agreed.resolve(true)
          break
        case 'refused':
          this.#refused()
          break
        case 'malformed':
          this.#log.debug({ reason: event.reason }, 'malformed telnet')
          break
        case 'suspend':
          handlers.suspended()
          break
        case 'signature':
          break
        default:
          event satisfies never
      }
    }
  }

  #refused(): void {
    this.#agreed.resolve(false)
    if (this.#patience === undefined)
      this.stream.destroy(
        new FarportError('ERR_PROTOCOL', 'the agent does not speak RFC 2217 on the channel'),
      )
  }
}
