import type { Duplex } from 'node:stream'
import { isDeepStrictEqual } from 'node:util'
import packageJson from '../../package.json' with { type: 'json' }
import type { CaptureOptions } from '../capture/capture-file.ts'
import { Captures } from '../capture/captures.ts'
import type { Config, Link, Share } from '../config/config.ts'
import { machineName } from '../config/machine-name.ts'
import { DirectPaths } from '../direct/direct-paths.ts'
import { isDialableHere } from '../direct/path-address.ts'
import type { Logger } from '../log.ts'
import { createOverlay, type Path, type RelayStatus } from '../overlay/node.ts'
import { isRelayed } from '../overlay/relay-address.ts'
import type { SerialPort } from '../serial/port.ts'
import { SERIAL_PROTOCOL } from '../session/hello.ts'
import { PortHost } from '../session/host.ts'
import { type Listing, PORTS_PROTOCOL } from '../session/listing.ts'
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
import { checkLink, startLink } from './link.ts'
import { type LinkStatus, Links } from './links.ts'
import { MetricsEndpoint } from './metrics-endpoint.ts'
import { type InviteEvent, type InviteRequest, type Joined, Pairing } from './pairing.ts'
import { PeerNames } from './peer-names.ts'
import { Peers } from './peers.ts'
import { RelayRole } from './relay-role.ts'
import { byPeer, Relaying, relayAddresses, relaysToPeers, stunAtRelays } from './relaying.ts'
import { openWanted, type RemotePortWanted } from './remote-port.ts'
import { Rotation, type RotationReport } from './rotation.ts'
import { SharedPorts } from './shared-ports.ts'
import type { DaemonStatus, ReloadReport } from './status.ts'

export type { InviteEvent, InviteRequest } from './pairing.ts'
export type { RotationReport } from './rotation.ts'

