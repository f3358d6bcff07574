import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { Channel } from '../channel/channel.ts'
import type { DetachReason } from '../channel/framed-carrier.ts'
import { FarportError } from '../errors.ts'
import { HELLO_TIMEOUT_MS, sayHello, type Welcome } from './hello.ts'

export interface KeeperOptions {
  /** The name of the port on the agent. */
  port: string
  /** A fresh stream to the agent, speaking SERIAL_PROTOCOL, over whatever path there is. */
  connect: (signal: AbortSignal) => Promise<Duplex>
  /** How long a channel outlives its last carrier. */
  resumeMs: number
}

/** What a keeper tells. */
export interface KeeperHandlers {
  /** A new channel to the port: the first one has no past, a later one follows one that was lost. */
  opened(channel: Channel, welcome: Welcome): void
  /** The carrier is gone; bytes are kept and another is looked for. */
  down(reason: string): void
  /** The same channel goes on. */
  up(): void
  /** The channel is gone with its bytes; a new one is looked for. */
  lost(error: FarportError, unacknowledgedBytes: number): void
}

const DETACHED: Record<DetachReason, string> = {
  ended: 'the connection was closed',
  failed: 'the connection was lost',
  silent: 'the connection has gone silent',
}

/** First pause between two attempts; it doubles up to the last. */
const FIRST_PAUSE_MS = 50
const LAST_PAUSE_MS = 5_000

/**
 * Keeps a channel to one remote port for as long as it lives: gives it a new carrier when the old one dies, and begins a
 * new channel when the agent no longer has it. It never gives up by itself.
 */
export class ChannelKeeper {
  readonly #options: KeeperOptions
  readonly #handlers: KeeperHandlers
  readonly #stop = new AbortController()
  /** What was told last while there is no carrier: the same reason is not news. */
  #downReason: string | undefined

  private constructor(options: KeeperOptions, handlers: KeeperHandlers) {
    this.#options = options
    this.#handlers = handlers
  }

  /** @throws FarportError what the agent, or the way to it, says to the first attempt */
  static async open(
    options: KeeperOptions,
    handlers: KeeperHandlers,
    signal: AbortSignal,
  ): Promise<ChannelKeeper> {
    const keeper = new ChannelKeeper(options, handlers)
    await keeper.#begin(signal)
    return keeper
  }

  /** Looks for no more carriers; a channel that is being closed keeps the one it has. */
  stop(): void {
    this.#stop.abort(new FarportError('ERR_CHANNEL_LOST', 'the port was closed'))
  }

  async #begin(signal: AbortSignal): Promise<void> {
    const id = randomBytes(16).toString('hex')
    const channel = new Channel({ resumeMs: this.#options.resumeMs })
    channel.on('error', () => {})
    const { stream, welcome } = await this.#carrier(id, channel, true, signal).catch((error: unknown) => {
      channel.destroy()
      throw error
    })
    if (this.#stop.signal.aborted) {
      stream.destroy()
      channel.destroy()
      throw this.#stop.signal.reason
    }
    channel.on('detach', (reason: DetachReason) => {
      if (!this.#stop.signal.aborted) void this.#reattach(id, channel, DETACHED[reason])
    })
    channel.once('close', () => {
      if (!this.#stop.signal.aborted) void this.#replace(channel)
    })
    channel.attach(stream, { peerReceived: welcome.received })
    this.#downReason = undefined
    this.#handlers.opened(channel, welcome)
  }

  /** A stream on which the agent has welcomed us. */
  async #carrier(
    id: string,
    channel: Channel,
    fresh: boolean,
    signal: AbortSignal,
  ): Promise<{ stream: Duplex; welcome: Welcome }> {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(HELLO_TIMEOUT_MS)])
    const stream = await this.#options.connect(bounded)
    const ignore = () => {}
    stream.on('error', ignore)
    try {
      const { port, resumeMs } = this.#options
      const hello = { port, mode: 'use' as const, channel: id, fresh, received: channel.received, resumeMs }
      return { stream, welcome: await sayHello(stream, hello, bounded) }
    } catch (error) {
      stream.destroy()
      throw error
    }
  }

  async #reattach(id: string, channel: Channel, reason: string): Promise<void> {
    this.#down(reason)
    await this.#persist(async () => {
      if (channel.destroyed) return
      try {
        const { stream, welcome } = await this.#carrier(id, channel, false, this.#stop.signal)
        if (channel.destroyed) return void stream.destroy()
        channel.attach(stream, { peerReceived: welcome.received })
        this.#downReason = undefined
        this.#handlers.up()
      } catch (error) {
        if (!isRefusal(error)) throw error
        channel.destroy(error)
      }
    })
  }

  async #replace(channel: Channel): Promise<void> {
    const error = channel.errored
    this.#handlers.lost(
      error instanceof FarportError
        ? error
        : new FarportError('ERR_CHANNEL_LOST', 'the agent closed the port'),
      channel.unacknowledged,
    )
    await this.#persist(() => this.#begin(this.#stop.signal))
  }

  #down(reason: string): void {
    if (reason === this.#downReason) return
    this.#downReason = reason
    this.#handlers.down(reason)
  }

  /** Tries until it works or we are stopped. */
  async #persist(attempt: () => Promise<void>): Promise<void> {
    const signal = this.#stop.signal
    for (let pauseMs = FIRST_PAUSE_MS; !signal.aborted; pauseMs = Math.min(LAST_PAUSE_MS, pauseMs * 2)) {
      try {
        return await attempt()
      } catch (error) {
        if (signal.aborted) return
        this.#down(error instanceof Error ? error.message : String(error))
      }
      // Up to a fifth more, so that a thousand clients of one relay don't come back in step.
      await delay(pauseMs * (1 + Math.random() / 5), undefined, { signal }).catch(() => {})
    }
  }
}

/** Whether the agent has answered, and means it: trying the same channel again will not help. */
function isRefusal(error: unknown): error is FarportError {
  return (
    error instanceof FarportError &&
    ['ERR_CHANNEL_LOST', 'ERR_NOT_GRANTED', 'ERR_NO_SUCH_PORT', 'ERR_PORT_BUSY', 'ERR_UNFIT'].includes(
      error.code,
    )
  )
}
