import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { Channel } from '../channel/channel.ts'
import type { DetachReason } from '../channel/framed-carrier.ts'
import { FarportError } from '../errors.ts'
import { HELLO_TIMEOUT_MS, type Hello, sayHello, type Welcome } from './hello.ts'

/** The connection a stream runs over. */
export interface CarrierPath {
  /** The same for all streams of one connection, and for no other's. */
  readonly id: string
  readonly kind: 'direct' | 'relayed'
}

interface Carrier {
  readonly stream: Duplex
  readonly path?: CarrierPath
}

export interface KeeperOptions {
  /** The name of the port on the agent. */
  port: string
  /** A fresh stream to the agent, speaking SERIAL_PROTOCOL, over the best path there is. */
  connect: (signal: AbortSignal) => Promise<Carrier>
  /** Asks to be told of each path that has become the best one; the answer ends that. */
  onBestPath?: (listener: (path: CarrierPath) => void) => () => void
  /** Told of a path on which the agent is not heard any more, before the next stream is asked for. */
  suspect?: (path: CarrierPath) => void
  /** How long a channel outlives its last carrier. */
  resumeMs: number
  /** To hold the port or only to watch it; default `use`. */
  mode?: 'use' | 'watch'
  /** Take the port from whoever holds it. Done once: a port that is lost again is only waited for. */
  steal?: boolean
  /** Of what the device sent before, a watcher wants so many bytes at most; default all that the agent keeps. */
  replayBytes?: number
  /** Whether the agent may run the port's reset sequence when it sees us begin one. Default true. */
  reset?: boolean
  /** Told when another has taken the port over. It is asked for again until `stop`. */
  onTaken?: (error: FarportError) => void
  /** Milliseconds, never going back; default `performance.now`. */
  clock?: () => number
}

/** A carrier on which the agent has welcomed us. */
export interface Welcomed extends Carrier {
  readonly welcome: Welcome
  /** What the hello took, there and back. */
  readonly roundTripMs: number
}

/** What a keeper tells. */
export interface KeeperHandlers {
  /** A new channel to the port: the first one has no past, a later one follows one that was lost. */
  opened(channel: Channel, carrier: Welcomed): void
  /** The carrier is gone; bytes are kept and another is looked for. */
  down(reason: string): void
  /** The same channel goes on. */
  up(carrier: Welcomed): void
  /** The channel has gone over to a better path while the other one still worked. */
  moved(carrier: Welcomed): void
  /** It could not, this time, and goes on as it was. */
  stayed(error: unknown): void
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
/** Shorter while there are bytes to save: the resume time is running. */
const LAST_RESUME_PAUSE_MS = 2_000
/** An agent that has the channel answers within a round trip; so a path that is dead is not waited for long, at first. */
const FIRST_ANSWER_MS = 1_500
/** A stream, and an answer on it. */
const FIRST_CARRIER_MS = 3 * HELLO_TIMEOUT_MS
/** How often a move to one path is tried. */
const MOVE_TRIES = 5

/** A channel, and what it takes to give it another carrier. */
interface Kept {
  readonly id: string
  readonly channel: Channel
  /** Hellos said for it so far. */
  hellos: number
  path: CarrierPath | undefined
  /** Whether a carrier is being looked for. */
  mending: boolean
}

/**
 * Keeps a channel to one remote port for as long as it lives: gives it a new carrier when the old one dies or a better
 * path is there, and begins a new channel when the agent no longer has it. It never gives up by itself.
 */
export class ChannelKeeper {
  readonly #options: KeeperOptions
  readonly #handlers: KeeperHandlers
  readonly #stop = new AbortController()
  /** Ends the pause before the next attempt. */
  #hurry = new AbortController()
  #unsubscribe = () => {}
  #kept: Kept | undefined
  /** The port has been ours. */
  #hadPort = false
  /** The best path, if it became that after the last stream was asked for. */
  #better: CarrierPath | undefined
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
    keeper.#unsubscribe = options.onBestPath?.((path) => keeper.#onBestPath(path)) ?? (() => {})
    try {
      await keeper.#begin(signal)
    } catch (error) {
      keeper.stop()
      throw error
    }
    return keeper
  }

