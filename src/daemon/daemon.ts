import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import type { Config, Link } from '../config/config.ts'
import { machineName } from '../config/machine-name.ts'
import type { LocalEndpoint, OpenPort } from '../endpoints/endpoint.ts'
import { createPtyEndpoint } from '../endpoints/pty.ts'
import { joinStdio } from '../endpoints/stdio.ts'
import { listenTcp } from '../endpoints/tcp.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createOverlay, type Path } from '../overlay/node.ts'
import { listPorts } from '../serial/discovery.ts'
import type { Cables } from '../serial/simulated.ts'
import { portSource } from '../serial/source.ts'
import { SERIAL_PROTOCOL } from '../session/hello.ts'
import { PortHost, type SharedPort } from '../session/host.ts'
import { type Listing, PORTS_PROTOCOL } from '../session/listing.ts'
import { parse } from '../session/message.ts'
import { openRemotePort, type RemoteEvent } from '../session/remote.ts'
import { RIGHTS } from '../trust/grants.ts'
import { loadIdentity } from '../trust/identity.ts'
import type { InviteEnd } from '../trust/invites.ts'
import { PAIR_PROTOCOL } from '../trust/pairing.ts'
import { openTrustStore } from '../trust/trust-store.ts'
import { openAuditLog } from './audit-log.ts'
import { listenControl } from './control.ts'
import { type InviteEvent, type InviteRequest, type Joined, Pairing } from './pairing.ts'
import { PeerNames } from './peer-names.ts'
import { Peers } from './peers.ts'

export type { InviteEvent, InviteRequest } from './pairing.ts'

/** What a daemon reports while it runs. */
export type DaemonEvent =
  | { event: 'path'; peer: string; kind: Path['kind']; address: string; encryption: string; muxer: string }
  | ({ event: 'link'; port: string } & RemoteEvent)
  /** A shared device is not there yet; a peer that asks for it is told so. */
  | { event: 'absent'; port: string; device: string }

export interface DaemonOptions {
  log: Logger
  signal: AbortSignal
  report: (event: DaemonEvent) => void
}

interface RunningLink {
  readonly peer: string
  readonly port: string
  /** Where local programs find it. */
  readonly address: string
}

export interface Daemon extends AsyncDisposable {
  readonly peerId: string
  readonly addresses: readonly string[]
  readonly links: readonly RunningLink[]
  /** Resolves when every link is over by itself, as standard input and output may be. */
  readonly ended: Promise<void>
  portsOf(peer: string, signal: AbortSignal): Promise<Listing[]>
  /** Opens an invite, by default to all ports that are shared, and follows it to its end. */
  invite(
    request: InviteRequest,
    report: (event: InviteEvent) => void,
    signal: AbortSignal,
  ): Promise<InviteEnd>
  /** Takes up an invite of another machine. */
  pair(text: string, options: { at?: string; signal: AbortSignal }): Promise<Joined>
}

/**
 * Builds everything a Config asks for and closes it in reverse order. The only place where libp2p meets serial ports.
 * @throws FarportError for what can't be had at the start; later losses are waited out and reported.
 */
