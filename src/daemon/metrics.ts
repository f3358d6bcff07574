/**
 * What Prometheus is told of a farport. Labels are names that the owner gave: ports, peers and relays as in farport.yaml and
 * trusted_peers, and where a link is found on this machine. No keys, no addresses of peers, nothing of what is carried.
 */
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { Page } from './metrics-server.ts'
import type { DaemonStatus } from './status.ts'

export interface MetricsSource {
  status: () => Promise<DaemonStatus>
  /** The names in trusted_peers. */
  peers: () => readonly string[]
}

/** Of a relay's peers; the ports and links of a configuration have caps of their own. */
const MAX_PEERS = 1_000
/** How often the event loop is looked at: each time wakes the machine. */
const LOOP_MS = 20

interface Now {
  readonly status: DaemonStatus
  /** By the names in trusted_peers; undefined for who is not connected. */
  readonly peers: readonly (readonly [name: string, DaemonStatus['peers'][number] | undefined])[]
}

type Labels = Readonly<Record<string, string>>

interface Family {
  readonly type: 'counter' | 'gauge'
  readonly help: string
  readonly labels: readonly string[]
  /** Samples with the same labels are added up. */
  readonly samples: (now: Now) => readonly (readonly [Labels, number])[]
}

type PortState = DaemonStatus['ports'][number]['state']
type LinkState = DaemonStatus['links'][number]['state']

const PATHS = ['direct', 'relayed'] as const
// By name, so that a state can't be forgotten.
const PORT_STATES = { waiting: 0, ready: 0, open: 0 } satisfies Record<PortState, 0>
const LINK_STATES = { failed: 0, idle: 0, up: 0, waiting: 0, down: 0 } satisfies Record<LinkState, 0>

const families: Readonly<Record<string, Family>> = {
  farport_build_info: {
    type: 'gauge',
    help: 'Always 1; the label says which farport this is',
    labels: ['version'],
    samples: ({ status }) => [[{ version: status.version }, 1]],
  },
  farport_port_bytes_total: {
    type: 'counter',
    help: 'Bytes of data given to the device of a shared port and got from it',
    labels: ['port', 'direction'],
    samples: ({ status }) =>
      status.ports.flatMap(({ name: port, ...sums }) =>
        directions(sums, (direction) => ({ port, direction })),
      ),
  },
  farport_port_line_errors_total: {
    type: 'counter',
    help: 'Errors on the line of a shared port, and breaks received',
    labels: ['port', 'kind'],
    samples: ({ status }) =>
      status.ports.flatMap(({ name: port, lineErrors }) =>
        Object.entries(lineErrors).map(([kind, count]) => [{ port, kind }, count] as const),
      ),
  },
  farport_port_state: {
    type: 'gauge',
    help: '1 for the state a shared port is in: waiting for its device, ready, or open',
    labels: ['port', 'state'],
    samples: ({ status }) =>
      status.ports.flatMap(({ name: port, state: is }) =>
        Object.keys(PORT_STATES).map((state) => [{ port, state }, Number(state === is)] as const),
      ),
  },
  farport_port_holders: {
    type: 'gauge',
    help: 'How many peers hold a shared port: 1 or none',
    labels: ['port'],
    samples: perPort(({ holder }) => Number(holder !== undefined)),
  },
  farport_port_watchers: {
    type: 'gauge',
    help: 'How many watch a shared port',
    labels: ['port'],
    samples: perPort(({ watchers }) => watchers),
  },
  farport_port_opens_total: {
    type: 'counter',
    help: 'How often the device of a shared port was opened',
    labels: ['port'],
    samples: perPort(({ opens }) => opens),
  },
  farport_port_sessions_total: {
    type: 'counter',
    help: 'How often a peer began to use a shared port, or to watch it',
    labels: ['port', 'mode'],
    samples: ({ status }) =>
      status.ports.flatMap(({ name: port, sessions }) =>
        Object.entries(sessions).map(([mode, count]) => [{ port, mode }, count] as const),
      ),
  },
  farport_port_skipped_bytes_total: {
    type: 'counter',
    help: 'Bytes of a shared port that watchers missed because they were too slow',
    labels: ['port'],
    samples: perPort(({ skipped }) => skipped),
  },
  farport_link_bytes_total: {
    type: 'counter',
    help: 'Bytes of data sent to the device behind a link and got from it',
    labels: ['link', 'at', 'direction'],
    samples: ({ status }) =>
      status.links.flatMap(({ port: link, at, ...sums }) =>
        directions(sums, (direction) => ({ link, at, direction })),
      ),
  },
  farport_link_state: {
    type: 'gauge',
    help: '1 for the state a link is in: failed here, idle while no program uses it, up, waiting for its device, or down',
    labels: ['link', 'at', 'state'],
    samples: ({ status }) =>
      status.links.flatMap(({ port: link, at, state: is }) =>
        Object.keys(LINK_STATES).map((state) => [{ link, at, state }, Number(state === is)] as const),
      ),
  },
  farport_link_round_trip_seconds: {
    type: 'gauge',
    help: 'The way to the far port of a link and back; absent while it is not known',
    labels: ['link', 'at'],
    samples: ({ status }) =>
      status.links.flatMap(({ port: link, at, roundTripMs }) => seconds({ link, at }, roundTripMs)),
  },
  farport_link_reconnects_total: {
    type: 'counter',
    help: 'How often the connection of a link in use was lost, and had again',
    labels: ['link', 'at'],
    samples: perLink(({ reconnects }) => reconnects),
  },
  farport_link_dropped_bytes_total: {
    type: 'counter',
    help: 'Bytes that may not have reached the device because the connection of a link was lost for too long',
    labels: ['link', 'at'],
    samples: perLink(({ dropped }) => dropped),
  },
  farport_connected_peers: {
    type: 'gauge',
    help: 'Peers that are connected, those without a name in trusted_peers included',
    labels: ['path'],
    samples: ({ status }) =>
      PATHS.map((path) => [{ path }, status.peers.filter((peer) => peer.path === path).length] as const),
  },
  farport_peer_connected: {
    type: 'gauge',
    help: '1 for the path by which a peer is connected, 0 for each when it is not',
    labels: ['peer', 'path'],
    samples: ({ peers }) =>
      peers.flatMap(([peer, is]) =>
        PATHS.map((path) => [{ peer, path }, Number(path === is?.path)] as const),
      ),
  },
  farport_peer_round_trip_seconds: {
    type: 'gauge',
    help: 'The way to a peer and back, known while it uses a port of ours or we one of its',
    labels: ['peer'],
    samples: ({ peers }) => peers.flatMap(([peer, is]) => seconds({ peer }, is?.roundTripMs)),
  },
  farport_relay_reserved: {
    type: 'gauge',
    help: '1 for a relay through which this farport can be called now',
    labels: ['relay'],
    samples: ({ status }) =>
      status.relays.map(({ name, address, state }) => [
        { relay: name ?? address.replace(/\/p2p\/.*$/, '') },
        Number(state === 'reserved'),
      ]),
  },
}

