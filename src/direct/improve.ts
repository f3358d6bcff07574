import type { Duplex } from 'node:stream'
import timers from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { askForRound, type PathMeans, type Way } from './path-round.ts'
import { PathStream } from './path-stream.ts'

/** After the first failed round, the second, and so on. */
const BACK_OFF_MS = [10_000, 30_000, 120_000]
const LONGEST_BACK_OFF_MS = 600_000
/** Rounds begin so long after each other at least, whatever happens. */
const MIN_INTERVAL_MS = 2_000
/** Longer than every step of a round together. */
const ROUND_TIMEOUT_MS = 30_000
/** A direct path that was lost sooner did not work: some networks let a connection begin and then drop it. */
const STABLE_MS = 10_000

export interface ImproverOptions extends PathMeans {
  peerId: string
  /** Opens `/farport/path/1` over a path there is. */
  openStream: (signal: AbortSignal) => Promise<Duplex>
  /** Whether there is a direct path to the peer now. */
  hasDirect: () => boolean
  log: Logger
  /** Ends it. */
  signal: AbortSignal
}

export type ImproverState =
  /** A direct path is there. */
  | { readonly state: 'direct' }
  /** A round is under way. */
  | { readonly state: 'trying' }
  /** The last round failed; times in ms since 1970. */
  | { readonly state: 'waiting'; readonly untilMs: number; readonly reason: string }
  | { readonly state: 'ended' }

/** What is left of a failed round. */
interface Failure {
  readonly reason: string
  /** Over it the peer tells that it can be reached elsewhere. Without it we got no stream at all. */
  readonly path?: PathStream
}

const NOT_LASTING: Failure = { reason: 'the direct path did not last' }

type Cause = 'paths' | 'addresses' | 'peer'

/** Looks for a direct path to one peer for as long as there is none. A failure touches nothing but the log. */
export function startImproving(options: ImproverOptions): Improver {
  return new Improver(options)
}

/** Owns no connection: those it makes belong to the node. */
export class Improver {
  readonly #options: ImproverOptions
  readonly #log: Logger
  readonly #done: Promise<void>
  #state: ImproverState = { state: 'trying' }
  /** Called by whatever may matter to who waits. */
  #wake: ((cause: Cause) => void) | undefined
  #round: AbortController | undefined
  /** Whether what the last round was about has changed since it began. */
  #stale = false
  #startedAtMs = Number.NEGATIVE_INFINITY

  /** For startImproving. */
  constructor(options: ImproverOptions) {
    this.#options = options
    this.#log = options.log.child({ peer: options.peerId })
    this.#done = this.#run()
  }

  get state(): ImproverState {
    return this.#state
  }

  /** Resolves when it has ended, after the signal. Never rejects. */
  get done(): Promise<void> {
    return this.#done
  }

  /** A connection with the peer has come or gone. */
  pathsChanged(): void {
    this.#wake?.('paths')
    // The connection that is just being announced may be the round's own, which must not be cut off before it is handed over.
    setImmediate(() => {
      if (this.#options.hasDirect()) this.#round?.abort(new FarportError('ERR_PEER_UNREACHABLE', 'done'))
    })
  }

  /** Our own addresses are not what they were. */
  addressesChanged(): void {
    this.#stale = true
    this.#wake?.('addresses')
  }

  async #run(): Promise<void> {
    const { hasDirect, signal } = this.#options
    let failures = 0
    try {
      for (;;) {
        const direct = hasDirect()
        const failure = await (direct ? this.#whileDirect() : this.#try())
        if (failure !== undefined) failures = (await this.#wait(failures, failure)) ? 0 : failures + 1
        // A round that went well does not count before its path has lasted.
        else if (direct) failures = 0
      }
    } catch (error) {
      if (!signal.aborted) this.#log.error({ err: error }, 'gave up looking for a direct path')
    } finally {
      this.#state = { state: 'ended' }
    }
  }

  /** Resolves when the direct path is gone. */
  async #whileDirect(): Promise<Failure | undefined> {
    const { hasDirect, signal } = this.#options
    const sinceMs = Date.now()
    this.#state = { state: 'direct' }
    while (hasDirect()) await this.#woken(signal)
    return Date.now() - sinceMs < STABLE_MS ? NOT_LASTING : undefined
  }

  /** One round; without a Failure there is a direct path now. */
  async #try(): Promise<Failure | undefined> {
    const { openStream, hasDirect, signal } = this.#options
    this.#state = { state: 'trying' }
    const pauseMs = this.#startedAtMs + MIN_INTERVAL_MS - Date.now()
    if (pauseMs > 0) await timers.setTimeout(pauseMs, undefined, { signal })
    if (hasDirect()) return undefined
    this.#startedAtMs = Date.now()
    this.#stale = false
    this.#round = new AbortController()
    const until = AbortSignal.any([signal, this.#round.signal, AbortSignal.timeout(ROUND_TIMEOUT_MS)])
    let path: PathStream | undefined
    try {
      path = new PathStream(await openStream(until))
      const way: Way = await askForRound(path, this.#options, until)
      path[Symbol.dispose]()
      if (!hasDirect()) return NOT_LASTING
      this.#log.info({ way, ms: Date.now() - this.#startedAtMs }, 'found a direct path')
      return undefined
    } catch (error) {
      if (signal.aborted || hasDirect()) path?.[Symbol.dispose]()
      signal.throwIfAborted()
      // The peer was faster.
      if (hasDirect()) return undefined
      this.#log.debug({ err: error }, 'no direct path')
      return { reason: (error as Error).message, ...(path && { path }) }
    } finally {
      this.#round = undefined
    }
  }

  /** Resolves when it is time for another round, with whether that is because the failure was about something else. */
  async #wait(failures: number, { reason, path }: Failure): Promise<boolean> {
    using _ = path
    const waitMs = BACK_OFF_MS[failures] ?? LONGEST_BACK_OFF_MS
    this.#state = { state: 'waiting', untilMs: Date.now() + waitMs, reason }
    const over = new AbortController()
    const until = AbortSignal.any([this.#options.signal, over.signal])
    try {
      return await Promise.race([
        timers.setTimeout(waitMs, false, { signal: until }),
        this.#changed(path, until),
      ])
    } finally {
      over.abort()
    }
  }

  async #changed(path: PathStream | undefined, signal: AbortSignal): Promise<boolean> {
    let peer = (path === undefined ? 'gone' : 'there') as 'there' | 'changed' | 'gone'
    const hear = (now: typeof peer) => {
      peer = now
      this.#wake?.('peer')
    }
    path?.receive(signal).then(
      (message) => hear(message?.type === 'changed' ? 'changed' : 'gone'),
      () => hear('gone'),
    )
    for (;;) {
      if (this.#stale || peer === 'changed' || this.#options.hasDirect()) return true
      const cause = await this.#woken(signal)
      // The peer, or the way to it, may be another one than before.
      if (peer === 'gone' && cause === 'paths') return false
    }
  }

  /** Resolves at the next thing that may matter. */
  async #woken(signal: AbortSignal): Promise<Cause> {
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<Cause>()
    this.#wake = resolve
    const abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await promise
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }
}
