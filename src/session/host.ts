import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { Channel } from '../channel/channel.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { PortSource, SerialPort } from '../serial/port.ts'
import { formatSettings } from '../serial/settings.ts'
import type { Right } from '../trust/grants.ts'
import { HELLO_TIMEOUT_MS, type Hello, readHello, refuse, welcome } from './hello.ts'
import { answerPorts, type Listing, readPortsQuestion } from './listing.ts'
import { type LinesChanged, servePort, type Traffic } from './serve.ts'
import { channelWindow } from './window.ts'

export interface SharedPort {
  readonly name: string
  readonly source: PortSource
}

export interface PortHostOptions {
  ports: readonly SharedPort[]
  /** Asked at every attach and for every request, so that a change of the trust file bites at once. */
  rights: (peerId: string, port: string) => ReadonlySet<Right>
  /** Told what peers do, for whoever keeps account of it. */
  tell?: (event: HostEvent) => void
  log: Logger
}

/** How a stream came here. */
export interface CallerPath {
  readonly kind: 'direct' | 'relayed'
  /** A multiaddr. */
  readonly remoteAddress: string
}

/** What a peer did, or was not let do. Settings are as formatSettings() says them, bytes are data alone. */
export type HostEvent = { readonly peerId: string; readonly path?: CallerPath } & (
  | { readonly event: 'refuse'; readonly reason: string }
  | ({ readonly port: string } & (
      | { readonly event: 'open' }
      | { readonly event: 'configure'; readonly from: string; readonly to: string }
      | { readonly event: 'lines'; readonly changed: LinesChanged }
      | {
          readonly event: 'close'
          readonly toDevice: number
          readonly fromDevice: number
          readonly durationMs: number
          readonly reason: string
        }
    ))
)

/** The peer at the other end of a stream. */
interface Caller {
  readonly peerId: string
  readonly path?: CallerPath
}

const NO_TRAFFIC: Traffic = { toDevice: 0, fromDevice: 0 }

/** One peer holding one port. It outlives its carriers: the channel says when it is over. */
interface Session {
  readonly id: string
  readonly peerId: string
  readonly channelId: string
  readonly channel: Channel
  readonly port: SerialPort
  readonly ended: Promise<void>
  /** Of the newest hello. */
  attempt: number
}

type Lease = { state: 'free' } | { state: 'opening'; peerId: string } | { state: 'held'; session: Session }

interface Entry {
  readonly shared: SharedPort
  lease: Lease
}

/** The agent's side: opens shared ports for peers that may use them, one holder at a time, and serves them on channels. */
export class PortHost implements AsyncDisposable {
  readonly #entries: ReadonlyMap<string, Entry>
  readonly #rights: PortHostOptions['rights']
  readonly #tell: NonNullable<PortHostOptions['tell']>
  readonly #log: Logger
  readonly #closing = new AbortController()

  constructor({ ports, rights, tell = () => {}, log }: PortHostOptions) {
    this.#entries = new Map(ports.map((shared) => [shared.name, { shared, lease: { state: 'free' } }]))
    this.#rights = rights
    this.#tell = tell
    this.#log = log
  }

