import { isDeepStrictEqual } from 'node:util'
import type { Config, Link } from '../config/config.ts'
import { machineName } from '../config/machine-name.ts'
import { DirectPaths } from '../direct/direct-paths.ts'
import { isDialableHere } from '../direct/path-address.ts'
import type { Logger } from '../log.ts'
import { createOverlay, type Path, type RelayStatus } from '../overlay/node.ts'
import { isRelayed } from '../overlay/relay-address.ts'
import type { SerialPort } from '../serial/port.ts'
import type { Listing } from '../session/listing.ts'
import { answerPings, PING_PROTOCOL } from '../session/ping.ts'
import type { RemoteEvent } from '../session/remote.ts'
import { loadIdentity } from '../trust/identity.ts'
import type { InviteEnd } from '../trust/invites.ts'
import { PAIR_PROTOCOL } from '../trust/pairing.ts'
import { ROTATE_PROTOCOL } from '../trust/rotation.ts'
import { openTrustStore } from '../trust/trust-store.ts'
import { openAuditLog } from './audit-log.ts'
import { listenControl } from './control.ts'
import { controlMethods } from './control-methods.ts'
import { gatherStatus } from './gather-status.ts'
import { type GuestLinks, type LinkEvent, LinkGroups } from './link-groups.ts'
import type { LinkStatus } from './links.ts'
import { MetricsEndpoint } from './metrics-endpoint.ts'
import { type InviteEvent, type InviteRequest, type Joined, Pairing } from './pairing.ts'
import { PeerNames } from './peer-names.ts'
import { Peers } from './peers.ts'
import { RelayRole } from './relay-role.ts'
import { byPeer, Relaying, relayAddresses, relaysToPeers, stunAtRelays } from './relaying.ts'
import { openWanted, type RemotePortWanted } from './remote-port.ts'
import { Rotation, type RotationReport } from './rotation.ts'
import { Sharing } from './sharing.ts'
import type { DaemonStatus, ReloadReport } from './status.ts'
import { trustedCallers } from './trusted-callers.ts'

export type { InviteEvent, InviteRequest } from './pairing.ts'
export type { RotationReport } from './rotation.ts'

/** What a daemon reports while it runs. */
export type DaemonEvent =
  | { event: 'path'; peer: string; kind: Path['kind']; address: string; encryption: string; muxer: string }
  | LinkEvent
  /** A shared device is not there yet; a peer that asks for it is told so. */
  | { event: 'absent'; port: string; device: string }
  /** How we stand with one of our relays. */
  | { event: 'relay'; relay: string; address: string; state: RelayStatus['state']; reason?: string }

export interface DaemonOptions {
  log: Logger
  signal: AbortSignal
  report: (event: DaemonEvent) => void
  /** Reads the configuration again and puts it in force, as `farport reload` asks; there may be none to read. */
  reload?: () => Promise<ReloadReport>
}

export interface Daemon extends AsyncDisposable {
  readonly peerId: string
  /** Where others reach us, through our relays once these have reserved. */
  readonly addresses: readonly string[]
  links(): LinkStatus[]
  /** Further links, until they are disposed of. @throws FarportError when one can't be had */
  connect(
    links: readonly Link[],
    report: (event: DaemonEvent) => void,
    signal: AbortSignal,
  ): Promise<GuestLinks>
  status(): Promise<DaemonStatus>
  /** Whether what others depend on still works; what waits for a device or a network is well. */
  isWell(): boolean
  /** Puts another configuration in force. Ports and links that are as before go on undisturbed. */
  become(config: Config): Promise<ReloadReport>
  /** Resolves when every link is over by itself, as standard input and output may be. */
  readonly ended: Promise<void>
  portsOf(peer: string, signal: AbortSignal): Promise<Listing[]>
  /** Opens a port of a peer for this process itself. @throws FarportError why it can't be had; the signal's reason */
  open(wanted: RemotePortWanted, signal: AbortSignal): Promise<SerialPort>
  /** The names in trusted_peers. */
  peers(): string[]
  /** One round trip over the best path there is. */
  ping(peer: string, signal: AbortSignal): Promise<{ path: Path; roundTripMs: number }>
  /** Opens an invite, by default to all ports that are shared, and follows it to its end. */
  invite(
    request: InviteRequest,
    report: (event: InviteEvent) => void,
    signal: AbortSignal,
  ): Promise<InviteEnd>
  /** Takes up an invite of another machine. */
  pair(
    text: string,
    options: { at?: string; relays?: readonly string[]; signal: AbortSignal },
  ): Promise<Joined>
  /** Tells the peers of a new key and, when they know it, puts it in the place of the home's. */
  rotate(options: { now: boolean }, signal: AbortSignal): Promise<RotationReport>
}

