import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { answerRound, type PathMeans } from './path-round.ts'
import { PathStream } from './path-stream.ts'

/** How many rounds one peer may make us take part in: so many at once after a quiet time, then one in so long. */
const MAX_ROUNDS_AT_ONCE = 6
const ROUND_EVERY_MS = 10_000
/** Peers that we keep account of; they are trusted ones, so that there are not many. */
const MAX_PEERS = 4_096

export interface PathAnswererOptions {
  /** What a round with this peer needs. */
  means: (peerId: string) => PathMeans
  log: Logger
  /** Milliseconds. */
  clock?: () => number
}

/**
 * One stream: in a round, where only what is due may be said; in one that has been overtaken by a change of our addresses;
 * or after it, when the peer waits for news.
 */
interface Round {
  readonly path: PathStream
  state: 'under way' | 'overtaken' | 'over'
}

/** What one peer has used up, and the newest round with it. */
interface Account {
  rounds: number
  asOfMs: number
  current: Round | undefined
}

/**
 * Takes part in the rounds that peers ask for: `/farport/path/1`, see path-message.ts. Each peer gets one at a time, the
 * newest, and only so many: a round makes us send packets to where the peer wants.
 */
export class PathAnswerer implements Disposable {
  readonly #means: (peerId: string) => PathMeans
  readonly #log: Logger
  readonly #clock: () => number
  readonly #accounts = new Map<string, Account>()
  readonly #closed = new AbortController()

  constructor({ means, log, clock = Date.now }: PathAnswererOptions) {
    this.#means = means
    this.#log = log
    this.#clock = clock
  }

  /** Serves one stream and owns it. Never throws: that no direct way was found is nobody's trouble. */
  async answer(peerId: string, stream: Duplex): Promise<void> {
    using path = new PathStream(stream)
    const account = this.#admit(peerId)
    if (account === undefined) {
      this.#log.warn({ peer: peerId }, 'the peer asks for direct paths too often')
      return
    }
    account.current?.path[Symbol.dispose]()
    const round: Round = { path, state: 'under way' }
    account.current = round
    try {
      await answerRound(path, this.#means(peerId), this.#closed.signal).catch((error: unknown) =>
        this.#failed(peerId, error),
      )
      if (round.state === 'overtaken') path.send({ type: 'changed' })
      round.state = 'over'
      // The peer may keep the stream to hear from us. It has nothing more to say.
      await path.receive(this.#closed.signal)
    } catch (error) {
      this.#failed(peerId, error)
    } finally {
      if (account.current === round) account.current = undefined
    }
  }

  /** Our addresses are not what they were: peers that found no direct way try again. */
  addressesChanged(): void {
    for (const { current } of this.#accounts.values()) {
      switch (current?.state) {
        case undefined:
        case 'overtaken':
          break
        case 'under way':
          current.state = 'overtaken'
          break
        case 'over':
          current.path.send({ type: 'changed' })
          break
      }
    }
  }

  [Symbol.dispose](): void {
    this.#closed.abort(new FarportError('ERR_PEER_UNREACHABLE', 'this node is closing'))
  }

  #admit(peerId: string): Account | undefined {
    const nowMs = this.#clock()
    const account = this.#accounts.get(peerId) ?? { rounds: 0, asOfMs: nowMs, current: undefined }
    const forgotten = Math.max(0, nowMs - account.asOfMs) / ROUND_EVERY_MS
    account.rounds = Math.max(0, account.rounds - forgotten)
    account.asOfMs = nowMs
    if (account.rounds > MAX_ROUNDS_AT_ONCE - 1) return undefined
    if (!this.#accounts.has(peerId) && !this.#makeRoom(nowMs)) return undefined
    account.rounds++
    this.#accounts.set(peerId, account)
    return account
  }

  /** Accounts that have nothing in them any more need not be kept. */
  #makeRoom(nowMs: number): boolean {
    if (this.#accounts.size < MAX_PEERS) return true
    for (const [peerId, { rounds, asOfMs, current }] of this.#accounts)
      if (current === undefined && nowMs - asOfMs >= rounds * ROUND_EVERY_MS) this.#accounts.delete(peerId)
    return this.#accounts.size < MAX_PEERS
  }

  #failed(peerId: string, error: unknown): void {
    if (this.#closed.signal.aborted) return
    const broke = error instanceof FarportError && error.code === 'ERR_PROTOCOL'
    this.#log[broke ? 'warn' : 'debug']({ peer: peerId, err: error }, 'no direct path came of a round')
  }
}
