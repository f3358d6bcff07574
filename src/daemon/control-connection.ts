import type { Socket } from 'node:net'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import {
  type Answer,
  formatLine,
  MAX_ANSWER_BYTES,
  MAX_REQUEST_BYTES,
  parseRequest,
  type Request,
  readLines,
} from './control-protocol.ts'

export interface ControlContext {
  /** Tells the client something before the result, in order. Nothing happens once the request is over. */
  emit: (event: object) => void
  /** Aborted when the client hangs up or the daemon closes. */
  signal: AbortSignal
}

/** Answers one kind of request. What it throws is the answer too. A result of undefined arrives as null. */
export type ControlMethod = (params: unknown, context: ControlContext) => Promise<unknown>

/** How many requests of one client are under way at a time; more are refused. */
const MAX_REQUESTS = 16

/** How far a client may fall behind. Two of the longest messages fit, then it is cut: a program that stopped reading. */
const MAX_QUEUED_BYTES = 2 * (MAX_ANSWER_BYTES + 1)

/** As in a refusal to a peer: the sentence, not a book. */
const MAX_SENTENCE = 1024

/** One client of the control socket and its requests. */
export class ControlConnection {
  readonly #socket: Socket
  readonly #methods: ReadonlyMap<string, ControlMethod>
  readonly #log: Logger
  readonly #left = new AbortController()
  readonly #underWay = new Map<number, Promise<void>>()

  constructor(socket: Socket, methods: ReadonlyMap<string, ControlMethod>, log: Logger) {
    this.#socket = socket
    this.#methods = methods
    this.#log = log
  }

  /** Hangs up on a client that wants nothing: connections are few. */
  closeIfIdle(): void {
    if (this.#underWay.size === 0) this.#socket.destroy()
  }

  /** Resolves when the client has hung up, or was cut, and the socket and the last handler have ended. */
  async serve(): Promise<void> {
    try {
      // Never waits for a handler: only a socket that is read tells that the client has gone.
      for await (const line of readLines(
        this.#socket.iterator({ destroyOnReturn: false }),
        MAX_REQUEST_BYTES,
      ))
        this.#start(parseRequest(line))
      this.#socket.destroy()
    } catch (error) {
      if (error instanceof FarportError) {
        this.#log.debug({ err: error }, 'hung up on a control client')
        this.#send({ id: null, error: refusal(error) })
      }
      this.#socket.destroySoon()
    }
    this.#left.abort()
    await Promise.all([...this.#underWay.values(), closed(this.#socket)])
  }

  #start(request: Request): void {
    const { id } = request
    if (this.#underWay.has(id))
      throw new FarportError('ERR_PROTOCOL', `the request with id ${id} is still under way`)
    if (this.#underWay.size >= MAX_REQUESTS) {
      const error = new FarportError('ERR_PROTOCOL', `${MAX_REQUESTS} requests are under way: wait for one`)
      this.#send({ id, error: refusal(error) })
      return
    }
    this.#underWay.set(
      id,
      this.#answer(request).finally(() => this.#underWay.delete(id)),
    )
  }

  async #answer({ id, method, params }: Request): Promise<void> {
    let over = false
    const emit = (event: object) => {
      if (!over) this.#send({ id, event })
    }
    try {
      const handler = this.#methods.get(method)
      if (handler === undefined)
        throw new FarportError(
          'ERR_PROTOCOL',
          'the running farport does not know this request, so it is of another version: restart it',
        )
      const result = await handler(params, { emit, signal: this.#left.signal })
      over = true
      this.#send({ id, result: result ?? null })
    } catch (error) {
      over = true
      if (this.#left.signal.aborted) return
      if (!(error instanceof FarportError))
        this.#log.error({ err: error, method }, 'a control request failed')
      this.#send({ id, error: refusal(error) })
    }
  }

  #send(answer: Answer): void {
    if (!this.#socket.writable) return
    const line = formatLine(answer, MAX_ANSWER_BYTES)
    if (this.#socket.writableLength + line.length <= MAX_QUEUED_BYTES) this.#socket.write(line)
    else {
      this.#log.warn('cut a control client that does not read')
      this.#socket.destroy()
    }
  }
}

async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await new Promise<void>((resolve) => socket.once('close', () => resolve()))
}

/** What is said of an error; of one that is not ours, only that there was one. */
function refusal(error: unknown): { code: string; message: string } {
  if (error instanceof FarportError)
    return { code: error.code, message: error.message.slice(0, MAX_SENTENCE) }
  return { code: 'ERR_INTERNAL', message: 'the running farport failed at this: its log says why' }
}
