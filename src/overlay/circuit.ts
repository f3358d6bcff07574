import { setTimeout as sleep } from 'node:timers/promises'
import { type CircuitRelayTransportComponents, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import {
  type Connection,
  isStartable,
  type Startable,
  serviceCapabilities,
  type Transport,
  transportSymbol,
} from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import { splitRelayed } from './relay-address.ts'

/** Callers that one relay may hand us at a time, on one connection. */
const MAX_STOP_STREAMS = 512
/** A relay that takes longer than this to put us through may be gone without our knowing: we connect to it anew. */
const HEDGE_MS = 1_500

/** What the transport needs of the node. */
export interface CircuitNode {
  /** Open direct connections to a peer, the best first. */
  connectionsTo(peerId: string): Connection[]
  /** Connects to a relay, also when there is a connection already. */
  dialRelay(peerId: string, address: string, signal: AbortSignal): Promise<Connection>
  /** Whether we asked this relay to hand us callers. */
  takesCallsFrom(relayId: string): boolean
}

/**
 * libp2p's transport over relays, handed a smaller libp2p than it expects:
 * - Only relays of ours may hand us callers. By itself it would ask any peer that does so for a reservation.
 * - It dials with the connection that we have chosen, and never fills the peer store, whose tags make libp2p redial.
 * - It never listens. The reservations are `reservations.ts`'s: js-libp2p's are gone for good with the first connection
 *   (https://github.com/libp2p/js-libp2p/issues/3601).
 * - It does without identify, which only its search for public relays needs, and which tells strangers about us.
 */
export function circuit(node: CircuitNode): (components: CircuitRelayTransportComponents) => Transport {
  return (components) => {
    const { peerId, upgrader, addressManager, connectionGater, logger, events, registrar } = components
    const inner = circuitRelayTransport({
      maxInboundStopStreams: MAX_STOP_STREAMS,
      maxOutboundStopStreams: MAX_STOP_STREAMS,
    })({
      peerId,
      upgrader,
      addressManager,
      connectionGater,
      logger,
      events,
      registrar: {
        handle: (protocol: string, serve: Parameters<typeof registrar.handle>[1], options: object) =>
          registrar.handle(
            protocol,
            (stream, connection) => {
              if (connection.direct && node.takesCallsFrom(connection.remotePeer.toString()))
                return serve(stream, connection)
              stream.abort(new Error('not a relay of ours'))
            },
            options,
          ),
        unhandle: (protocol: string) => registrar.unhandle(protocol),
        register: async () => 'nobody is looked for',
        unregister: () => {},
      },
      connectionManager: {
        getConnections: (relay: { toString(): string }) => node.connectionsTo(relay.toString()),
      },
      transportManager: { listen: async () => {} },
      peerStore: { all: async () => [], merge: async () => {} },
    } as unknown as CircuitRelayTransportComponents)
    return new Circuit(inner, node)
  }
}

class Circuit implements Transport, Startable {
  readonly [Symbol.toStringTag] = 'farport-circuit'
  readonly [transportSymbol] = true as const
  readonly [serviceCapabilities] = ['@libp2p/transport']
  readonly #inner: Transport
  readonly #node: CircuitNode

  constructor(inner: Transport, node: CircuitNode) {
    this.#inner = inner
    this.#node = node
  }

  async start(): Promise<void> {
    if (isStartable(this.#inner)) await this.#inner.start()
  }

  async stop(): Promise<void> {
    if (isStartable(this.#inner)) await this.#inner.stop()
  }

  async dial(address: Multiaddr, options: Parameters<Transport['dial']>[1]): Promise<Connection> {
    const { relayId, relayAddress } = splitRelayed(address.toString())
    const signal = options.signal ?? AbortSignal.timeout(HEDGE_MS * 4)
    const [present] = this.#node.connectionsTo(relayId)
    if (present === undefined) {
      await this.#node.dialRelay(relayId, relayAddress, signal)
      return await this.#inner.dial(address, options)
    }
    const onPresent = this.#inner.dial(address, options)
    const answer = onPresent.then(
      () => true,
      () => present.status === 'open',
    )
    const soon = await Promise.race([answer, sleep(HEDGE_MS, false, { ref: false })])
    if (soon) return await onPresent
    const onNew = this.#node
      .dialRelay(relayId, relayAddress, signal)
      .then(() => this.#inner.dial(address, options))
    const first = await Promise.any([onPresent, onNew]).catch((error) => {
      throw (error as AggregateError).errors[1]
    })
    for (const other of [onPresent, onNew])
      other.then(
        (connection) => connection !== first && connection.abort(new Error('another was faster')),
        () => {},
      )
    return first
  }

  createListener(options: Parameters<Transport['createListener']>[0]) {
    return this.#inner.createListener(options)
  }

  listenFilter(): Multiaddr[] {
    return []
  }

  dialFilter(addresses: Multiaddr[]): Multiaddr[] {
    return this.#inner.dialFilter(addresses)
  }
}
