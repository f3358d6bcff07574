import { setTimeout as sleep } from 'node:timers/promises'
import type { Connection } from '@libp2p/interface'
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr'
import { FarportError } from '../errors.ts'
import { isRelayed } from './relay-address.ts'

/** A peer is reached within this time or not at all. */
const DIAL_TIMEOUT_MS = 10_000
/** The next address is tried when the one before has failed, or has not answered for so long (RFC 8305, section 8). */
const STAGGER_MS = 250
/** Tried at most, in the order given. */
const MAX_ADDRESSES = 16

/** Opens a connection to one address, up to and including the muxer. */
type DialAddress = (address: Multiaddr, options: { signal: AbortSignal }) => Promise<Connection>

/** One dial, and how many are waiting for it. */
interface Dial {
  readonly connection: Promise<Connection>
  readonly gaveUp: AbortController
  waiters: number
}

/**
 * Reaches peers by their addresses: several at a time, the first that answers wins. The way through a relay starts at
 * once, beside the direct ones. When it wins, those go on: a direct connection that comes a moment later is the better
 * path. libp2p's own dial queue tries addresses one after the other and keeps of their errors only the text.
 */
export class Dialer {
  readonly #dialAddress: DialAddress
  readonly #closed: AbortSignal
  readonly #dials = new Map<string, Dial>()

  /** @param closed aborted when the node is no more */
  constructor(dialAddress: DialAddress, closed: AbortSignal) {
    this.#dialAddress = dialAddress
    this.#closed = closed
  }

  /**
   * A new connection to the peer. Callers that want the same at the same time get the same one; the dial ends early when
   * all of them have given up.
   * @throws FarportError ERR_PEER_UNREACHABLE with what went wrong at each address; the signal's reason
   */
  async dial(peerId: string, addresses: readonly string[], signal: AbortSignal): Promise<Connection> {
    // With or without the PeerID at its end, an address is the same one.
    const key = [peerId, ...addresses.map((address) => address.replace(`/p2p/${peerId}`, ''))].join(' ')
    let dial = this.#dials.get(key)
    if (dial === undefined) {
      const gaveUp = new AbortController()
      const connection = this.#race(peerId, addresses, gaveUp).finally(() => this.#dials.delete(key))
      // Also when all have given up.
      connection.catch(() => {})
      dial = { connection, gaveUp, waiters: 0 }
      this.#dials.set(key, dial)
    }
    dial.waiters++
    try {
      return await unlessAborted(dial.connection, signal)
    } finally {
      dial.waiters--
      if (dial.waiters === 0) dial.gaveUp.abort()
    }
  }

  /**
   * @libp2p/tcp hands the signal to the socket, which it then ends whenever it is aborted, also much later. So each dial
   * gets one of its own that is let go when the dial is done.
   */
  async #attempt(address: Multiaddr, signal: AbortSignal): Promise<Connection> {
    signal.throwIfAborted()
    const own = new AbortController()
    const abort = () => own.abort(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await this.#dialAddress(address, { signal: own.signal })
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  /** `over` is aborted when nobody waits any more. */
  async #race(peerId: string, addresses: readonly string[], over: AbortController): Promise<Connection> {
    const tried = addresses.slice(0, MAX_ADDRESSES)
    const race: Race = {
      peerId,
      failures: [],
      directEnds: new AbortController(),
      relayedEnds: new AbortController(),
    }
    const limit = AbortSignal.any([this.#closed, AbortSignal.timeout(DIAL_TIMEOUT_MS)])
    const unwanted = () => {
      if (race.winner === undefined) race.directEnds.abort()
      race.relayedEnds.abort()
    }
    over.signal.addEventListener('abort', unwanted, { once: true })
    if (over.signal.aborted) unwanted()
    const direct = AbortSignal.any([limit, race.directEnds.signal])
    const relayed = AbortSignal.any([limit, race.relayedEnds.signal])
    try {
      return await Promise.any([
        ...this.#staggered(
          race,
          tried.filter((address) => !isRelayed(address)),
          direct,
        ),
        ...this.#staggered(race, tried.filter(isRelayed), relayed),
      ])
    } catch (cause) {
      const why = race.failures.length === 0 ? 'no address of it is known' : race.failures.join('; ')
      throw new FarportError('ERR_PEER_UNREACHABLE', `${peerId} can't be reached: ${why}`, { cause })
    }
  }

  #staggered(race: Race, addresses: readonly string[], signal: AbortSignal): Promise<Connection>[] {
    let mayStart: Promise<unknown> = Promise.resolve()
    return addresses.map((address) => {
      const attempt = mayStart.then(() => this.#contend(race, address, signal))
      const before = mayStart
      mayStart = Promise.race([
        attempt.catch(() => {}),
        before.then(() => sleep(STAGGER_MS, undefined, { signal })).catch(() => {}),
      ])
      return attempt
    })
  }

  async #contend(race: Race, address: string, signal: AbortSignal): Promise<Connection> {
    try {
      const connection = await this.#attempt(parse(address, race.peerId), signal)
      if (signal.aborted) throw late(connection)
      race.winner ??= connection
      race.relayedEnds.abort()
      if (!isRelayed(address)) race.directEnds.abort()
      return connection
    } catch (error) {
      race.failures.push(`${address}: ${inWords(error, signal)}`)
      throw error
    }
  }
}

interface Race {
  readonly peerId: string
  readonly failures: string[]
  /** Aborted when a direct connection has won, or nobody wants one any more. */
  readonly directEnds: AbortController
  /** Aborted when anything has won. */
  readonly relayedEnds: AbortController
  winner?: Connection
}

/** Rejects with the signal's reason; whatever `promise` does later is somebody else's. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** The PeerID at the end makes Noise refuse any other key before it learns ours. */
function parse(address: string, peerId: string): Multiaddr {
  const parsed = multiaddr(address)
  const last = parsed.getComponents().at(-1)
  if (last?.name !== 'p2p') return parsed.encapsulate(`/p2p/${peerId}`)
  if (last.value !== peerId) throw new Error('it is the address of another peer')
  return parsed
}

function late(connection: Connection): Error {
  const error = new Error('another address was faster')
  connection.abort(error)
  return error
}

/** What relays answer, as the transport puts it. */
const RELAY_WORDS: Record<string, string> = {
  NO_RESERVATION: 'it is not at that relay right now',
  PERMISSION_DENIED: 'that relay does not let us call it',
  CONNECTION_FAILED: 'it did not answer that relay',
  RESOURCE_LIMIT_EXCEEDED: 'that relay is full',
}

const WORDS: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was reset',
  EHOSTUNREACH: 'no route to that host',
  ENETUNREACH: 'no route to that network',
  ETIMEDOUT: 'no answer',
  ENOTFOUND: 'that name does not exist',
  EAI_AGAIN: 'that name can not be looked up right now',
}

/** libp2p passes on the handshake's errors as text only. */
function inWords(error: unknown, signal: AbortSignal): string {
  const { name, message, code } = error as Error & { code?: string }
  const words =
    WORDS[code ?? ''] ?? RELAY_WORDS[/failed to connect via relay with status (\w+)/.exec(message)?.[1] ?? '']
  if (words !== undefined) return words
  if (message.includes('does not match expected remote identity key')) return 'another key answers there'
  if (signal.aborted || name === 'AbortError' || name === 'TimeoutError')
    return `no answer within ${DIAL_TIMEOUT_MS / 1000} s`
  if (name === 'EncryptionFailedError') return 'what answers there did not finish the handshake'
  if (name === 'TransportUnavailableError') return 'not an address of a kind we can dial'
  return message
}
