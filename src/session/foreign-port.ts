import type { Socket } from 'node:net'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { printable } from '../printable.ts'
import type { InForce } from '../rfc2217/client.ts'
import type { PortDescription, PortSource, SerialPort } from '../serial/port.ts'
import { DEFAULT_SETTINGS, type SerialSettings } from '../serial/settings.ts'
import { dialTcp, formatTcpAddress, presenceOf, type TcpAddress, untilItWorks } from '../serial/tcp-dial.ts'
import { confirmedOutlet } from './confirmed-outlet.ts'
import type { Conversation } from './conversation.ts'
import { type Known, Rfc2217Port, settingsOf } from './rfc2217-port.ts'

export interface ForeignOptions {
  /** How long the server may take to say whether it knows RFC 2217, in milliseconds. Default 8 s. */
  agreeMs?: number
  log: Logger
}

/**
 * How long a server may be silent before it is taken for one without telnet. One that serves a single connection lets
 * the next one wait until it is done with the last: pyserial's takes three seconds.
 */
const AGREE_MS = 8_000
/** Below the 3 s that pyserial gives an answer: whoever uses the port through us may be waiting. */
const PATIENCE = { graceMs: 100, limitMs: 2_000 }
/** How long bytes wait for a server that is gone: a machine must not get yesterday's commands. */
const HOLD_MS = 10_000
/** What is kept of the first words of a server, in case they say why it hangs up. */
const MAX_WORDS_BYTES = 200

const EVERYTHING: readonly (keyof InForce)[] = [
  'baudRate',
  'dataBits',
  'parity',
  'stopBits',
  'outputFlow',
  'inputFlow',
  'dtr',
  'rts',
]

/**
 * A port of somebody else's RFC 2217 server (ser2net, hub4com, a terminal server) as a serial port of ours. A server that
 * goes away is a device that is unplugged: the port waits for it, and puts back what was set.
 *
 * A server without RFC 2217 gives bytes only; its port keeps the settings it has, whatever is asked.
 */
export function foreignPort(address: TcpAddress, options: ForeignOptions): PortSource {
  const description: PortDescription = { path: `rfc2217://${formatTcpAddress(address)}`, modemLines: true }
  return {
    description,
    present: presenceOf(address),
    async open({ settings, signal }) {
      const foreign = new ForeignServer(address, description, options)
      return await foreign.open(settings ?? {}, signal)
    },
  }
}

/** One opening of the port: dials its server as often as it takes. */
class ForeignServer {
  readonly #address: TcpAddress
  readonly #description: PortDescription
  readonly #agreeMs: number
  readonly #log: Logger
  readonly #closing = new AbortController()
  readonly #port: Rfc2217Port

  constructor(
    address: TcpAddress,
    description: PortDescription,
    { agreeMs = AGREE_MS, log }: ForeignOptions,
  ) {
    this.#address = address
    this.#description = description
    this.#agreeMs = agreeMs
    this.#log = log.child({ server: formatTcpAddress(address) })
    this.#port = new Rfc2217Port({
      holdMs: HOLD_MS,
      patience: PATIENCE,
      onDropped: (bytes) => this.#log.warn({ bytes }, 'dropped: the serial server did not come back in time'),
      onClosing: () => this.#closing.abort(),
      log: this.#log,
    })
  }

  async open(settings: Partial<SerialSettings>, signal: AbortSignal | undefined): Promise<SerialPort> {
    const closing = this.#closing.signal
    try {
      await this.#reach(signal === undefined ? closing : AbortSignal.any([signal, closing]))
    } catch (error) {
      await this.#port[Symbol.asyncDispose]()
      throw error
    }
    if (Object.keys(settings).length > 0) await this.#port.configure(settings)
    return this.#port
  }

  /** One connection, up to where the port is open on it. */
  async #reach(signal: AbortSignal): Promise<void> {
    const socket = await dialTcp(this.#address, signal)
    const lost = Promise.withResolvers<never>()
    lost.promise.catch(() => {})
    const words = firstWords(socket)
    const conversation = this.#port.converse(socket)
    const onClose = () => {
      conversation.end()
      lost.reject(hungUp(this.#address, words()))
    }
    const onAbort = () => lost.reject(signal.reason)
    socket.once('close', onClose)
    signal.addEventListener('abort', onAbort)
    try {
      const known = await Promise.race([this.#meet(conversation, signal), lost.promise])
      socket.off('close', onClose)
      if (socket.destroyed) throw hungUp(this.#address, words())
      socket.once('close', () => this.#lost())
      this.#port.begin(conversation, confirmedOutlet(conversation), known)
    } catch (error) {
      socket.off('close', onClose).destroy()
      conversation.end()
      throw error
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Agrees on a language and asks how the port stands. */
  async #meet(conversation: Conversation, signal: AbortSignal): Promise<Known> {
    const dialect = await conversation.agree(this.#agreeMs)
    signal.throwIfAborted()
    if (conversation.stream.destroyed) throw hungUp(this.#address, '')
    this.#log.debug({ dialect }, 'met the serial server')
    if (dialect !== 'rfc2217')
      this.#log.warn(
        'the serial server does not know RFC 2217: bytes pass, settings and lines stay as they are',
      )
    const inForce = await conversation.ask({ type: 'query', what: EVERYTHING })
    if (!('baudRate' in inForce)) conversation.doNotConfirm()
    const { dtr = true, rts = true } = inForce
    return {
      description: { ...this.#description, modemLines: 'dtr' in inForce },
      settings: { ...DEFAULT_SETTINGS, ...settingsOf(inForce) },
      outputs: { dtr, rts },
    }
  }

  #lost(): void {
    const { signal } = this.#closing
    this.#port.lose()
    if (signal.aborted) return
    this.#log.warn('the serial server is gone; waiting for it')
    untilItWorks(() => this.#reach(signal), signal).then(
      () => this.#log.info('the serial server is back'),
      () => {},
    )
  }
}

/** What a server says before it is understood, to be told if it hangs up over it. */
function firstWords(socket: Socket): () => string {
  let text = ''
  const keep = (chunk: Buffer) => {
    text = (text + chunk.toString('latin1')).slice(0, MAX_WORDS_BYTES)
    if (text.length === MAX_WORDS_BYTES) socket.off('data', keep)
  }
  socket.on('data', keep)
  return () => {
    socket.off('data', keep)
    return printable(text.replace(/\xff[\xfb-\xfe][\s\S]|[^\x20-\x7e]+/g, ' ').trim())
  }
}

function hungUp(address: TcpAddress, words: string): FarportError {
  const where = formatTcpAddress(address)
  if (/in use|busy/i.test(words))
    return new FarportError('ERR_PORT_BUSY', `${where} hangs up and says: ${words}`)
  return new FarportError(
    'ERR_DEVICE_ABSENT',
    words === ''
      ? `${where} accepts and hangs up: is its device there?`
      : `${where} hangs up and says: ${words}`,
  )
}