  /** Looks for no more carriers; a channel that is being closed keeps the one it has. */
  stop(): void {
    this.#unsubscribe()
    this.#stop.abort(new FarportError('ERR_CHANNEL_LOST', 'the port was closed'))
  }

  #onBestPath(path: CarrierPath): void {
    this.#better = path
    this.#endPause()
    if (this.#kept !== undefined) void this.#mend(this.#kept)
  }

  async #begin(signal: AbortSignal): Promise<void> {
    const { resumeMs, clock } = this.#options
    // The first carrier may take longer than bytes are kept for the next one.
    const channel = new Channel({ resumeMs: FIRST_CARRIER_MS, ...(clock && { clock }) })
    channel.on('error', () => {})
    const id = randomBytes(16).toString('hex')
    const kept: Kept = { id, channel, hellos: 0, path: undefined, mending: false }
    let carrier: Welcomed
    try {
      carrier = await this.#sayHello(kept, await this.#connect(signal), HELLO_TIMEOUT_MS, signal)
    } catch (error) {
      channel.destroy()
      throw error
    }
    if (this.#stop.signal.aborted) {
      carrier.stream.destroy()
      channel.destroy()
      throw this.#stop.signal.reason
    }
    channel.on('detach', (reason: DetachReason) => this.#onDetach(kept, reason))
    channel.once('close', () => {
      if (!this.#stop.signal.aborted) void this.#replace(channel)
    })
    this.#kept = kept
    this.#hadPort = true
    this.#attach(kept, carrier)
    channel.resumeMs = resumeMs
    this.#handlers.opened(channel, carrier)
    void this.#mend(kept)
  }

  #onDetach(kept: Kept, reason: DetachReason): void {
    if (this.#stop.signal.aborted) return
    const { path } = kept
    kept.path = undefined
    if (reason === 'silent' && path !== undefined) this.#options.suspect?.(path)
    this.#down(DETACHED[reason])
    this.#endPause()
    void this.#mend(kept)
  }

  #connect(signal: AbortSignal): Promise<Carrier> {
    // From here on it is the overlay's to know which path is best.
    this.#better = undefined
    return this.#options.connect(AbortSignal.any([signal, AbortSignal.timeout(HELLO_TIMEOUT_MS)]))
  }

