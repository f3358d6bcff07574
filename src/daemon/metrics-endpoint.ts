import { isDeepStrictEqual } from 'node:util'
import type { Logger } from '../log.ts'
import type { MetricsSource } from './metrics.ts'
import { listenMetrics, type Page } from './metrics-server.ts'
import type { MetricsStatus } from './status.ts'

/** Where metrics are to be had. */
export interface MetricsAddress {
  readonly host: string
  readonly port: number
}

export interface MetricsEndpointOptions {
  readonly source: MetricsSource
  readonly log: Logger
}

/** Pause before an address that can't be listened on is tried again, the first and the longest. */
const FIRST_RETRY_MS = 1_000
const LAST_RETRY_MS = 30_000

type State =
  | { state: 'off' }
  | { state: 'listening'; at: string; server: AsyncDisposable }
  | { state: 'waiting'; at: string; reason: string; timer: NodeJS.Timeout }

/** Shows metrics where the configuration says, which may change. That it can't be had there ends nothing. */
export class MetricsEndpoint implements AsyncDisposable {
  readonly #options: MetricsEndpointOptions
  #wanted: MetricsAddress | undefined
  #state: State = { state: 'off' }
  /** Made when first asked for, and kept: what watches the event loop can't be undone. */
  #page: Promise<() => Promise<Page>> | undefined
  /** One change after another. */
  #changing: Promise<void> = Promise.resolve()

  constructor(options: MetricsEndpointOptions) {
    this.#options = options
  }

  get status(): MetricsStatus | undefined {
    const state = this.#state
    switch (state.state) {
      case 'off':
        return undefined
      case 'listening':
        return { at: state.at }
      case 'waiting':
        return { at: state.at, reason: state.reason }
      default:
        return state satisfies never
    }
  }

  /** Resolves when it is there, or was tried for once. */
  async become(wanted: MetricsAddress | undefined): Promise<void> {
    if (isDeepStrictEqual(wanted, this.#wanted)) return await this.#changing
    this.#wanted = wanted
    await this.#then(async () => {
      await this.#stop()
      if (wanted !== undefined) await this.#listen(wanted, FIRST_RETRY_MS)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#wanted = undefined
    await this.#then(() => this.#stop())
  }

  #then(change: () => Promise<void>): Promise<void> {
    this.#changing = this.#changing.then(change)
    return this.#changing
  }

  async #stop(): Promise<void> {
    const state = this.#state
    this.#state = { state: 'off' }
    if (state.state === 'listening') await state.server[Symbol.asyncDispose]()
    else if (state.state === 'waiting') clearTimeout(state.timer)
  }

  async #listen(wanted: MetricsAddress, retryMs: number): Promise<void> {
    const { log } = this.#options
    const before = this.#state
    try {
      const page = await this.#makePage()
      const server = await listenMetrics({ ...wanted, page, log })
      const at = urlOf(server)
      this.#state = { state: 'listening', at, server }
      if (isLoopback(server.host)) log.info({ at }, 'metrics for Prometheus')
      else
        log.warn(
          { at },
          'whoever reaches this address can read the metrics, without a password: let only Prometheus through',
        )
    } catch (error) {
      const reason = (error as Error).message
      if (before.state !== 'waiting' || before.reason !== reason)
        log.warn({ at: urlOf(wanted), err: error }, 'could not show metrics; trying again')
      const timer = setTimeout(() => {
        void this.#then(async () => {
          if (wanted === this.#wanted) await this.#listen(wanted, Math.min(2 * retryMs, LAST_RETRY_MS))
        })
      }, retryMs).unref()
      this.#state = { state: 'waiting', at: urlOf(wanted), reason, timer }
    }
  }

  /** Loaded only here: a farport that shows no metrics does not pay for them. */
  #makePage(): Promise<() => Promise<Page>> {
    this.#page ??= import('./metrics.ts').then(({ createMetrics }) => createMetrics(this.#options.source))
    return this.#page
  }
}

function urlOf({ host, port }: MetricsAddress): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}/metrics`
}

/** As the socket says, so no names. */
function isLoopback(address: string): boolean {
  return address === '::1' || /^(?:::ffff:)?127\./.test(address)
}
