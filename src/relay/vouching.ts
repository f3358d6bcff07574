import { randomInt } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { MAX_VOUCHES } from './roster.ts'
import { readAck, readWelcome, type Update, type Welcome, writeHello, writeUpdate } from './vouch-message.ts'

/** How long the relay may take for an answer. */
const ANSWER_MS = 10_000
/** First pause between two attempts; it doubles up to the last. */
const FIRST_PAUSE_MS = 250
const LAST_PAUSE_MS = 8_000
/** A relay that does not want us will hardly want us soon. */
const REFUSED_PAUSE_MS = 30_000

/** An open invite, `until` in milliseconds of performance.now(). */
export interface OpenDoor {
  readonly nameplate?: string
  readonly until: number
}

/** Who may call us now, and which of our invites are open. */
export interface Callers {
  readonly peerIds: readonly string[]
  readonly doors: readonly OpenDoor[]
}

export interface VouchingOptions {
  /** A fresh stream to the relay, speaking RELAY_PROTOCOL. */
  open: (signal: AbortSignal) => Promise<Duplex>
  /** The truth, asked whenever there may be another. */
  callers: () => Callers
  /** Told each time the relay has taken us in, or refuses us. */
  onWelcome?: (welcome: Welcome) => void
  onRefused?: (error: FarportError) => void
  log: Logger
  clock?: () => number
}

/**
 * The agent's half of `/farport/relay/1`: keeps what one relay knows of our callers equal to the truth, over lost
 * connections and restarts of the relay, until it is disposed of.
 */
export class Vouching implements AsyncDisposable {
  readonly #options: VouchingOptions
  readonly #clock: () => number
  readonly #closed = new AbortController()
  readonly #running: Promise<void>
  /** Resolved when the truth may have changed; renewed before it is looked at. */
  #changed = Promise.withResolvers<void>()
  /** Ends the pause before the next attempt. */
  #hurry = new AbortController()
  /** What the relay has acknowledged on the present stream, and who waits for something to be. */
  #settled = false
  readonly #waiting = new Set<() => void>()

  constructor(options: VouchingOptions) {
    this.#options = options
    this.#clock = options.clock ?? (() => performance.now())
    this.#running = this.#run()
  }

  /** Callers or doors may have changed. Resolves when the relay has it, or after `withinMs` without. */
  async refresh(withinMs = 0): Promise<void> {
    this.#settled = false
    this.#changed.resolve()
    if (withinMs === 0 || this.#closed.signal.aborted) return
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#waiting.delete(done)
        resolve()
      }
      const timer = setTimeout(done, withinMs)
      this.#waiting.add(done)
    })
  }

  /** The relay may be there again: tries at once. */
  hurry(): void {
    this.#hurry.abort()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort()
    this.#changed.resolve()
    await this.#running
    for (const done of this.#waiting) done()
  }

  async #run(): Promise<void> {
    const closed = this.#closed.signal
    let failures = 0
    while (!closed.aborted) {
      this.#hurry = new AbortController()
      let refused = false
      try {
        await this.#vouch(() => {
          failures = 0
        })
      } catch (error) {
        if (closed.aborted) return
        refused = error instanceof FarportError && error.code === 'ERR_NOT_GRANTED'
        this.#options.log.debug({ err: error }, 'the relay does not hear whom we vouch for')
        if (refused) this.#options.onRefused?.(error as FarportError)
      }
      const most = refused ? REFUSED_PAUSE_MS : Math.min(LAST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures++)
      // At random, since all agents of a relay that restarts come back at the same time.
      await pause(randomInt(most / 2, most + 1), AbortSignal.any([closed, this.#hurry.signal]))
    }
  }

  /** Over one stream, until that is lost. */
  async #vouch(onWelcome: () => void): Promise<never> {
    const closed = this.#closed.signal
    const limit = () => AbortSignal.any([closed, AbortSignal.timeout(ANSWER_MS)])
    const stream = await this.#options.open(limit())
    const ignore = () => {}
    stream.on('error', ignore)
    try {
      writeHello(stream)
      this.#options.onWelcome?.(await readWelcome(stream, limit()))
      onWelcome()
      let told: Told = { peerIds: new Set(), doors: '' }
      // Also read while nothing is asked, for the relay may refuse us at any time.
      let answer = this.#nextAck(stream)
      for (let seq = 0; ; ) {
        this.#changed = Promise.withResolvers()
        this.#settled = true
        const { update, now } = this.#difference(told, seq)
        if (seq === 0 || update !== undefined) {
          writeUpdate(stream, update ?? { seq, vouch: [], unvouch: [], doors: [] })
          if ((await within(answer, limit())) !== seq)
            throw new FarportError('ERR_PROTOCOL', 'the relay acknowledged something else')
          answer = this.#nextAck(stream)
          seq++
        }
        told = now
        // What has changed meanwhile is told in the next turn, and its waiters wait for that.
        if (this.#settled) for (const done of this.#waiting) done()
        await this.#untilChanged(answer, now.nextEnd)
      }
    } finally {
      stream.destroy()
    }
  }

  #nextAck(stream: Duplex): Promise<number> {
    const answer = readAck(stream, this.#closed.signal)
    answer.catch(() => {})
    return answer
  }

  #difference(told: Told, seq: number): { update: Update | undefined; now: Told & { nextEnd: number } } {
    const at = this.#clock()
    const { peerIds: all, doors: open } = this.#options.callers()
    const peerIds = new Set(all.slice(0, MAX_VOUCHES))
    if (all.length > MAX_VOUCHES)
      this.#options.log.error({ peers: all.length, most: MAX_VOUCHES }, 'the relay can not take all peers')
    const doors = open.filter(({ until }) => until > at)
    const key = JSON.stringify(doors)
    const nextEnd = Math.min(...doors.map(({ until }) => until))
    const now = { peerIds, doors: key, nextEnd }
    const vouch = [...peerIds].filter((peer) => !told.peerIds.has(peer))
    const unvouch = [...told.peerIds].filter((peer) => !peerIds.has(peer))
    if (vouch.length + unvouch.length === 0 && key === told.doors) return { update: undefined, now }
    const said = doors.map(({ nameplate, until }) => ({
      ...(nameplate !== undefined && { nameplate }),
      forMs: Math.ceil(until - at),
    }))
    return { update: { seq, vouch, unvouch, ...(key !== told.doors && { doors: said }) }, now }
  }

  /** Also when a door closes by itself. @throws what the relay says unasked, or that it is gone */
  async #untilChanged(answer: Promise<number>, nextEnd: number): Promise<void> {
    const over = new AbortController()
    const waitMs = Math.max(0, nextEnd - this.#clock())
    try {
      await Promise.race([
        this.#changed.promise,
        answer.then(() => {
          throw new FarportError('ERR_PROTOCOL', 'the relay acknowledged what nobody said')
        }),
        ...(Number.isFinite(waitMs) ? [pause(waitMs, over.signal)] : []),
      ])
      this.#closed.signal.throwIfAborted()
    } finally {
      over.abort()
    }
  }
}

/** What the relay knows. */
interface Told {
  readonly peerIds: ReadonlySet<string>
  readonly doors: string
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { ref: false, signal }).catch(() => {})
}

async function within<T>(promise: Promise<T>, limit: AbortSignal): Promise<T> {
  const late = Promise.withResolvers<never>()
  const abort = () => late.reject(limit.reason)
  limit.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    limit.removeEventListener('abort', abort)
  }
}