  async #sayHello(
    kept: Kept,
    { stream, path }: Carrier,
    answerMs: number,
    signal: AbortSignal,
  ): Promise<Welcomed> {
    const { channel } = kept
    const late = AbortSignal.timeout(answerMs)
    const ignore = () => {}
    stream.on('error', ignore)
    try {
      const hello = {
        port: this.#options.port,
        ...this.#wish(),
        channel: kept.id,
        fresh: kept.hellos === 0,
        attempt: ++kept.hellos,
        moving: channel.state === 'attached',
        received: channel.received,
        resumeMs: this.#options.resumeMs,
      }
      const saidAt = performance.now()
      const welcome = await sayHello(stream, hello, AbortSignal.any([signal, late]))
      return { stream, ...(path && { path }), welcome, roundTripMs: performance.now() - saidAt }
    } catch (error) {
      stream.destroy()
      if (late.aborted && path !== undefined) this.#options.suspect?.(path)
      throw error
    }
  }

  /** Only what is wanted at first is taken from others, and only then is there nothing that a replay would repeat. */
  #wish(): Pick<Hello, 'mode' | 'steal' | 'replay' | 'reset'> {
    const { mode = 'use', steal = false, replayBytes, reset = true } = this.#options
    if (mode === 'watch') {
      const replay = this.#hadPort ? 0 : replayBytes
      return { mode, ...(replay !== undefined && { replay }) }
    }
    return { mode, ...(steal && !this.#hadPort && { steal }), ...(!reset && { reset }) }
  }

  #attach(kept: Kept, { stream, path, welcome }: Welcomed): void {
    kept.path = path
    this.#downReason = undefined
    kept.channel.attach(stream, { peerReceived: welcome.received })
  }

  /** Looks for a carrier as long as the channel lacks one, or may have a better one; never two at a time. */
  async #mend(kept: Kept): Promise<void> {
    if (kept.mending) return
    kept.mending = true
    const signal = this.#stop.signal
    const { channel } = kept
    let failures = 0
    while (!signal.aborted && !channel.destroyed) {
      const moving = channel.state === 'attached'
      if (moving && (this.#better === undefined || this.#better.id === kept.path?.id)) break
      const better = this.#better
      try {
        await this.#reattach(kept, failures)
        failures = 0
      } catch (error) {
        if (signal.aborted || channel.destroyed) break
        failures++
        if (channel.state === 'attached') {
          this.#handlers.stayed(error)
          if (failures < MOVE_TRIES && !isRefusal(error)) this.#better ??= better
        } else if (isRefusal(error)) channel.destroy(error)
        else this.#down(error instanceof Error ? error.message : String(error))
        // To have moved in vain is no reason to wait once the carrier in use is lost too.
        const lost = () => channel.state === 'detached' && moving
        if (!lost()) await this.#pause(failures, LAST_RESUME_PAUSE_MS)
        if (lost()) failures = 0
      }
    }
    kept.mending = false
  }

  async #reattach(kept: Kept, failures: number): Promise<void> {
    const { channel } = kept
    const signal = this.#stop.signal
    const found = await this.#connect(signal)
    if (channel.state === 'attached' && found.path !== undefined && found.path.id === kept.path?.id) {
      found.stream.on('error', () => {}).destroy()
      return
    }
    // A path that takes longer to answer is not a better one.
    const longestMs = channel.state === 'attached' ? FIRST_ANSWER_MS : HELLO_TIMEOUT_MS
    const answerMs = Math.min(longestMs, FIRST_ANSWER_MS * 2 ** failures)
    const carrier = await this.#sayHello(kept, found, answerMs, signal)
    if (channel.destroyed) {
      carrier.stream.destroy()
      return
    }
    const moves = channel.state === 'attached'
    this.#attach(kept, carrier)
    if (moves) this.#handlers.moved(carrier)
    else this.#handlers.up(carrier)
  }

  async #replace(channel: Channel): Promise<void> {
    this.#kept = undefined
    const error = channel.errored
    this.#handlers.lost(
      error instanceof FarportError
        ? error
        : new FarportError('ERR_CHANNEL_LOST', 'the agent closed the port'),
      channel.unacknowledged,
    )
    if (error instanceof FarportError && error.code === 'ERR_PORT_BUSY') this.#options.onTaken?.(error)
    const signal = this.#stop.signal
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        return await this.#begin(signal)
      } catch (error) {
        if (signal.aborted) return
        this.#down(error instanceof Error ? error.message : String(error))
      }
      await this.#pause(failures, LAST_PAUSE_MS)
    }
  }

  #down(reason: string): void {
    if (reason === this.#downReason) return
    this.#downReason = reason
    this.#handlers.down(reason)
  }

  #endPause(): void {
    this.#hurry.abort()
    this.#hurry = new AbortController()
  }

  /** Longer after each failure; ends early when there is a path to try, or nothing to try for. */
  #pause(failures: number, longestMs: number): Promise<void> {
    // Up to a fifth more, so that a thousand clients of one relay don't come back in step.
    const ms = Math.min(longestMs, FIRST_PAUSE_MS * 2 ** (failures - 1)) * (1 + Math.random() / 5)
    const early = AbortSignal.any([this.#stop.signal, this.#hurry.signal])
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        early.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      early.addEventListener('abort', done)
      if (early.aborted) done()
    })
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