/** What a daemon reports while it runs. */
export type DaemonEvent =
  | { event: 'path'; peer: string; kind: Path['kind']; address: string; encryption: string; muxer: string }
  | ({ event: 'link'; port: string } & RemoteEvent)
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
  ): Promise<
    AsyncDisposable & {
      readonly links: readonly { port: string; at: string }[]
      readonly ended: Promise<void>
    }
  >
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
  let current = config
  const shared = await SharedPorts.start(config.shares.map(withoutCapture), { log })
  for (const { port, device } of await shared.absent()) report({ event: 'absent', port, device })
  // Closed behind the ports.
  const captures = stack.use(new Captures(log))
  await captures.become(capturesOf(config.shares))
  const host = stack.use(
    new PortHost({
      ports: shared.ports,
      rights: (peerId, port) => trust.rights(peerId, port),
      nameOf: (peerId) => names.of(peerId),
      tell: (event) => audit?.record(event),
      tap: (...passing) => captures.record(...passing),
      log,
    }),
  )
  stack.use(shared.follow((ports) => host.become(ports)))
  // Strangers who are let in to pair get no further than that.
  const trusted =
    (serve: (stream: Duplex, peerId: string, path: Path) => Promise<void>) =>
    (stream: Duplex, path: Path) => {
      const { peerId } = path
      if (trust.admits(peerId)) void serve(stream, peerId, path)
      else {
        audit?.record({ event: 'refuse', peerId, address: path.remoteAddress, reason: NOT_TRUSTED })
        stream.destroy()
      }
    }
  if (serves) await overlay.handle(PING_PROTOCOL, trusted(answerPings))
  if (shares) {
    await overlay.handle(
      SERIAL_PROTOCOL,
      trusted((stream, peerId, path) => host.accept(stream, peerId, path)),
    )
    await overlay.handle(
      PORTS_PROTOCOL,
      trusted((stream, peerId, path) => host.answerPorts(stream, peerId, path)),
    )
  }
  trust.on('change', (change) => {
    const { removed, narrowed } = change
    const revoked = (peerIds: string[], reason: string) => {
      for (const peerId of guards ? peerIds : []) audit?.record({ event: 'revoke', peerId, reason })
    }
    revoked(removed, 'its line in trusted_peers is gone, has expired or is for another key')
    revoked(narrowed, 'its line in trusted_peers may allow less than before')
    names.refresh()
    host.enforce()
    role?.enforce(overlay, change)
    // Relays are called, and so need not be trusted.
    const called = new Set([...byPeer([...relays, ...relaysToPeers(trust)]).keys()])
    for (const { peerId, direction } of overlay.paths())
      if (!admits(peerId) && !(direction === 'outbound' && called.has(peerId)))
        void overlay.disconnect(peerId, 'no longer in trusted_peers')
  })

  const newLinks = (lasting: boolean, tell: (event: DaemonEvent) => void) =>
    new Links({
      start: (link, watch) =>
        startLink(link, { peers, ...watch, log: log.child({ link: `${link.peer}/${link.port}` }) }),
      report: (port, event) => tell({ event: 'link', port, ...event }),
      lasting,
      log,
    })
  const addTo = async (to: Links, link: Link, until: AbortSignal) => {
    // Standard input and output open the port at once, and so find out by themselves, a round trip earlier.
    if (!(link.wait ?? config.wait) && link.endpoint.type !== 'stdio')
      checkLink(link, await peers.ports(link.peer, until, link.port))
    await to.add(link)
  }
  const links = stack.use(newLinks(config.lasting === true, report))
  for (const link of config.links) await addTo(links, link, signal)
  /** Of commands that asked for them, for as long as these run. */
  const guests = new Set<Links>()

  const invite: Daemon['invite'] = (request, tell, until) => {
    const wanted = request.may.some((right) => right !== 'relay') ? config.shares.map(({ name }) => name) : []
    const ports = request.ports.length > 0 ? request.ports : wanted
    return strangers.invite({ ...request, ports }, tell, until)
  }

  const linksNow = () => [links, ...guests].flatMap((some) => some.statuses())
  const peersNow = (): DaemonStatus['peers'] => {
    const roundTrips = host.roundTrips()
    const used = linksNow()
    return bestPaths(overlay.paths()).map(({ peerId, kind: path, remoteAddress: address }) => {
      const name = names.of(peerId) ?? peerId
      const ofLinks = used.filter(({ port }) => [name, peerId].includes(port.split('/')[0] as string))
      const known = [roundTrips.get(peerId), ...ofLinks.map((link) => link.roundTripMs)]
      const roundTripMs = Math.min(...known.filter((ms) => ms !== undefined))
      return { name, peerId, path, address, ...(Number.isFinite(roundTripMs) && { roundTripMs }) }
    })
  }
  const pathTo = (peerId: string) => {
    const [best] = overlay.paths(peerId)
    return best && { path: best.kind }
  }

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
    links: () => links.statuses(),
    async connect(wanted, tell, until) {
      await using undo = new AsyncDisposableStack()
      const theirs = undo.use(newLinks(false, tell))
      guests.add(theirs)
      undo.defer(() => void guests.delete(theirs))
      for (const link of wanted) await addTo(theirs, link, until)
      const taken = undo.move()
      return {
        links: theirs.statuses().map(({ port, at }) => ({ port, at })),
        ended: theirs.ended,
        [Symbol.asyncDispose]: () => taken.disposeAsync(),
      }
    },
    ended: links.ended,
    portsOf: (peer, until) => peers.ports(peer, until),
    open: (wanted, until) => {
      const port = `${wanted.peer}/${wanted.port}`
      const tell = (event: RemoteEvent) => report({ event: 'link', port, ...event })
      return openWanted(wanted, { peers, report: tell, log: log.child({ link: port }) }, until)
    },
    peers: () => trust.peers().map(({ name }) => name),
    ping: (peer, until) => peers.ping(peer, until),
    invite,
    pair: (text, { relays: asked = [], ...options }) =>
      strangers.join(text, { ...options, relays: relayAddresses(asked, trust) }),
    rotate: (options, until) => rotation.rotate(options, until),
    status: async () => ({
      version: packageJson.version,
      peerId: overlay.peerId,
      pid: process.pid,
      uptimeMs: Math.round(performance.now() - startedAtMs),
      addresses: overlay.addresses(),
      ports: (await host.statuses()).map(({ holder, ...port }) => ({
        ...port,
        ...captures.status(port.name),
        ...(holder !== undefined && { holder: names.of(holder) ?? holder }),
        ...(holder !== undefined && pathTo(holder)),
      })),
      links: linksNow(),
      relays: overlay.relays().map(({ peerId, address, state, reason }) => ({
        ...{ address, state },
        ...(names.of(peerId) !== undefined && { name: names.of(peerId) as string }),
        ...(reason !== undefined && { reason }),
      })),
      peers: peersNow(),
      ...(metrics.status && { metrics: metrics.status }),
    }),
    isWell: () => overlay.isListening(),
    async become(next) {
      const ports = await shared.become(next.shares.map(withoutCapture))
      await captures.become(capturesOf(next.shares))
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

/** As its users see it: they go on when only its capture changes. */
function withoutCapture({ capture: _, ...share }: Share): Share {
  return share
}

function capturesOf(shares: readonly Share[]): Map<string, CaptureOptions> {
  return new Map(shares.flatMap(({ name, capture }) => (capture === undefined ? [] : [[name, capture]])))
}

/** What the overlay is built of. */
const AT_START = ['listen', 'announce', 'relays', 'relay'] as const

/** Of each peer the first, which is the best. */
function bestPaths(paths: readonly Path[]): Path[] {
  return [...Map.groupBy(paths, ({ peerId }) => peerId).values()].map(([best]) => best as Path)
}

const NOT_TRUSTED = 'it is not in trusted_peers'

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