  /** Takes a stream on which `peerId` speaks SERIAL_PROTOCOL. Never rejects: what goes wrong is told to the peer. */
  async accept(stream: Duplex, peerId: string, path?: CallerPath): Promise<void> {
    const caller = { peerId, ...(path && { path }) }
    stream.on('error', () => {})
    try {
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(HELLO_TIMEOUT_MS)])
      const hello = await readHello(stream, signal)
      await this.#attach(stream, caller, hello)
    } catch (error) {
      this.#refuse(stream, caller, error)
    }
  }

  /** Answers a stream on which `peerId` speaks PORTS_PROTOCOL. Never rejects. */
  async answerPorts(stream: Duplex, peerId: string, path?: CallerPath): Promise<void> {
    stream.on('error', () => {})
    try {
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(HELLO_TIMEOUT_MS)])
      const name = await readPortsQuestion(stream, signal)
      const entries = name === undefined ? [...this.#entries.values()] : [this.#entry(name, peerId, 'watch')]
      answerPorts(stream, (await Promise.all(entries.map((entry) => this.#list(entry, peerId)))).flat())
    } catch (error) {
      this.#refuse(stream, { peerId, ...(path && { path }) }, error)
    }
  }

  /** Ends every channel that the trust file no longer covers. */
  enforce(): void {
    for (const { shared, lease } of this.#entries.values()) {
      if (lease.state !== 'held' || this.#rights(lease.session.peerId, shared.name).has('use')) continue
      this.#log.info({ peer: lease.session.peerId, port: shared.name }, 'the right to use it was withdrawn')
      lease.session.channel.destroy(notGranted(shared.name))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new FarportError('ERR_CHANNEL_LOST', 'the agent is shutting down'))
    const held = [...this.#entries.values()].flatMap(({ lease }) =>
      lease.state === 'held' ? [lease.session] : [],
    )
    for (const session of held)
      session.channel.destroy(new FarportError('ERR_CHANNEL_LOST', 'the agent is shutting down'))
    await Promise.all(held.map((session) => session.ended))
  }

  #refuse(stream: Duplex, caller: Caller, error: unknown): void {
    const refusal = error instanceof FarportError ? error : new FarportError('ERR_INTERNAL', 'internal error')
    this.#log.info({ peer: caller.peerId, code: refusal.code, err: error }, 'refused a peer')
    this.#tell({ event: 'refuse', ...caller, reason: refusal.message })
    refuse(stream, refusal)
  }

  async #list({ shared, lease }: Entry, peerId: string): Promise<Listing[]> {
    const may = [...this.#rights(peerId, shared.name)]
    if (may.length === 0) return []
    const ours = lease.state === 'held' && isGhostOf(lease.session, peerId)
    const state =
      lease.state !== 'free' && !ours ? 'held' : (await shared.source.present()) ? 'free' : 'absent'
    return [{ name: shared.name, state, may, description: shared.source.description }]
  }

  /** The entry a peer asks for. Rights come before existence: a peer without any can't find out which names are real. */
  #entry(name: string, peerId: string, right: Right): Entry {
    if (!this.#rights(peerId, name).has(right)) throw notGranted(name)
    const entry = this.#entries.get(name)
    if (entry !== undefined) return entry
    throw new FarportError(
      'ERR_NO_SUCH_PORT',
      `no port called ${name} is shared there: \`farport ports PEER\` lists them`,
    )
  }

  async #attach(stream: Duplex, caller: Caller, hello: Hello): Promise<void> {
    const entry = this.#entry(hello.port, caller.peerId, hello.mode)
    if (hello.mode === 'watch')
      throw new FarportError(
        'ERR_UNFIT',
        'this agent does not let ports be watched yet: use the port, or update it',
      )
    const session = await this.#session(entry, caller, hello)
    const { attempt = session.attempt + 1, moving = false } = hello
    if (attempt <= session.attempt) {
      // Overtaken on its way here; the client does not wait for an answer to it any more.
      stream.destroy()
      return
    }
    session.attempt = attempt
    welcome(stream, {
      received: session.channel.received,
      description: session.port.description,
      settings: session.port.settings,
      outputs: session.port.outputs,
      lines: session.port.lines,
    })
    const counts = { peerReceived: hello.received }
    if (moving) session.channel.reserve(stream, counts)
    else session.channel.attach(stream, counts)
  }

  /** The session a hello is about: the one it has, or a new one if the port is free. */
  async #session(entry: Entry, caller: Caller, hello: Hello): Promise<Session> {
    const { peerId } = caller
    if (entry.lease.state === 'held') {
      const { session } = entry.lease
      if (session.channelId === hello.channel && session.peerId === peerId) return session
      if (hello.fresh && isGhostOf(session, peerId)) {
        session.channel.destroy(new FarportError('ERR_CHANNEL_LOST', 'the same peer opened the port anew'))
        await session.ended
      }
    }
    if (!hello.fresh)
      throw new FarportError(
        'ERR_CHANNEL_LOST',
        'the agent no longer has this channel: it was restarted, or the loss took too long',
      )
    if (entry.lease.state !== 'free')
      throw new FarportError(
        'ERR_PORT_BUSY',
        `${hello.port} is in use by ${this.#holder(entry.lease, peerId)}: try again when it is free`,
      )
    return await this.#open(entry, caller, hello)
  }

  #holder(lease: Exclude<Lease, { state: 'free' }>, asking: string): string {
    const peerId = lease.state === 'held' ? lease.session.peerId : lease.peerId
    return peerId === asking ? 'another program of the same peer' : 'another peer'
  }

  async #open(entry: Entry, caller: Caller, hello: Hello): Promise<Session> {
    const { peerId } = caller
    const { shared } = entry
    entry.lease = { state: 'opening', peerId }
    let port: SerialPort
    try {
      port = await shared.source.open({ signal: this.#closing.signal })
    } catch (error) {
      entry.lease = { state: 'free' }
      throw error
    }
    const channel = new Channel({ resumeMs: hello.resumeMs })
    const id = randomUUID()
    const log = this.#log.child({ peer: peerId, port: shared.name, session: id })
    port.on('error', (error) => log.warn({ err: error }, 'the device failed'))
    const resize = () => {
      channel.window = channelWindow(port.settings.baudRate, channel.roundTripMs)
    }
    port.on('settings', resize)
    channel.on('roundTrip', resize)
    const who = { ...caller, port: shared.name }
    const openedAt = performance.now()
    const ended = servePort(channel, port, {
      may: (right) => this.#rights(peerId, shared.name).has(right),
      log,
      onConfigured: (inForce, before) => {
        resize()
        const [from, to] = [formatSettings(before), formatSettings(inForce)]
        if (from !== to) this.#tell({ event: 'configure', ...who, from, to })
      },
      onLinesChanged: (changed) => this.#tell({ event: 'lines', ...who, changed }),
    })
      .catch((error: unknown) => {
        log.info({ err: error }, 'the channel ended with an error')
        return NO_TRAFFIC
      })
      .then(async (traffic) => {
        await port[Symbol.asyncDispose]()
        entry.lease = { state: 'free' }
        const durationMs = Math.round(performance.now() - openedAt)
        const reason = channel.errored?.message ?? 'the peer closed it'
        log.info({ ...traffic, reason }, 'port closed')
        this.#tell({ event: 'close', ...who, ...traffic, durationMs, reason })
      })
    const session: Session = { id, peerId, channelId: hello.channel, channel, port, ended, attempt: 0 }
    entry.lease = { state: 'held', session }
    log.info({ device: port.description.path }, 'port opened')
    this.#tell({ event: 'open', ...who })
    return session
  }
}

/** A peer whose program died comes back with a new channel: it need not wait for its old one to expire. */
function isGhostOf(session: Session, peerId: string): boolean {
  return session.peerId === peerId && session.channel.state === 'detached'
}

function notGranted(port: string): FarportError {
  return new FarportError(
    'ERR_NOT_GRANTED',
    `this peer may not use ${port} there: its owner can grant it with ports=${port} in trusted_peers`,
  )
}
