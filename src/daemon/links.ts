import { isDeepStrictEqual } from 'node:util'
import type { Link } from '../config/config.ts'
import type { LocalEndpoint } from '../endpoints/endpoint.ts'
import type { Logger } from '../log.ts'
import type { RemoteEvent, RemoteMeter } from '../session/remote.ts'

/** Pause before a link that could not be made is tried again, the first and the longest. */
const FIRST_RETRY_MS = 1_000
const LAST_RETRY_MS = 30_000

/** Where a link tells how it is. */
export interface LinkWatch {
  report: (event: RemoteEvent) => void
  /** No program uses the port any more. */
  released: () => void
  meter: RemoteMeter
}

export interface LinksOptions {
  /** Makes the local end. */
  start: (link: Link, watch: LinkWatch) => Promise<LocalEndpoint>
  /** What was told of a link, by `peer/port`. */
  report: (port: string, event: RemoteEvent) => void
  /** Whether a local end that can't be had is tried for again and again, as a service does, or is an error. */
  lasting: boolean
  log: Logger
}

export interface LinkStatus {
  /** `peer/port`. */
  readonly port: string
  /** Where local programs find it, or were to. */
  readonly at: string
  /** `idle` while no program uses it. */
  readonly state: 'failed' | 'idle' | 'up' | 'waiting' | 'down'
  /** Why it is `failed` or `down`, or what is awaited. */
  readonly reason?: string
  readonly path?: 'direct' | 'relayed'
  readonly roundTripMs?: number
  /** Bytes of data since the link was made, as all that follows. */
  readonly toDevice: number
  readonly fromDevice: number
  /** Bytes that may not have reached the device, because the connection was lost for too long. */
  readonly dropped: number
  /** How often the connection was lost, and had again, while a program used the port. */
  readonly reconnects: number
}

/** How the far port is, of all that was told of it. */
type Remote = Extract<RemoteEvent, { state: 'up' | 'moved' | 'absent' | 'down' }>

type Local =
  | { state: 'starting' }
  | { state: 'ready'; endpoint: LocalEndpoint }
  | { state: 'failed'; reason: string; timer: NodeJS.Timeout; retryMs: number }
  | { state: 'ended' }

interface Entry {
  readonly link: Link
  local: Local
  remote: Remote | undefined
  /** A program has the port. */
  hadPort: boolean
  readonly counts: { dropped: number; reconnects: number }
  readonly meter: RemoteMeter
}

/** The links of this process, which may change while it runs. */
export class Links implements AsyncDisposable {
  readonly #options: LinksOptions
  #entries: Entry[] = []
  #closed = false

  constructor(options: LinksOptions) {
    this.#options = options
  }

  /** Resolves when every link there is now is over by itself, as standard input and output may be; rejects with why one can't go on. */
  get ended(): Promise<void> {
    const ended = Promise.all(
      this.#entries.map(({ local }) => (local.state === 'ready' ? local.endpoint.ended : undefined)),
    ).then(() => {})
    // Not everybody cares.
    ended.catch(() => {})
    return ended
  }

  /** @throws FarportError when the local end can't be had, unless links are lasting */
  async add(link: Link): Promise<void> {
    const entry: Entry = {
      link,
      local: { state: 'starting' },
      remote: undefined,
      hadPort: false,
      counts: { dropped: 0, reconnects: 0 },
      meter: { toDevice: 0, fromDevice: 0 },
    }
    this.#entries.push(entry)
    await this.#start(entry, FIRST_RETRY_MS)
  }

  /** Makes these the links there are. Those that are as before go on undisturbed. */
  async become(links: readonly Link[]): Promise<{ added: number; removed: number; kept: number }> {
    const kept = this.#entries.filter(({ link }) => links.some((other) => isDeepStrictEqual(link, other)))
    const removed = this.#entries.filter((entry) => !kept.includes(entry))
    const added = links.filter((link) => !kept.some((entry) => isDeepStrictEqual(entry.link, link)))
    this.#entries = kept
    // First, since a new one may want the place of an old one.
    await Promise.all(removed.map(end))
    for (const link of added) await this.add(link)
    return { added: added.length, removed: removed.length, kept: kept.length }
  }

  statuses(): LinkStatus[] {
    return this.#entries.map(statusOf)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    await Promise.all(this.#entries.map(end))
  }

  async #start(entry: Entry, retryMs: number): Promise<void> {
    const { start, report, lasting, log } = this.#options
    const port = nameOf(entry.link)
    entry.local = { state: 'starting' }
    try {
      const endpoint = await start(entry.link, {
        report: (event) => {
          take(entry, event)
          report(port, event)
        },
        released: () => {
          entry.remote = undefined
          entry.hadPort = false
          delete entry.meter.roundTripMs
        },
        meter: entry.meter,
      })
      // Taken away meanwhile.
      if (this.#closed || !this.#entries.includes(entry)) return await endpoint[Symbol.asyncDispose]()
      entry.local = { state: 'ready', endpoint }
    } catch (error) {
      if (!lasting) throw error
      const reason = error instanceof Error ? error.message : String(error)
      log.warn({ link: port, err: error }, 'could not make a link; trying again')
      const timer = setTimeout(() => void this.#start(entry, Math.min(2 * retryMs, LAST_RETRY_MS)), retryMs)
      entry.local = { state: 'failed', reason, timer, retryMs }
    }
  }
}

function take(entry: Entry, event: RemoteEvent): void {
  switch (event.state) {
    case 'up':
      if (entry.hadPort && entry.remote?.state === 'down') entry.counts.reconnects++
      entry.hadPort = true
      entry.remote = event
      break
    case 'moved':
    case 'absent':
    case 'down':
      entry.remote = event
      break
    case 'dropped':
      entry.counts.dropped += event.bytes
      break
    case 'skipped':
      break
    default:
      event satisfies never
  }
}

async function end(entry: Entry): Promise<void> {
  const { local } = entry
  entry.local = { state: 'ended' }
  switch (local.state) {
    case 'ready':
      return await local.endpoint[Symbol.asyncDispose]()
    case 'failed':
      return clearTimeout(local.timer)
    case 'starting':
    case 'ended':
      return
    default:
      local satisfies never
  }
}

function statusOf({ link, local, remote, counts, meter }: Entry): LinkStatus {
  const port = nameOf(link)
  const at = local.state === 'ready' ? local.endpoint.address : placeOf(link)
  const { toDevice, fromDevice, roundTripMs } = meter
  const sums = { toDevice, fromDevice, ...counts }
  if (local.state === 'failed') return { port, at, state: 'failed', reason: local.reason, ...sums }
  switch (remote?.state) {
    case undefined:
      return { port, at, state: 'idle', ...sums }
    case 'up':
    case 'moved':
      return {
        ...{ port, at, state: 'up' },
        ...(remote.path && { path: remote.path }),
        ...(roundTripMs !== undefined && { roundTripMs }),
        ...sums,
      }
    case 'absent':
      return { port, at, state: 'waiting', reason: 'its device is not there', ...sums }
    case 'down':
      return { port, at, state: 'down', reason: remote.reason, ...sums }
    default:
      return remote satisfies never
  }
}

function nameOf({ peer, port }: Link): string {
  return `${peer}/${port}`
}

function placeOf({ endpoint }: Link): string {
  switch (endpoint.type) {
    case 'pty':
      return endpoint.path
    case 'rfc2217':
    case 'raw':
      return `${endpoint.host}:${endpoint.port}`
    case 'serial':
      return endpoint.device
    case 'stdio':
      return '-'
    default:
      return endpoint satisfies never
  }
}
