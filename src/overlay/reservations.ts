import { setTimeout as sleep } from 'node:timers/promises'
import type { Connection } from '@libp2p/interface'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { isAlive } from './alive.ts'
import { ReservationRefused, reserve } from './reserve.ts'

/** A relay that comes up while we wait for it is dialed again soon enough. */
const CONNECT_TIMEOUT_MS = 5_000
/** Once connected we wait longer: to turn back would cost a relay that all its agents return to another handshake. */
const RESERVE_TIMEOUT_MS = 15_000
/** Between attempts: doubled each time, and then up to a half less, so that those who lost a relay together spread. */
const FIRST_DELAY_MS = 500
const MAX_DELAY_MS = 5_000
const REFUSED_DELAY_MS = 30_000
/** Between being turned away and asking once more, before anybody is told. */
const ASK_AGAIN_MS = 200
/** Asked again when half of what was granted is over; clocks may differ, so what was granted is taken to be in between. */
const GRANTED_S = { min: 120, max: 7_200 }
/** After a change of the network a relay has this long to answer on the old connection. */
const ALIVE_TIMEOUT_MS = 3_000

/** How we stand with one relay. */
export interface RelayStatus {
  readonly peerId: string
  /** Where we reach it, with its PeerID. */
  readonly address: string
  /** `connecting` is before the first answer, `waiting` while it is tried again, `refused` when a person has to change something. */
  readonly state: 'connecting' | 'reserved' | 'waiting' | 'refused'
  /** Milliseconds since 1970. */
  readonly since: number
  /** Why it is not reserved: a sentence without its end. */
  readonly reason?: string
}

export interface ReservationsOptions {
  /** The addresses of each relay, by its PeerID. */
  relays: ReadonlyMap<string, readonly string[]>
  /** Open direct connections to a peer, the best first. */
  connectionsTo(peerId: string): Connection[]
  connect(peerId: string, addresses: readonly string[], signal: AbortSignal): Promise<Connection>
  onChange(status: RelayStatus): void
  log: Logger
  /** From 0 up to 1. */
  random?: () => number
}

/** Keeps a connection and a reservation at each relay, for as long as it lives. */
export class Reservations implements AsyncDisposable {
  readonly #relays: readonly KeptRelay[]
  readonly #closing = new AbortController()
  #running: Promise<unknown> = Promise.resolve()

  constructor(options: ReservationsOptions) {
    this.#relays = [...options.relays].map(([peerId, addresses]) => new KeptRelay(peerId, addresses, options))
  }

  start(): void {
    this.#running = Promise.all(this.#relays.map((relay) => relay.run(this.#closing.signal)))
  }

  /** Something about the network has changed: connections may be dead, and what failed may work now. */
  networkChanged(): void {
    for (const relay of this.#relays) relay.hurry()
  }

  statuses(): RelayStatus[] {
    return this.#relays.map((relay) => relay.status)
  }

  /** Where callers find us: every address of each relay that has reserved for us now. */
  addresses(): string[] {
    return this.#relays.flatMap(({ status, addresses }) => (status.state === 'reserved' ? addresses : []))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    await this.#running
  }
}

class KeptRelay {
  readonly addresses: readonly string[]
  readonly #peerId: string
  readonly #options: ReservationsOptions
  #status: RelayStatus
  /** Ends the present wait. */
  #wake: () => void = () => {}
  #failures = 0
  #turnedAway = 0

  constructor(peerId: string, addresses: readonly string[], options: ReservationsOptions) {
    this.#peerId = peerId
    this.addresses = addresses
    this.#options = options
    this.#status = { peerId, address: addresses[0] ?? '', state: 'connecting', since: Date.now() }
  }

