import { BINARY, DO, type Verb, WILL } from '../telnet/bytes.ts'
import { concat, negotiate, subnegotiation } from '../telnet/encoder.ts'
import { COM_PORT } from './messages.ts'

/** What came after a question. */
export interface Heard {
  /** Of subnegotiations of COM-PORT, without telnet's escapes. */
  readonly payloads: readonly Uint8Array[]
  readonly negotiations: readonly { readonly verb: Verb; readonly option: number }[]
  /** The server has closed the connection, or takes no new one. */
  readonly closed: boolean
  readonly tookMs: number
}

export interface Question {
  readonly bytes: Uint8Array
  /** Nothing more is awaited when this holds, or after `waitMs`. */
  readonly enough: (heard: Heard) => boolean
  readonly waitMs: number
  /** On a new connection; the old one is of no use any more. */
  readonly anew: boolean
}

export type Ask = (question: Question) => Promise<Heard>

const OPENING_WAIT_MS = 3_000
const SHORTEST_WAIT_MS = 300
const LONGEST_WAIT_MS = 2_000

export const BAUD_RATE = 1

/** There is nobody left to ask. */
export class ServerGone extends Error {}

/** A connection to the server that is probed, and another one each time one was lost. */
export class ProbeConnection {
  readonly #ask: Ask
  #waitMs = OPENING_WAIT_MS
  #lost = false

  constructor(ask: Ask) {
    this.#ask = ask
  }

  /** Proposes RFC 2217. The server may not agree. */
  async open(): Promise<Heard> {
    return await this.put(
      opening(),
      (h) => agreed(h, COM_PORT) && has(h, [107]) && says(h, WILL, BINARY) && says(h, DO, BINARY),
    )
  }

  /** Finds out how long answers are to be waited for. */
  async measure(): Promise<void> {
    const heard = await this.askBaudRate()
    this.#waitMs = has(heard, [101])
      ? Math.min(LONGEST_WAIT_MS, Math.max(SHORTEST_WAIT_MS, 4 * heard.tookMs + 150))
      : LONGEST_WAIT_MS
  }

  /** @throws ServerGone where the last connection was lost, and no new one is to be had */
  async put(bytes: Uint8Array, enough: (heard: Heard) => boolean): Promise<Heard> {
    if (this.#lost) {
      this.#lost = false
      const opened = await this.#ask({
        ...{ bytes: opening(), anew: true, waitMs: OPENING_WAIT_MS },
        enough: (h) => agreed(h, COM_PORT),
      })
      if (opened.closed) throw new ServerGone()
    }
    const heard = await this.#ask({ bytes, enough, waitMs: this.#waitMs, anew: false })
    if (heard.closed) this.#lost = true
    return heard
  }

  /** The question that every server answers. It may come behind other bytes. */
  async askBaudRate(...before: Uint8Array[]): Promise<Heard> {
    return await this.put(concat([...before, message(BAUD_RATE, ...octets(0))]), (h) => has(h, [101]))
  }

  /** Whether the connection is still good for a question, after what was heard on it. */
  async isAlive(heard: Heard): Promise<boolean> {
    if (!heard.closed && has(await this.askBaudRate(), [101])) return true
    this.lose()
    return false
  }

  /** The connection is of no use any more: the next question goes over another. */
  lose(): void {
    this.#lost = true
  }
}

function opening(): Uint8Array {
  return concat([
    ...[negotiate(WILL, COM_PORT), negotiate(DO, COM_PORT)],
    ...[negotiate(WILL, BINARY), negotiate(DO, BINARY)],
  ])
}

export function message(...payload: number[]): Uint8Array {
  return subnegotiation(COM_PORT, Uint8Array.from(payload))
}

export function octets(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff]
}

export function agreed(heard: Heard, option: number): boolean {
  return says(heard, DO, option) || says(heard, WILL, option)
}

export function says({ negotiations }: Heard, verb: Verb, option: number): boolean {
  return negotiations.some((one) => one.verb === verb && one.option === option)
}

/** Whether a payload begins so. */
export function has({ payloads }: Heard, start: readonly number[]): boolean {
  return payloads.some((payload) => start.every((octet, i) => payload[i] === octet))
}

/** The first payload of this code. */
export function payloadOf({ payloads }: Heard, code: number): Uint8Array | undefined {
  return payloads.find((payload) => payload[0] === code)
}
