import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import { COM_PORT } from '../rfc2217/messages.ts'
import { type ProbeReport, probeServer } from '../rfc2217/probe.ts'
import type { Heard, Question } from '../rfc2217/probe-connection.ts'
import { dialTcp, formatTcpAddress, type TcpAddress } from '../serial/tcp-dial.ts'
import { TelnetDecoder, type TelnetEvent } from '../telnet/decoder.ts'

export type { ProbeReport } from '../rfc2217/probe.ts'

/** A server that takes one client may need a moment to notice that the last one has gone. */
const REDIALS = 5
const REDIAL_PAUSE_MS = 500
/** So much of an answer is kept; a device that talks without pause is no answer. */
const MAX_HEARD = 1_000

/**
 * Probes the RFC 2217 server at an address.
 * @throws FarportError ERR_PEER_UNREACHABLE when nobody answers there; the signal's reason
 */
export async function probeAddress(address: TcpAddress, signal: AbortSignal): Promise<ProbeReport> {
  let connection = await Connection.open(address, signal)
  let used = false
  try {
    return await probeServer(async (question) => {
      if (question.anew && used) {
        connection[Symbol.dispose]()
        const again = await redial(address, signal)
        if (again === undefined) return { payloads: [], negotiations: [], closed: true, tookMs: 0 }
        connection = again
      }
      used = true
      return await connection.ask(question, signal)
    })
  } finally {
    connection[Symbol.dispose]()
  }
}

async function redial(address: TcpAddress, signal: AbortSignal): Promise<Connection | undefined> {
  for (let i = 0; i < REDIALS; i++) {
    await delay(REDIAL_PAUSE_MS, undefined, { signal })
    try {
      return await Connection.open(address, signal)
    } catch {
      signal.throwIfAborted()
    }
  }
  return undefined
}

class Connection implements Disposable {
  readonly #socket: Socket
  readonly #telnet = new TelnetDecoder()
  #payloads: Uint8Array[] = []
  #negotiations: Heard['negotiations'][number][] = []
  #closed = false
  #changed = () => {}

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      for (const event of this.#telnet.push(chunk)) this.#take(event)
      this.#changed()
    })
    const onClosed = () => {
      this.#closed = true
      this.#changed()
    }
    socket.on('end', onClosed).on('close', onClosed)
  }

  static async open(address: TcpAddress, signal: AbortSignal): Promise<Connection> {
    try {
      return new Connection(await dialTcp(address, signal))
    } catch (cause) {
      signal.throwIfAborted()
      const text = cause instanceof Error ? cause.message : `${formatTcpAddress(address)} can’t be reached`
      throw new FarportError('ERR_PEER_UNREACHABLE', text, { cause })
    }
  }

  /** Gives all that has come since the question before: servers speak first. */
  async ask({ bytes, enough, waitMs }: Question, signal: AbortSignal): Promise<Heard> {
    const startMs = performance.now()
    if (!this.#closed) this.#socket.write(bytes)
    const { promise, resolve } = Promise.withResolvers<void>()
    const heard = (): Heard => ({
      ...{ payloads: this.#payloads, negotiations: this.#negotiations, closed: this.#closed },
      tookMs: performance.now() - startMs,
    })
    const timer = setTimeout(resolve, waitMs)
    this.#changed = () => {
      if (this.#closed || enough(heard())) resolve()
    }
    const stop = () => resolve()
    signal.addEventListener('abort', stop)
    this.#changed()
    await promise
    signal.removeEventListener('abort', stop)
    clearTimeout(timer)
    this.#changed = () => {}
    signal.throwIfAborted()
    const result = heard()
    this.#payloads = []
    this.#negotiations = []
    return result
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }

  #take(event: TelnetEvent): void {
    if (this.#payloads.length + this.#negotiations.length >= MAX_HEARD) return
    if (event.type === 'negotiate') this.#negotiations.push(event)
    else if (event.type === 'subnegotiation' && event.option === COM_PORT) this.#payloads.push(event.payload)
  }
}