  get status(): RelayStatus {
    return this.#status
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#reserveAndHold(signal)
      } catch (error) {
        if (signal.aborted) return
        await this.#waitAfter(error as Error, signal)
      }
    }
  }

  hurry(): void {
    this.#wake()
    for (const connection of this.#options.connectionsTo(this.#peerId))
      void isAlive(connection, ALIVE_TIMEOUT_MS).then((alive) => {
        if (!alive) connection.abort(new Error('it did not survive a change of the network'))
      })
  }

  /** Returns when the reservation is due to be asked for again. @throws Error when it can't be had, or is lost */
  async #reserveAndHold(signal: AbortSignal): Promise<void> {
    const connection = await this.#connection(signal)
    const grantedS = await this.#reserve(connection, signal)
    this.#failures = 0
    this.#turnedAway = 0
    const [address] = this.addresses.filter((known) => connection.remoteAddr.toString() === known)
    this.#become({ state: 'reserved', ...(address !== undefined && { address }) })

    const lost = Promise.withResolvers<never>()
    lost.promise.catch(() => {})
    const onClose = () => lost.reject(new Error('the connection to the relay was lost'))
    connection.addEventListener('close', onClose, { once: true })
    try {
      if (connection.status !== 'open') onClose()
      const inS = Math.min(Math.max(grantedS, GRANTED_S.min), GRANTED_S.max) / 2
      await Promise.race([lost.promise, sleep(inS * 1000, undefined, { signal, ref: false })])
    } finally {
      connection.removeEventListener('close', onClose)
    }
  }

  async #connection(signal: AbortSignal): Promise<Connection> {
    const [present] = this.#options.connectionsTo(this.#peerId)
    if (present !== undefined) return present
    const soon = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_TIMEOUT_MS)])
    try {
      return await this.#options.connect(this.#peerId, this.addresses, soon)
    } catch (cause) {
      if (cause instanceof FarportError) throw cause
      throw new Error(`it does not answer within ${CONNECT_TIMEOUT_MS / 1000} s`, { cause })
    }
  }

  async #reserve(connection: Connection, signal: AbortSignal): Promise<number> {
    const timeout = AbortSignal.timeout(RESERVE_TIMEOUT_MS)
    try {
      return await reserve(connection, AbortSignal.any([signal, timeout]))
    } catch (cause) {
      if (cause instanceof ReservationRefused || signal.aborted) throw cause
      if (timeout.aborted) {
        connection.abort(new Error('the relay does not answer'))
        throw new Error('it does not answer', { cause })
      }
      // It knows who we are when Noise is through, and closes then when it does not want us; one that is just stopping
      // does so once.
      if (connection.status !== 'open' && this.#status.state !== 'reserved') {
        if (this.#turnedAway++ === 0) throw new TurnedAway()
        throw new ReservationRefused(
          "it closes the connection as soon as it learns who we are: it does not know this machine's key",
          { cause },
        )
      }
      throw cause
    }
  }

  async #waitAfter(error: Error, signal: AbortSignal): Promise<void> {
    if (error instanceof TurnedAway) {
      await sleep(ASK_AGAIN_MS, undefined, { signal }).catch(() => {})
      return
    }
    const refused = error instanceof ReservationRefused
    this.#become({ state: refused ? 'refused' : 'waiting', reason: error.message })
    const longest = refused
      ? REFUSED_DELAY_MS
      : Math.min(FIRST_DELAY_MS * 2 ** Math.min(this.#failures++, 10), MAX_DELAY_MS)
    const { random = Math.random } = this.#options
    const wake = new AbortController()
    this.#wake = () => wake.abort()
    await sleep(longest * (1 - random() / 2), undefined, {
      signal: AbortSignal.any([signal, wake.signal]),
    }).catch(() => {})
    this.#wake = () => {}
  }

  #become(next: { state: RelayStatus['state']; address?: string; reason?: string }): void {
    const { state, address = this.#status.address, reason } = next
    if (state === this.#status.state && reason === this.#status.reason && address === this.#status.address)
      return
    const since = state === this.#status.state ? this.#status.since : Date.now()
    const before = this.#status
    this.#status = { peerId: this.#peerId, address, state, since, ...(reason !== undefined && { reason }) }
    this.#tell(before)
    this.#options.onChange(this.#status)
  }

  /** A relay that stays away is told once, not at each attempt. */
  #tell(before: RelayStatus): void {
    const { peerId: relay, address, state, reason } = this.#status
    const log = this.#options.log.child({ relay, address })
    const level = state === before.state ? 'debug' : reason === undefined ? 'info' : 'warn'
    if (state === 'reserved') log[level]('reachable through the relay')
    else log[level]({ reason }, 'not reachable through the relay')
  }
}

/** The relay has closed the connection for the first time, for whatever reason. */
class TurnedAway extends Error {
  override readonly name = 'TurnedAway'
}
