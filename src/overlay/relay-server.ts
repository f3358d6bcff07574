import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream'
import type { Connection, PeerId, Stream } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { Logger } from '../log.ts'
import { formatPeerId } from '../trust/peer-id.ts'
import {
  decodeHopRequest,
  decodeStopStatus,
  encodeHopStatus,
  encodeStopConnect,
  STATUS,
  STOP_PROTOCOL,
} from './circuit-message.ts'
import { frameCircuitMessage, readCircuitMessage, writeCircuitMessage } from './circuit-stream.ts'
import { toDuplex } from './duplex.ts'
import type { EarlyData } from './early-data.ts'

/** What a reservation is good for before it has to be asked for again. Seconds. */
const RESERVATION_S = 3600
const MAX_RESERVATIONS = 4096
/** Relayed connections at a time: in all, and that one peer has asked for. Each may hold about 1 MiB when it is slow. */
const MAX_CIRCUITS = 4096
const MAX_CIRCUITS_PER_CALLER = 256
/** What one connection may ask for at a time. */
export const MAX_HOP_STREAMS = 512
/** What one agent is offered at a time, on its connection. */
const MAX_STOP_STREAMS = 512
/** The caller has said what it wants, and the agent has taken it or not, within this time. */
const REQUEST_TIMEOUT_MS = 10_000
/** What the multihash of an Ed25519 key begins with; see trust/peer-id. */
const ED25519_MULTIHASH = Buffer.from('002408011220', 'hex')

export interface RelayPolicy {
  /** May this peer hold a reservation? */
  mayReserve(peerId: string): boolean
  /** May `source` call `destination` through us? */
  mayCall(source: string, destination: string): boolean
}

interface Reservation {
  /** Where the peer is called: the connection on which it has asked last. Older ones may be dead. */
  readonly connection: Connection
  readonly expiresAtMs: number
}

/**
 * A circuit relay v2. libp2p's own server joins streams by iterating over them, and so keeps whatever a slow side does not
 * take, without end; it offers calls on an agent's oldest connection, and forgets a reservation only after two hours.
 */
export class RelayServer {
  readonly #policy: RelayPolicy
  readonly #addresses: () => Multiaddr[]
  readonly #log: Logger
  readonly #reservations = new Map<string, Reservation>()
  readonly #circuitsOf = new Map<string, number>()
  #circuits = 0

  /** @param addresses where we can be reached, which those who reserve are told */
  constructor(policy: RelayPolicy, addresses: () => Multiaddr[], log: Logger) {
    this.#policy = policy
    this.#addresses = addresses
    this.#log = log
  }

