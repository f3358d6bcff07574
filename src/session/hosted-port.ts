import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { Channel } from '../channel/channel.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { ResetProfile } from '../serial/line-sequence.ts'
import type { Packing } from '../serial/packer.ts'
import type { LineErrors, PortSource, SerialPort } from '../serial/port.ts'
import { formatSettings } from '../serial/settings.ts'
import type { Right } from '../trust/grants.ts'
import { type Hello, welcome } from './hello.ts'
import type { Listing } from './listing.ts'
import type { PortHabits } from './port-habits.ts'
import { type LinesChanged, servePort, type Traffic } from './serve.ts'
import { type LineUse, SharedLine, type Tap } from './shared-line.ts'
import { serveWatcher, WATCHER_BEHIND_BYTES } from './watch.ts'
import { channelWindow } from './window.ts'

export interface SharedPort {
  readonly name: string
  readonly source: PortSource
  /** What of the device's last bytes is kept for who begins to watch, 0 for nothing. Default 16 KiB. */
  readonly replayBytes?: number
  /** What is done each time the device is opened and closed. */
  readonly habits?: PortHabits
  /** Sent to whoever begins to use the port, as Latin-1. */
  readonly banner?: string
  /** A holder that neither sends nor gets a byte for so long loses the port. */
  readonly idleTimeoutMs?: number
  /** At most so many may watch; default and most 16. */
  readonly watchers?: number
  /** See ServeOptions. */
  readonly reset?: ResetProfile
  readonly pack?: Packing
}

/** The peer at the other end of a stream. */
export interface Caller {
  readonly peerId: string
  readonly path?: CallerPath
}

/** How a stream came here. */
export interface CallerPath {
  readonly kind: 'direct' | 'relayed'
  /** A multiaddr. */
  readonly remoteAddress: string
}

/** What a peer does with a port. Settings are as formatSettings() says them, bytes are data alone. */
export type PortEvent = Caller & { readonly port: string } & (
    | { readonly event: 'open'; readonly mode?: 'watch' }
    | { readonly event: 'configure'; readonly from: string; readonly to: string }
    | { readonly event: 'lines'; readonly changed: LinesChanged }
    /** Takes the port from the peer that holds it, whose `close` comes before. */
    | { readonly event: 'steal'; readonly from: string }
    | {
        readonly event: 'close'
        readonly toDevice: number
        readonly fromDevice: number
        readonly durationMs: number
        readonly reason: string
        readonly mode?: 'watch'
        /** Of a watcher: bytes it missed because it was too slow, and bytes it sent in vain. */
        readonly skipped?: number
        readonly ignored?: number
      }
  )

export interface HostedPortStatus {
  readonly name: string
  readonly device: string
  /** `waiting` for the device, `ready` for who wants it, or `open`. */
  readonly state: 'waiting' | 'ready' | 'open'
  /** The PeerID of who holds it. */
  readonly holder?: string
  readonly watchers: number
  /** Of the channel to its holder. */
  readonly roundTripMs?: number
  /** Bytes of data since the port is shared, as all that follows. */
  readonly toDevice: number
  readonly fromDevice: number
  readonly lineErrors: Readonly<LineErrors>
  /** How often the device was opened, */
  readonly opens: number
  /** and how often a peer began to use the port, or to watch it. */
  readonly sessions: { readonly use: number; readonly watch: number }
  /** Bytes that watchers missed because they were too slow. */
  readonly skipped: number
}

export interface HostedPortOptions {
  rights: (peerId: string, port: string) => ReadonlySet<Right>
  nameOf: (peerId: string) => string | undefined
  tell: (event: PortEvent) => void
  /** Shown what passes a port. */
  tap: (port: string, ...passing: Parameters<Tap>) => void
  log: Logger
}

const REPLAY_BYTES = 16 * 1024
/** Of one port; and of one peer, whose programs may come back before their old channels have expired. */
const MAX_WATCHERS = 16
const MAX_WATCHERS_PER_PEER = 4
/** What the bytes of a holder that loses the port get to leave. */
const LAST_BYTES_MS = 500
/** What the last holder's bytes still get, after servePort() has waited for them, before they are thrown away. */
const LAST_DRAIN_MS = 100

/** How often a port that may be idle is looked at, at most. */
const MIN_LOOK_MS = 20

type Mode = Hello['mode']

/** One peer on one port. It outlives its carriers: the channel says when it is over. */
interface Session {
  readonly mode: Mode
  readonly caller: Caller
  readonly channelId: string
  readonly channel: Channel
  readonly port: SerialPort
  readonly ended: Promise<void>
  /** Aborted when somebody waits for the port. */
  readonly hurry: AbortController
  /** Of the newest hello. */
  attempt: number
}