/** Metrics of this farport and, as prom-client knows them, of this process. They are gathered anew for each page. */
export function createMetrics(source: MetricsSource): () => Promise<Page> {
  const registry = new Registry()
  let now: Now
  for (const [name, { type, help, labels: labelNames, samples }] of Object.entries(families)) {
    const options = { name, help, labelNames, registers: [registry] }
    const collect = (metric: Counter | Gauge) => {
      metric.reset()
      for (const [labels, value] of samples(now)) metric.inc(labels, value)
    }
    if (type === 'counter')
      new Counter({
        ...options,
        collect() {
          collect(this)
        },
      })
    else
      new Gauge({
        ...options,
        collect() {
          collect(this)
        },
      })
  }
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LOOP_MS })
  return async () => {
    const status = await source.status()
    const connected = new Map(status.peers.map((peer) => [peer.name, peer]))
    const names = source.peers().slice(0, MAX_PEERS)
    now = { status, peers: names.map((name) => [name, connected.get(name)]) }
    return { contentType: registry.contentType, text: await registry.metrics() }
  }
}

function directions(
  { toDevice, fromDevice }: { toDevice: number; fromDevice: number },
  labels: (direction: string) => Labels,
): (readonly [Labels, number])[] {
  return [
    [labels('to_device'), toDevice],
    [labels('from_device'), fromDevice],
  ]
}

function perPort(value: (port: DaemonStatus['ports'][number]) => number): Family['samples'] {
  return ({ status }) => status.ports.map((port) => [{ port: port.name }, value(port)])
}

function perLink(value: (link: DaemonStatus['links'][number]) => number): Family['samples'] {
  return ({ status }) => status.links.map((link) => [{ link: link.port, at: link.at }, value(link)])
}

function seconds(labels: Labels, ms: number | undefined): (readonly [Labels, number])[] {
  return ms === undefined ? [] : [[labels, ms / 1000]]
}