/**
 * Builds everything a Config asks for and closes it in reverse order. The only place where libp2p meets serial ports.
 * @throws FarportError for what can't be had at the start; later losses are waited out and reported.
 */
export async function startDaemon(
  config: Config,
  { log, signal, report, reload }: DaemonOptions,
): Promise<Daemon> {
  await using stack = new AsyncDisposableStack()
  const identity = await loadIdentity(config.home, { create: true })
  const running = Promise.withResolvers<Daemon>()
  const startedAtMs = performance.now()
  // A service may get ports later.
  const shares = config.shares.length > 0 || config.lasting === true
  // Others reach us: we may be asked to invite, and there is something to keep account of.
  const serves = shares || config.listen.length > 0 || (config.relays ?? []).length > 0
  // First, because it is also what keeps a second farport with the same key from starting.
  if (serves) stack.use(await listenControl(config.home, controlMethods(running.promise, reload), { log }))
  const trust = stack.use(await openTrustStore(config.home, { log }))
  const names = new PeerNames(trust)
  const audit = serves
    ? stack.use(openAuditLog({ home: config.home, nameOf: (peerId) => names.of(peerId), log }))
    : undefined
  const relays = relayAddresses(config.relays ?? [], trust)
  const role =
    config.relay && stack.use(await RelayRole.start({ trust, stunPorts: config.relay.stunPorts, audit, log }))
  // Those whom we turn away are of interest to the owner of ports, or of a relay.
  const guards = shares || role !== undefined
  let pairing: Pairing | undefined
  const admits = (peerId: string) =>
    trust.admits(peerId) || (pairing?.admits(peerId) ?? false) || (role?.admits(peerId) ?? false)
  const overlay = stack.use(
    await createOverlay({
      seed: identity.seed,
      listen: config.listen,
      ...(config.announce && { announce: config.announce }),
      relays,
      ...(role && { relayPolicy: role.policy }),
      admits,
      onRefused: (peerId, address, reason) => {
        if (guards) audit?.record({ event: 'refuse', peerId, address, reason })
      },
      log,
    }),
  )
  const relaying =
    relays.length > 0
      ? stack.use(new Relaying({ overlay, trust, relays, report: reportRelay(report, names), log }))
      : undefined
  const strangers = stack.use(
    new Pairing({
      overlay,
      trust,
      name: machineName(),
      audit,
      stays: (peerId) => trust.admits(peerId) || (role?.admits(peerId) ?? false),
      ...(relaying && { openDoor: (door) => relaying.openDoor(door) }),
      log,
    }),
  )
  pairing = strangers
  await overlay.handle(PAIR_PROTOCOL, (stream, from) => void strangers.serve(stream, from))
  await role?.serve(overlay)
  if (role === undefined)
    stack.use(
      await DirectPaths.start(overlay, {
        stun: () => relaying?.stun() ?? stunAtRelays(overlay.paths()),
        trusts: (peerId) => trust.admits(peerId),
        ...(config.loopback && { mayDial: isDialableHere, patienceMs: config.loopback.afterMs }),
        log,
      }),
    )
  const peers = new Peers(overlay, trust, reportOnce(report))
  const rotation = stack.use(
    new Rotation({
      ...{ home: config.home, identity, overlay, trust, peers, audit, log },
      ...{ relays: byPeer(relays), isRelay: role !== undefined, announces: serves },
    }),
  )
  await overlay.handle(ROTATE_PROTOCOL, (stream, from) => void rotation.serve(stream, from))
  await rotation.resume()
  const sharing = stack.use(await Sharing.start(config.shares, { trust, names, audit, log }))
  for (const { port, device } of await sharing.absent()) report({ event: 'absent', port, device })
  const onlyTrusted = trustedCallers(trust, audit)
  if (serves) await overlay.handle(PING_PROTOCOL, onlyTrusted(answerPings))
  if (shares) await sharing.serve(overlay, onlyTrusted)
  trust.on('change', (change) => {
    const { removed, narrowed } = change
    const revoked = (peerIds: string[], reason: string) => {
      for (const peerId of guards ? peerIds : []) audit?.record({ event: 'revoke', peerId, reason })
    }
    revoked(removed, 'its line in trusted_peers is gone, has expired or is for another key')
    revoked(narrowed, 'its line in trusted_peers may allow less than before')
    names.refresh()
    sharing.enforce()
    role?.enforce(overlay, change)
    // Relays are called, and so need not be trusted.
    const called = new Set([...byPeer([...relays, ...relaysToPeers(trust)]).keys()])
    for (const { peerId, direction } of overlay.paths())
      if (!admits(peerId) && !(direction === 'outbound' && called.has(peerId)))
        void overlay.disconnect(peerId, 'no longer in trusted_peers')
  })

  const { wait = false, lasting = false } = config
  const links = stack.use(new LinkGroups({ peers, wait, lasting, report, log }))
  await links.add(config.links, signal)
  let current = config

  const metrics = stack.use(
    new MetricsEndpoint({
      source: { status: () => daemon.status(), peers: () => daemon.peers() },
      log,
    }),
  )

  const parts = stack.move()
  const daemon: Daemon = {
    peerId: overlay.peerId,
    addresses: [
      ...overlay.addresses().filter((address) => !isRelayed(address)),
      ...relays.map((relay) => `${relay}/p2p-circuit/p2p/${overlay.peerId}`),
    ],
    links: () => links.own.statuses(),
    connect: (wanted, tell, until) => links.connect(wanted, tell, until),
    ended: links.own.ended,
    portsOf: (peer, until) => peers.ports(peer, until),
    open: (wanted, until) => {
      const port = `${wanted.peer}/${wanted.port}`
      const tell = (event: RemoteEvent) => report({ event: 'link', port, ...event })
      return openWanted(wanted, { peers, report: tell, log: log.child({ link: port }) }, until)
    },
    peers: () => trust.peers().map(({ name }) => name),
    ping: (peer, until) => peers.ping(peer, until),
    invite: (request, tell, until) => {
      const wantsPorts = request.ports.length === 0 && request.may.some((right) => right !== 'relay')
      const ports = wantsPorts ? current.shares.map(({ name }) => name) : request.ports
      return strangers.invite({ ...request, ports }, tell, until)
    },
    pair: (text, { relays: asked = [], ...options }) =>
      strangers.join(text, { ...options, relays: relayAddresses(asked, trust) }),
    rotate: (options, until) => rotation.rotate(options, until),
    status: () => gatherStatus({ overlay, names, sharing, links, metrics, startedAtMs }),
    isWell: () => overlay.isListening(),
    async become(next) {
      const ports = await sharing.become(next.shares)
      const nextStart = AT_START.filter((key) => !isDeepStrictEqual(current[key], next[key]))
      current = next
      await metrics.become(next.metrics)
      return { ports, links: await links.become(next.links), nextStart }
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  }
  await metrics.become(config.metrics)
  running.resolve(daemon)
  return daemon
}

/** What the overlay is built of. */
const AT_START = ['listen', 'announce', 'relays', 'relay'] as const

function reportRelay(report: DaemonOptions['report'], names: PeerNames): (status: RelayStatus) => void {
  return ({ peerId, address, state, reason }) => {
    const relay = names.of(peerId) ?? peerId
    report({ event: 'relay', relay, address, state, ...(reason !== undefined && { reason }) })
  }
}

/** Reports a peer's path when it is not the one last reported. */
function reportOnce(report: DaemonOptions['report']): (peer: string, path: Path) => void {
  const last = new Map<string, string>()
  return (peer, { kind, remoteAddress: address, encryption, muxer }) => {
    const now = `${kind} ${address}`
    if (last.get(peer) === now) return
    last.set(peer, now)
    report({ event: 'path', peer, kind, address, encryption, muxer })
  }
}