interface Served {
  caller: Caller
  mayReset: boolean
  /** What the client holds by itself is too old after so long; so is what it had sent. */
  staleMs: number
  hurry: AbortSignal
  log: Logger
}

type Hold =
  | { state: 'free' }
  /** The device is being opened, or taken from its last holder. */
  | { state: 'changing'; peerId: string }
  | { state: 'held'; session: Session }

/** A shared port with its holder and its watchers. */
export class HostedPort {
  readonly name: string
  readonly shared: SharedPort
  readonly #line: SharedLine
  readonly #options: HostedPortOptions
  readonly #sessions = new Set<Session>()
  readonly #tap: Tap = (...passing) => this.#options.tap(this.name, ...passing)
  readonly #sessionCounts = { use: 0, watch: 0 }
  /** Of holders that have left, and of those that have not. */
  #toDevice = 0
  readonly #traffic = new Set<Readonly<Traffic>>()
  #skipped = 0
  /** Hellos that wait for the device. */
  readonly #attaching = new Set<Promise<Session>>()
  readonly #closing = new AbortController()
  #hold: Hold = { state: 'free' }
  /** The last channel that lost the port to another peer, which may ask what became of it. */
  #taken: { channelId: string; error: FarportError } | undefined
  /** Peers that were told of the present holder: each asks again and again. */
  readonly #toldBusy = new Set<string>()