export async function startDaemon(config: Config, { log, signal, report }: DaemonOptions): Promise<Daemon> {
  await using stack = new AsyncDisposableStack()
  const identity = await loadIdentity(config.home, { create: true })
  // First, because it is also what keeps a second farport with the same key from starting.
  const inviting = Promise.withResolvers<Daemon['invite']>()
  if (config.listen.length > 0)
    stack.use(
      await listenControl(
        config.home,
        {
          invite: async (params, { emit, signal: until }) =>
            await (await inviting.promise)(parse(inviteSchema, params, 'invite'), emit, until),
        },
        { log },
      ),
    )
  const trust = stack.use(await openTrustStore(config.home, { log }))
  const names = new PeerNames(trust)
  const shares = config.shares.length > 0
  // Whoever only uses ports of others has nothing to keep account of.
  const audit =
    shares || config.listen.length > 0
      ? stack.use(openAuditLog({ home: config.home, nameOf: (peerId) => names.of(peerId), log }))
      : undefined
  let pairing: Pairing | undefined
  const overlay = stack.use(
    await createOverlay({
      seed: identity.seed,
      listen: config.listen,
      admits: (peerId) => trust.admits(peerId) || (pairing?.admits(peerId) ?? false),
      onRefused: (peerId, address, reason) => {
        if (shares) audit?.record({ event: 'refuse', peerId, address, reason })
      },
      log,
    }),
  )
  const strangers = stack.use(new Pairing({ overlay, trust, name: machineName(), audit, log }))
  pairing = strangers
  await overlay.handle(PAIR_PROTOCOL, (stream, from) => void strangers.serve(stream, from))
  const shared = await sharedPorts(config.shares)
  for (const { name, source } of shared)
    if (!(await source.present())) report({ event: 'absent', port: name, device: source.description.path })
  const host = stack.use(
    new PortHost({
      ports: shared,
      rights: (peerId, port) => trust.rights(peerId, port),
      tell: (event) => audit?.record(event),
      log,
    }),
  )
  if (shares) {
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
    await overlay.handle(
      SERIAL_PROTOCOL,
      trusted((stream, peerId, path) => host.accept(stream, peerId, path)),
    )
    await overlay.handle(
      PORTS_PROTOCOL,
      trusted((stream, peerId, path) => host.answerPorts(stream, peerId, path)),
    )
  }
  trust.on('change', ({ removed, narrowed }) => {
    const revoked = (peerIds: string[], reason: string) => {
      for (const peerId of shares ? peerIds : []) audit?.record({ event: 'revoke', peerId, reason })
    }
    revoked(removed, 'its line in trusted_peers is gone or has expired')
    revoked(narrowed, 'its line in trusted_peers may allow less than before')
    names.refresh()
    host.enforce()
    for (const { peerId } of overlay.paths())
      if (!trust.admits(peerId) && !strangers.admits(peerId))
        void overlay.disconnect(peerId, 'no longer in trusted_peers')
  })

  const peers = new Peers(overlay, trust, reportOnce(report))
  const links: RunningLink[] = []
  const ends: Promise<void>[] = []
  for (const link of config.links) {
    if (!config.wait) checkPort(link, await peers.ports(link.peer, signal, link.port))
    const name = `${link.peer}/${link.port}`
    const open: OpenPort = (until) =>
      openRemotePort(
        {
          port: link.port,
          connect: (attempt) => peers.open(link.peer, SERIAL_PROTOCOL, attempt),
          resumeMs: link.resumeMs,
          report: (event) => report({ event: 'link', port: name, ...event }),
          log: log.child({ link: name }),
        },
        until,
      )
    const endpoint = stack.use(await startEndpoint(link, open, log.child({ link: name })))
    links.push({ peer: link.peer, port: link.port, address: endpoint.address })
    ends.push(endpoint.ended)
  }

  const invite: Daemon['invite'] = (request, tell, until) => {
    const ports = request.ports.length > 0 ? request.ports : config.shares.map(({ name }) => name)
    return strangers.invite({ ...request, ports }, tell, until)
  }
  inviting.resolve(invite)

  const parts = stack.move()
  return {
    peerId: overlay.peerId,
    addresses: overlay.addresses(),
    links,
    ended: Promise.all(ends).then(() => {}),
    portsOf: (peer, until) => peers.ports(peer, until),
    invite,
    pair: (text, options) => strangers.join(text, options),
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  }
}

const inviteSchema = v.object({
  form: v.picklist(['ticket', 'code']),
  ports: v.array(v.string()),
  may: v.array(v.picklist(RIGHTS)),
  expires: v.exactOptional(v.number()),
})

const NOT_TRUSTED = 'it is not in trusted_peers'

async function sharedPorts(shares: Config['shares']): Promise<SharedPort[]> {
  // The two ends of a simulated cable meet here.
  const cables: Cables = new Map()
  const known = shares.length > 0 ? await listPorts() : []
  return shares.map(({ name, device }) => {
    const found = known.find(({ path, byId, byPath }) => [path, byId, byPath].includes(device))
    const description = {
      ...(found?.driver && { driver: found.driver }),
      ...(found?.usb && { usb: found.usb }),
    }
    return { name, source: portSource(device, { cables, description }) }
  })
}

async function startEndpoint({ endpoint }: Link, open: OpenPort, log: Logger): Promise<LocalEndpoint> {
  switch (endpoint.type) {
    case 'pty':
      return await createPtyEndpoint({ link: endpoint.path, log }, open)
    case 'rfc2217':
    case 'raw':
      return await listenTcp({ host: endpoint.host, port: endpoint.port, mode: endpoint.type, log }, open)
    case 'stdio':
      return joinStdio({ input: process.stdin, output: process.stdout }, open)
    default:
      return endpoint satisfies never
  }
}

/** Says at once what would otherwise be found out by the first program that opens the port. */
function checkPort(link: Link, ports: Listing[]): void {
  const where = `${link.peer}/${link.port}`
  const [port] = ports
  if (port === undefined)
    throw new FarportError('ERR_PROTOCOL', `${link.peer} says nothing about ${link.port}`)
  if (!port.may.includes('use'))
    throw new FarportError(
      'ERR_NOT_GRANTED',
      `we may ${port.may.join(', ')} ${where}, not use it: its owner can change may= in our line there`,
    )
  if (port.state === 'held')
    throw new FarportError(
      'ERR_PORT_BUSY',
      `${where} is in use by another peer or program: try again when it is free, or give --wait`,
    )
  if (port.state === 'absent')
    throw new FarportError(
      'ERR_DEVICE_ABSENT',
      `${where} has no device right now (${port.description.path}): plug it in, or give --wait`,
    )
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
