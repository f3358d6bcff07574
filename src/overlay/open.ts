import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Connection } from '@libp2p/interface'
import { FarportError } from '../errors.ts'
import { toDuplex } from './duplex.ts'
import type { EarlyData } from './early-data.ts'
import { type Path, pathOf } from './path.ts'

/** What one protocol may have open on one connection, per direction. */
export const MAX_STREAMS_PER_PROTOCOL = 512
/** How long a connected peer may take to accept a stream. */
const STREAM_TIMEOUT_MS = 5_000
/**
 * A connection that takes longer than this to open a stream may be dead without our knowing (the network under it has
 * changed), so the others are asked, and a new one is dialed, meanwhile.
 */
const HEDGE_MS = 1_000
/** A peer that is slow on so many connections is slow, not gone. */
const MAX_HEDGED = 4
/** Between being turned away and asking once more. */
const ASK_AGAIN_MS = 200

export interface OpenedStream {
  stream: Duplex
  path: Path
}

/** A stream to open. */
export interface Wanted {
  peerId: string
  protocol: string
  addresses: readonly string[]
  /** Said on each stream that is tried: it must do no harm to say it twice. */
  early?: Uint8Array
  signal: AbortSignal
}

export interface OpenerOptions {
  /** This node's. */
  peerId: string
  /** Open connections to a peer, the best first. */
  connectionsTo(peerId: string): Connection[]
  dial(peerId: string, addresses: readonly string[], signal: AbortSignal): Promise<Connection>
  /** @throws FarportError when the peer may not be reached any more */
  requireTrust(peerId: string): void
  /** Told a connection that was slower than another one: it may be dead. */
  onSlow(connection: Connection): void
}

/** Opens streams to peers, on the best connection that answers. */
export class Opener {
  readonly #options: OpenerOptions
  /** Connections on which the peer has opened or accepted a stream: it knows us. */
  readonly #accepted = new WeakSet<Connection>()

  constructor(options: OpenerOptions) {
    this.#options = options
  }

  /** The peer has opened a stream on this connection. */
  accept(connection: Connection): void {
    this.#accepted.add(connection)
  }

  /** @throws FarportError, see Overlay.open */
  async open(wanted: Wanted): Promise<OpenedStream> {
    const [best, ...others] = this.#options.connectionsTo(wanted.peerId)
    if (best === undefined) return await this.#openOnNew(wanted)
    const onBest = this.#openOn(best, wanted)
    const answer = onBest.catch((error: FarportError) => error)
    const mayHedge = others.length + 1 < MAX_HEDGED
    const soon = await (mayHedge ? Promise.race([answer, hedge(wanted.signal)]) : answer)
    if (soon instanceof FarportError) {
      if (best.status === 'open') throw soon
      // Lost: the next one, then.
      return await this.open(wanted)
    }
    if (soon !== undefined) return soon

    const first = await this.#firstOf([
      onBest,
      ...others.map((connection) => this.#openOn(connection, wanted)),
      this.#openOnNew(wanted),
    ])
    if (first.path.id !== best.id) this.#options.onSlow(best)
    return first
  }

  /** The streams that were not the first are closed; of the errors the last says most: it is from a new connection. */
  async #firstOf(attempts: readonly Promise<OpenedStream>[]): Promise<OpenedStream> {
    try {
      const first = await Promise.any(attempts)
      for (const other of attempts)
        other.then(
          (opened) => opened !== first && opened.stream.destroy(),
          () => {},
        )
      return first
    } catch (error) {
      throw (error as AggregateError).errors.at(-1)
    }
  }

  async #openOnNew(wanted: Wanted): Promise<OpenedStream> {
    const { peerId, addresses, signal } = wanted
    for (let turnedAway = false; ; turnedAway = true) {
      const connection = await this.#options.dial(peerId, addresses, signal)
      try {
        return await this.#openOn(connection, wanted)
      } catch (error) {
        // Noise tells us who the peer is before it tells the peer who we are: one that does not want us closes then.
        if (signal.aborted || connection.status === 'open' || this.#accepted.has(connection)) throw error
        if (turnedAway)
          throw new FarportError(
            'ERR_NOT_TRUSTED',
            `${peerId} closed the connection as soon as it learnt who we are: it does not know this machine's key, ${this.#options.peerId}. Add that to its trusted_peers`,
            { cause: error },
          )
      }
      // A peer that is just stopping closes like that, too, but then it is gone.
      await sleep(ASK_AGAIN_MS, undefined, { signal })
      this.#options.requireTrust(peerId)
    }
  }

  async #openOn(connection: Connection, { peerId, protocol, early, signal }: Wanted): Promise<OpenedStream> {
    const timeout = AbortSignal.timeout(STREAM_TIMEOUT_MS)
    try {
      const stream = await connection.newStream(protocol, {
        signal: AbortSignal.any([signal, timeout]),
        runOnLimitedConnection: true,
        maxOutboundStreams: MAX_STREAMS_PER_PROTOCOL,
        ...({ ...(early && { early }) } satisfies EarlyData),
      })
      this.#accepted.add(connection)
      return { stream: toDuplex(stream), path: pathOf(connection) }
    } catch (cause) {
      if ((cause as Error).name === 'UnsupportedProtocolError')
        throw new FarportError(
          'ERR_PROTOCOL',
          `${peerId} does not speak ${protocol}: it shares no ports, or is of another version`,
          { cause },
        )
      const why = timeout.aborted ? 'does not answer' : 'closed the connection'
      throw new FarportError('ERR_PEER_UNREACHABLE', `${peerId} ${why}`, { cause })
    }
  }
}

/** Answers undefined when it is time to try another connection. */
async function hedge(signal: AbortSignal): Promise<undefined> {
  await sleep(HEDGE_MS, undefined, { ref: false, signal }).catch(() => {})
}