  constructor(shared: SharedPort, options: HostedPortOptions) {
    this.name = shared.name
    this.shared = shared
    this.#options = options
    this.#line = new SharedLine(shared.source, {
      replayBytes: shared.replayBytes ?? REPLAY_BYTES,
      maxUsers: MAX_WATCHERS + 2,
      habits: shared.habits ?? {},
      tap: this.#tap,
      onState: (state) =>
        options.log.warn(
          { port: shared.name, device: shared.source.description.path },
          state === 'absent' ? 'the device has gone; waiting for it' : 'the device is back',
        ),
    })
  }

  /** What the peer may know of it: nothing without a right. */
  async list(peerId: string): Promise<Listing | undefined> {
    const may = [...this.#options.rights(peerId, this.name)]
    if (may.length === 0) return undefined
    const { source } = this.shared
    const ghost = this.#hold.state === 'held' && isGhostOf(this.#hold.session, peerId)
    const held = this.#hold.state !== 'free' && !ghost
    const watchers = this.#watchers
    return {
      name: this.name,
      state: held ? 'held' : (this.#isOpen ?? (await source.present())) ? 'free' : 'absent',
      may,
      description: source.description,
      ...(held && { holder: this.#holderFor(peerId, may) }),
      watchers,
    }
  }

  /** How it is, for its owner: nothing is kept back. */
  async status(): Promise<HostedPortStatus> {
    const { name, source } = this.shared
    const open = this.#isOpen ?? (await source.present())
    const used = this.#sessions.size > 0
    return {
      name,
      device: source.description.path,
      state: open ? (used ? 'open' : 'ready') : 'waiting',
      ...(this.#holder !== undefined && { holder: this.#holder }),
      watchers: this.#watchers,
      ...(this.#hold.state === 'held' && roundTripOf(this.#hold.session)),
      toDevice: [...this.#traffic].reduce((sum, { toDevice }) => sum + toDevice, this.#toDevice),
      fromDevice: this.#line.counts.fromDevice,
      lineErrors: { ...this.#line.counts.errors },
      opens: this.#line.counts.opens,
      sessions: { ...this.#sessionCounts },
      skipped: this.#skipped,
    }
  }

  /** How long the way to each peer that is here takes, there and back, where that is known. */
  roundTrips(): { peerId: string; roundTripMs: number }[] {
    return [...this.#sessions].flatMap((session) => {
      const { roundTripMs } = roundTripOf(session)
      return roundTripMs === undefined ? [] : [{ peerId: session.caller.peerId, roundTripMs }]
    })
  }

  /** Puts the stream under the channel that the hello is about. @throws FarportError */
  async attach(stream: Duplex, caller: Caller, hello: Hello): Promise<void> {
    const found = this.#session(caller, hello)
    this.#attaching.add(found)
    const session = await found.finally(() => this.#attaching.delete(found))
    const { attempt = session.attempt + 1, moving = false } = hello
    if (attempt <= session.attempt) {
      // Overtaken on its way here; the client does not wait for an answer to it any more.
      stream.destroy()
      return
    }
    session.attempt = attempt
    const { channel, port } = session
    welcome(stream, {
      received: channel.received,
      description: port.description,
      settings: port.settings,
      outputs: port.outputs,
      lines: port.lines,
    })
    const counts = { peerReceived: hello.received }
    if (moving) channel.reserve(stream, counts)
    else channel.attach(stream, counts)
  }

  /** Whether a refusal because the port is in use is news: who waits for a port asks every few seconds. */
  isFirstBusy(peerId: string): boolean {
    const first = !this.#toldBusy.has(peerId)
    this.#toldBusy.add(peerId)
    return first
  }

  /** Ends every channel that is no longer covered. */
  enforce(): void {
    for (const { mode, caller, channel } of this.#sessions) {
      if (this.#options.rights(caller.peerId, this.name).has(mode)) continue
      this.#options.log.info(
        { peer: caller.peerId, port: this.name, mode },
        'the right to the port was withdrawn',
      )
      channel.destroy(notGranted(this.name))
    }
  }

  /** Ends all channels; resolves when the device is closed. */
  async close(error: FarportError): Promise<void> {
    this.#closing.abort(error)
    const sessions = [...this.#sessions]
    for (const { channel } of sessions) channel.destroy(error)
    await Promise.allSettled(this.#attaching)
    await Promise.all(sessions.map(({ ended }) => ended))
  }

  /** The session a hello is about: the one there is, or a new one. */
  async #session(caller: Caller, hello: Hello): Promise<Session> {
    for (const session of this.#sessions)
      if (
        session.channelId === hello.channel &&
        session.caller.peerId === caller.peerId &&
        session.mode === hello.mode &&
        !session.channel.destroyed
      )
        return session
    if (!hello.fresh) throw this.#isGone(hello)
    return hello.mode === 'watch' ? await this.#watch(caller, hello) : await this.#take(caller, hello)
  }

  #isGone({ channel }: Hello): FarportError {
    if (this.#taken?.channelId === channel) return this.#taken.error
    return new FarportError(
      'ERR_CHANNEL_LOST',
      'the agent no longer has this channel: it was restarted, or the loss took too long',
    )
  }

  async #take(caller: Caller, hello: Hello): Promise<Session> {
    const { peerId } = caller
    if (this.#hold.state === 'held' && isGhostOf(this.#hold.session, peerId))
      await end(this.#hold.session, 'the same peer opened the port anew')
    // Who comes right behind a holder that has closed the port waits while that one's last bytes leave.
    if (this.#hold.state === 'held' && this.#hold.session.channel.destroyed) await gone(this.#hold.session)
    const hold = this.#hold
    const { name } = this
    if (hold.state !== 'free' && !(hello.steal && hold.state === 'held'))
      throw new FarportError(
        'ERR_PORT_BUSY',
        `${name} is in use by ${this.#holderName(peerId)}: try again when it is free`,
      )
    if (hold.state === 'held' && !this.#options.rights(peerId, name).has('steal'))
      throw new FarportError(
        'ERR_NOT_GRANTED',
        `${name} is in use by ${this.#holderName(peerId)}, and this peer may not take it over: its owner can grant it with may=…,steal`,
      )
    const loser = hold.state === 'held' ? hold.session : undefined
    this.#hold = { state: 'changing', peerId }
    let line: LineUse | undefined
    try {
      // Before its holder goes: so the device is not closed in between.
      line = await this.#line.join(this.#closing.signal)
      if (loser !== undefined) await this.#takeFrom(loser, caller)
      this.#checkStill(caller, hello)
      if (line.port.destroyed) throw new FarportError('ERR_DEVICE_ABSENT', 'the device has gone')
      const session = this.#open(caller, hello, line)
      this.#hold = { state: 'held', session }
      return session
    } catch (error) {
      await line?.[Symbol.asyncDispose]()
      const stays = loser !== undefined && this.#sessions.has(loser)
      this.#hold = stays ? { state: 'held', session: loser } : { state: 'free' }
      throw error
    }
  }

  /** The device took its time, and much can have changed. */
  #checkStill({ peerId }: Caller, { mode }: Hello): void {
    this.#closing.signal.throwIfAborted()
    if (!this.#options.rights(peerId, this.name).has(mode)) throw notGranted(this.name)
  }

  async #takeFrom(loser: Session, { peerId, path }: Caller): Promise<void> {
    const who = this.#nameFor(loser.caller.peerId, peerId)
    const error = new FarportError('ERR_PORT_BUSY', `${this.name} was taken over by ${who}`)
    this.#taken = { channelId: loser.channelId, error }
    loser.channel.destroy(error)
    await gone(loser)
    const from = loser.caller.peerId
    this.#options.log.info({ peer: peerId, from, port: this.name }, 'the port was taken over')
    this.#options.tell({ event: 'steal', peerId, ...(path && { path }), port: this.name, from })
  }

  async #watch(caller: Caller, hello: Hello): Promise<Session> {
    const mine = () =>
      [...this.#sessions].filter(
        ({ mode, caller: { peerId } }) => mode === 'watch' && peerId === caller.peerId,
      )
    if (mine().length >= MAX_WATCHERS_PER_PEER) {
      const ghost = mine().find((session) => isGhostOf(session, caller.peerId))
      if (ghost !== undefined) await end(ghost, 'the same peer watches the port anew')
    }
    const line = await this.#line.join(this.#closing.signal)
    try {
      this.#checkStill(caller, hello)
      if (this.#watchers >= (this.shared.watchers ?? MAX_WATCHERS) || mine().length >= MAX_WATCHERS_PER_PEER)
        throw new FarportError(
          'ERR_PORT_BUSY',
          `${this.name} has as many watchers as it can have: try again when one has left`,
        )
      return this.#open(caller, hello, line)
    } catch (error) {
      await line[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Serves the peer from here on. */
  #open(caller: Caller, hello: Hello, line: LineUse): Session {
    const { mode } = hello
    const { peerId } = caller
    const { tell } = this.#options
    const { port } = line
    const log = this.#options.log.child({ peer: peerId, port: this.name, session: randomUUID() })
    const watches = mode === 'watch'
    const hurry = new AbortController()
    const channel = new Channel({
      resumeMs: hello.resumeMs,
      ...(watches && { sendBufferBytes: WATCHER_BEHIND_BYTES }),
    })
    const onError = (error: Error) => log.warn({ err: error }, 'the device failed')
    if (!watches) port.on('error', onError)
    const who = { ...caller, port: this.name, ...(watches && { mode: 'watch' as const }) }
    const openedAt = performance.now()
    this.#sessionCounts[mode]++
    const onSkipped = (bytes: number) => {
      this.#skipped += bytes
    }
    const served = watches
      ? serveWatcher(channel, line, {
          replayBytes: hello.replay ?? Number.MAX_SAFE_INTEGER,
          onSkipped,
          log,
        }).then(({ fromDevice, ...vain }) => ({ toDevice: 0, fromDevice, ...vain }))
      : this.#serve(channel, line, {
          caller,
          mayReset: hello.reset ?? true,
          staleMs: hello.resumeMs,
          hurry: hurry.signal,
          log,
        })
    line.start()
    const ended = served
      .catch((error: unknown) => {
        log.info({ err: error }, 'the channel ended with an error')
        return { toDevice: 0, fromDevice: 0 }
      })
      .then(async (traffic) => {
        port.off('error', onError)
        await line[Symbol.asyncDispose]()
        this.#left(session)
        const durationMs = Math.round(performance.now() - openedAt)
        const reason = channel.errored?.message ?? 'the peer closed it'
        log.info({ ...traffic, mode, reason }, 'port closed')
        tell({ event: 'close', ...who, ...traffic, durationMs, reason })
      })
    const session: Session = {
      mode,
      caller,
      channelId: hello.channel,
      channel,
      port,
      ended,
      hurry,
      attempt: 0,
    }
    this.#sessions.add(session)
    log.info({ device: port.description.path, mode }, 'port opened')
    tell({ event: 'open', ...who })
    return session
  }

  async #serve(channel: Channel, line: LineUse, { caller, mayReset, staleMs, hurry, log }: Served) {
    const { port } = line
    const { reset, pack } = this.shared
    const { rights, tell } = this.#options
    const who = { ...caller, port: this.name }
    const resize = () => {
      channel.window = channelWindow(port.settings.baudRate, channel.roundTripMs)
    }
    port.on('settings', resize)
    channel.on('roundTrip', resize)
    this.#toldBusy.clear()
    const traffic: Traffic = { toDevice: 0, fromDevice: 0 }
    this.#traffic.add(traffic)
    const { banner, idleTimeoutMs } = this.shared
    const idle =
      idleTimeoutMs === undefined ? undefined : watchIdle(traffic, idleTimeoutMs, () => this.#letGo(channel))
    await servePort(channel, port, {
      traffic,
      ...(banner !== undefined && { greeting: Buffer.from(banner, 'latin1') }),
      may: (right) => rights(caller.peerId, this.name).has(right),
      onWrite: (bytes) => this.#tap('toDevice', bytes),
      leaveFlowing: true,
      staleMs,
      hurry,
      ...(reset && mayReset && { reset }),
      ...(pack && { pack }),
      log,
      onConfigured: (inForce, before) => {
        resize()
        const [from, to] = [formatSettings(before), formatSettings(inForce)]
        if (from === to) return
        line.configured(inForce)
        tell({ event: 'configure', ...who, from, to })
      },
      onLinesChanged: (changed) => tell({ event: 'lines', ...who, changed }),
    })
    clearInterval(idle)
    port.off('settings', resize)
    this.#traffic.delete(traffic)
    this.#toDevice += traffic.toDevice
    await leave(port)
    return traffic
  }

  /** Nobody has use of it: others may. Its client is told as if another had taken it, and so does not come back at once. */
  #letGo(channel: Channel): void {
    const session = [...this.#sessions].find((one) => one.channel === channel)
    const error = new FarportError(
      'ERR_PORT_BUSY',
      `${this.name} was let go: no byte came or went for too long`,
    )
    if (session !== undefined) this.#taken = { channelId: session.channelId, error }
    channel.destroy(error)
  }

  #left(session: Session): void {
    this.#sessions.delete(session)
    if (this.#hold.state === 'held' && this.#hold.session === session) this.#hold = { state: 'free' }
  }

  #holderFor(asking: string, may: readonly Right[]): NonNullable<Listing['holder']> {
    const holder = this.#holder
    const name = holder === undefined ? undefined : this.#options.nameOf(holder)
    const told = name !== undefined && (holder === asking || may.includes('steal'))
    return { you: holder === asking, ...(told && { name }) }
  }

  /** Undefined where nobody has it open. A device that is open is not asked whether it is there. */
  get #isOpen(): boolean | undefined {
    const [session] = this.#sessions
    return session && session.port.state === 'open'
  }

  get #holder(): string | undefined {
    if (this.#hold.state === 'held') return this.#hold.session.caller.peerId
    return this.#hold.state === 'changing' ? this.#hold.peerId : undefined
  }

  get #watchers(): number {
    return [...this.#sessions].filter(({ mode }) => mode === 'watch').length
  }

  /** Who holds it, for a peer that does not need to know whom else we know. */
  #holderName(asking: string): string {
    return this.#holder === asking ? 'another program of the same peer' : 'another peer'
  }

  /** What one peer is told another is called. */
  #nameFor(told: string, other: string): string {
    if (told === other) return 'another program of the same peer'
    return this.#options.nameOf(other) ?? 'another peer'
  }
}

/** Calls back once no byte has come or gone for so long. */
function watchIdle(traffic: Readonly<Traffic>, idleMs: number, onIdle: () => void): NodeJS.Timeout {
  let bytes = 0
  let sinceMs = performance.now()
  return setInterval(
    () => {
      const now = traffic.toDevice + traffic.fromDevice
      if (now !== bytes) {
        bytes = now
        sinceMs = performance.now()
      } else if (performance.now() - sinceMs >= idleMs) onIdle()
    },
    Math.max(MIN_LOOK_MS, idleMs / 8),
  ).unref()
}

export function notGranted(port: string): FarportError {
  return new FarportError(
    'ERR_NOT_GRANTED',
    `this peer may not use ${port} there: its owner can grant it with ports=${port} in trusted_peers`,
  )
}

/** A peer whose program died comes back with a new channel: it need not wait for its old one to expire. */
function isGhostOf({ caller, channel }: Session, peerId: string): boolean {
  return caller.peerId === peerId && channel.state === 'detached'
}

function roundTripOf({ channel }: Session): { roundTripMs?: number } {
  const { state, roundTripMs } = channel
  return state === 'attached' && roundTripMs > 0 ? { roundTripMs } : {}
}

async function end({ channel, ended }: Session, why: string): Promise<void> {
  channel.destroy(new FarportError('ERR_CHANNEL_LOST', why))
  await ended
}

/** Resolves when the port is free of a session whose channel is over; its last bytes get so much time and no more. */
async function gone({ ended, hurry }: Session): Promise<void> {
  const impatient = setTimeout(() => hurry.abort(), LAST_BYTES_MS)
  await ended
  clearTimeout(impatient)
}

/** Leaves an open device to whoever comes next: without a break, and without bytes that could not leave in time. */
async function leave(port: SerialPort): Promise<void> {
  if (port.destroyed) return
  try {
    await port.setBreak(false)
    await port
      .drain({ signal: AbortSignal.timeout(LAST_DRAIN_MS) })
      .catch(() => (port.destroyed ? undefined : port.purge('tx')))
  } catch {
    // It failed, and whoever has it hears of that from the port.
  }
}
