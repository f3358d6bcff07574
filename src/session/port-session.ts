import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { Channel } from '../channel/channel.ts'
import type { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { type Hello, welcome } from './hello.ts'
import type { Caller, PortEvent } from './port-event.ts'
import type { LineUse } from './shared-line.ts'
import { WATCHER_BEHIND_BYTES } from './watcher.ts'

/** What the bytes of a holder that loses the port get to leave. */
const LAST_BYTES_MS = 500

/**
 * `here`: on a carrier. `away`: without one, and it may come back. `leaving`: the channel is over, and what it brought is not
 * done. `gone`: nothing of it is left.
 */
type State = 'here' | 'away' | 'leaving' | 'gone'

/** Bytes of data, as a `close` tells them. */
interface Passed {
  readonly toDevice: number
  readonly fromDevice: number
  readonly skipped?: number
  readonly ignored?: number
}

/** Serves the peer from now on; resolves when that is over. `hurry` is aborted when somebody waits for the port. */
export type Serve = (session: { channel: Channel; hurry: AbortSignal; log: Logger }) => Promise<Passed>

interface PortSessionOptions {
  readonly port: string
  readonly caller: Caller
  readonly hello: Hello
  /** The session's own: it disposes of it. */
  readonly line: LineUse
  readonly serve: Serve
  /** Called when nothing of the session is left, before its `close` is told. */
  readonly onGone: () => void
  readonly tell: (event: PortEvent) => void
  readonly log: Logger
}

/** One peer on one port. It outlives its carriers: the channel says when it is over. */
export class PortSession {
  readonly caller: Caller
  readonly mode: Hello['mode']
  readonly channelId: string
  readonly #channel: Channel
  readonly #line: LineUse
  readonly #ended: Promise<void>
  readonly #hurry = new AbortController()
  /** Of the newest hello. */
  #attempt = 0
  #gone = false

  constructor(options: PortSessionOptions) {
    const { port, caller, hello, line, tell } = options
    this.caller = caller
    this.mode = hello.mode
    this.channelId = hello.channel
    this.#line = line
    const watches = hello.mode === 'watch'
    this.#channel = new Channel({
      resumeMs: hello.resumeMs,
      ...(watches && { sendBufferBytes: WATCHER_BEHIND_BYTES }),
    })
    const log = options.log.child({ peer: caller.peerId, port, session: randomUUID() })
    this.#ended = this.#run(options, log)
    log.info({ device: line.port.description.path, mode: hello.mode }, 'port opened')
    tell({ event: 'open', ...caller, port, ...(watches && { mode: 'watch' }) })
  }

  get state(): State {
    if (this.#gone) return 'gone'
    if (this.#channel.destroyed) return 'leaving'
    return this.#channel.state === 'detached' ? 'away' : 'here'
  }

  /** Whether the device it is on is there, and not unplugged. */
  get hasDevice(): boolean {
    return this.#line.port.state === 'open'
  }

  /** Undefined while it is not known. */
  get roundTripMs(): number | undefined {
    const { state, roundTripMs } = this.#channel
    return state === 'attached' && roundTripMs > 0 ? roundTripMs : undefined
  }

  /** Whether the hello is about this session. A channel is its opener's, and stays what it was opened for. */
  isFor({ peerId }: Caller, { channel, mode }: Hello): boolean {
    return (
      this.channelId === channel &&
      this.caller.peerId === peerId &&
      this.mode === mode &&
      !this.#channel.destroyed
    )
  }

  /** A peer whose program died comes back with a new channel: it need not wait for its old one to expire. */
  isGhostOf(peerId: string): boolean {
    return this.caller.peerId === peerId && this.state === 'away'
  }

  /** Answers the hello, and puts its stream under the channel. */
  attach(stream: Duplex, { attempt = this.#attempt + 1, moving = false, received }: Hello): void {
    if (attempt <= this.#attempt) {
      // Overtaken on its way here; the client does not wait for an answer to it any more.
      stream.destroy()
      return
    }
    this.#attempt = attempt
    const { description, settings, outputs, lines } = this.#line.port
    welcome(stream, { received: this.#channel.received, description, settings, outputs, lines })
    const counts = { peerReceived: received }
    if (moving) this.#channel.reserve(stream, counts)
    else this.#channel.attach(stream, counts)
  }

  /** Tells the peer why; resolves when nothing of the session is left, which is when its last bytes have left or are late. */
  async end(error: FarportError): Promise<void> {
    this.#channel.destroy(error)
    await this.#ended
  }

  /** Resolves when nothing of a session that is `leaving` is left: somebody waits, so its last bytes get little time. */
  async hurryOut(): Promise<void> {
    const impatient = setTimeout(() => this.#hurry.abort(), LAST_BYTES_MS)
    await this.#ended
    clearTimeout(impatient)
  }

  async #run({ port, caller, line, serve, onGone, tell }: PortSessionOptions, log: Logger): Promise<void> {
    const { mode } = this
    const openedAt = performance.now()
    const onError = (error: Error) => log.warn({ err: error }, 'the device failed')
    if (mode === 'use') line.port.on('error', onError)
    const serving = serve({ channel: this.#channel, hurry: this.#hurry.signal, log })
    line.start()
    const passed: Passed = await serving.catch((error: unknown) => {
      log.info({ err: error }, 'the channel ended with an error')
      return { toDevice: 0, fromDevice: 0 }
    })
    line.port.off('error', onError)
    await line[Symbol.asyncDispose]()
    this.#gone = true
    onGone()
    const durationMs = Math.round(performance.now() - openedAt)
    const reason = this.#channel.errored?.message ?? 'the peer closed it'
    log.info({ ...passed, mode, reason }, 'port closed')
    tell({
      ...{ event: 'close', ...caller, port, ...(mode === 'watch' && { mode }) },
      ...{ ...passed, durationMs, reason },
    })
  }
}