  /** Serves one stream of the hop protocol. */
  async serve(libp2pStream: Stream, connection: Connection): Promise<void> {
    const stream = toDuplex(libp2pStream)
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS)
    try {
      const request = decodeHopRequest(await readCircuitMessage(stream, signal))
      // Relays are not called through relays.
      if (!connection.direct) refuse(stream, STATUS.PERMISSION_DENIED)
      else if (request.type === 'reserve') this.#reserve(stream, connection)
      else await this.#connect(stream, connection, request.peer, signal)
    } catch (err) {
      this.#log.debug({ err, peer: connection.remotePeer.toString() }, 'a request to the relay failed')
      stream.destroy()
    }
  }

  #reserve(stream: Duplex, connection: Connection): void {
    const peerId = connection.remotePeer.toString()
    const before = this.#reservations.get(peerId)
    const full = before === undefined && this.#reservations.size >= MAX_RESERVATIONS
    if (full || !this.#policy.mayReserve(peerId)) {
      refuse(stream, full ? STATUS.RESERVATION_REFUSED : STATUS.PERMISSION_DENIED)
      return
    }

    const expires = Math.round(Date.now() / 1000) + RESERVATION_S
    const reservation = { connection, expiresAtMs: expires * 1000 }
    this.#reservations.set(peerId, reservation)
    if (before?.connection !== connection)
      connection.addEventListener('close', () => this.#forget(peerId, connection), { once: true })
    // A stock client believes only addresses that name the relay.
    const addresses = this.#addresses().map((address) => address.bytes)
    writeCircuitMessage(stream, encodeHopStatus(STATUS.OK, { expires, addresses }))
    stream.end()
    stream.resume()
    if (before === undefined) this.#log.info({ peer: peerId }, 'reserved')
  }

  #forget(peerId: string, connection: Connection): void {
    if (this.#reservations.get(peerId)?.connection !== connection) return
    this.#reservations.delete(peerId)
    this.#log.info({ peer: peerId }, 'reservation ended with its connection')
  }

  async #connect(
    stream: Duplex,
    connection: Connection,
    multihash: Uint8Array,
    signal: AbortSignal,
  ): Promise<void> {
    const caller = connection.remotePeer
    const destination = parsePeer(multihash)
    if (destination === undefined) return refuse(stream, STATUS.MALFORMED_MESSAGE)
    // Before anything else: who may not call must not learn who is here.
    if (!this.#policy.mayCall(caller.toString(), destination)) return refuse(stream, STATUS.PERMISSION_DENIED)
    const reservation = this.#reservations.get(destination)
    if (reservation === undefined || reservation.expiresAtMs < Date.now())
      return refuse(stream, STATUS.NO_RESERVATION)
    if (!this.#take(caller.toString())) return refuse(stream, STATUS.RESOURCE_LIMIT_EXCEEDED)
    let joined = false
    try {
      const called = await call(reservation.connection, caller, { signal, log: this.#log })
      if (called === undefined) return refuse(stream, STATUS.CONNECTION_FAILED)
      if (stream.destroyed) {
        called.destroy()
        return
      }
      writeCircuitMessage(stream, encodeHopStatus(STATUS.OK))
      joined = true
      join(stream, called, () => this.#giveBack(caller.toString()))
      this.#log.debug({ from: caller.toString(), to: destination }, 'relaying')
    } finally {
      if (!joined) this.#giveBack(caller.toString())
    }
  }

  #take(caller: string): boolean {
    const count = this.#circuitsOf.get(caller) ?? 0
    if (this.#circuits >= MAX_CIRCUITS || count >= MAX_CIRCUITS_PER_CALLER) return false
    this.#circuits++
    this.#circuitsOf.set(caller, count + 1)
    return true
  }

  #giveBack(caller: string): void {
    this.#circuits--
    const count = (this.#circuitsOf.get(caller) ?? 0) - 1
    if (count > 0) this.#circuitsOf.set(caller, count)
    else this.#circuitsOf.delete(caller)
  }
}

/** Offers the caller to a peer; undefined when the peer does not take it. */
async function call(
  connection: Connection,
  caller: PeerId,
  { signal, log }: { signal: AbortSignal; log: Logger },
): Promise<Duplex | undefined> {
  let stream: Duplex | undefined
  try {
    const offer = frameCircuitMessage(encodeStopConnect(caller.toMultihash().bytes))
    const options = {
      signal,
      maxOutboundStreams: MAX_STOP_STREAMS,
      ...({ early: offer } satisfies EarlyData),
    }
    stream = toDuplex(await connection.newStream(STOP_PROTOCOL, options))
    if (decodeStopStatus(await readCircuitMessage(stream, signal)) === STATUS.OK) return stream
  } catch (err) {
    // Gone, silent, or talking nonsense: it can't be called.
    log.debug({ err, peer: connection.remotePeer.toString() }, 'a call was not taken')
  }
  stream?.destroy()
  return undefined
}

/** Both directions with back pressure: what one side does not take stays with the other. */
function join(near: Duplex, far: Duplex, onOver: () => void): void {
  let open = 2
  const over = (error?: Error | null) => {
    if (error) {
      near.destroy()
      far.destroy()
    }
    if (--open === 0) onOver()
  }
  pipeline(near, far, over)
  pipeline(far, near, over)
}

function refuse(stream: Duplex, status: number): void {
  writeCircuitMessage(stream, encodeHopStatus(status))
  stream.end()
  // What else it says is not for anybody; unread it would keep the stream open.
  stream.resume()
}

/** Undefined when it is not the PeerID of an Ed25519 key: no other can have reserved. */
function parsePeer(multihash: Uint8Array): string | undefined {
  const prefix = Buffer.from(multihash.subarray(0, ED25519_MULTIHASH.length))
  const key = multihash.subarray(ED25519_MULTIHASH.length)
  return prefix.equals(ED25519_MULTIHASH) && key.length === 32 ? formatPeerId(key) : undefined
}
