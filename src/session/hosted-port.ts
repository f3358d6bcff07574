import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { LineErrors } from '../serial/port.ts'
import type { Right } from '../trust/grants.ts'
import type { Hello } from './hello.ts'
import { serveHolder } from './holder.ts'
import { Lease } from './lease.ts'
import type { Listing } from './listing.ts'
import type { Caller, PortEvent } from './port-event.ts'
import { PortSession, type Serve } from './port-session.ts'
import { type LineUse, SharedLine, type Tap } from './shared-line.ts'
import type { SharedPort } from './shared-port.ts'
import { serveWatcher } from './watcher.ts'

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

/** A shared port with its holder and its watchers. */
export class HostedPort {
  readonly name: string
  readonly shared: SharedPort
  readonly #line: SharedLine
  readonly #lease: Lease
  readonly #options: HostedPortOptions
  readonly #sessions = new Set<PortSession>()
  /** Hellos that wait for the device. */
  readonly #attaching = new Set<Promise<PortSession>>()
  readonly #counts = { toDevice: 0, skipped: 0, sessions: { use: 0, watch: 0 } }
  readonly #closing = new AbortController()

  constructor(shared: SharedPort, options: HostedPortOptions) {
    const { name } = shared
    this.name = name
    this.shared = shared
    this.#options = options
    this.#line = new SharedLine(shared.source, {
      replayBytes: shared.replayBytes ?? REPLAY_BYTES,
      maxUsers: MAX_WATCHERS + 2,
      habits: shared.habits ?? {},
      tap: (...passing) => options.tap(name, ...passing),
      onState: (state) =>
        options.log.warn(
          { port: name, device: shared.source.description.path },
          state === 'absent' ? 'the device has gone; waiting for it' : 'the device is back',
        ),
    })
    this.#lease = new Lease(name, {
      mayTakeOver: (peerId) => this.#may(peerId, 'steal'),
      ...{ nameOf: options.nameOf, tell: options.tell, log: options.log },
    })
  }

  /** What the peer may know of it: nothing without a right. */
  async list(peerId: string): Promise<Listing | undefined> {
    const may = [...this.#options.rights(peerId, this.name)]
    if (may.length === 0) return undefined
    const holder = this.#lease.holderFor(peerId, may)
    const watchers = this.#watchers().length
    const { description } = this.shared.source
    const state = holder !== undefined ? 'held' : (await this.#isThere()) ? 'free' : 'absent'
    return { name: this.name, state, may, description, ...(holder && { holder }), watchers }
  }

  /** How it is, for its owner: nothing is kept back. */
  async status(): Promise<HostedPortStatus> {
    const isThere = await this.#isThere()
    const { holder } = this.#lease
    const roundTripMs = this.#lease.session?.roundTripMs
    const { fromDevice, errors, opens } = this.#line.counts
    const { toDevice, skipped, sessions } = this.#counts
    return {
      name: this.name,
      device: this.shared.source.description.path,
      state: !isThere ? 'waiting' : this.#sessions.size > 0 ? 'open' : 'ready',
      ...(holder !== undefined && { holder }),
      watchers: this.#watchers().length,
      ...(roundTripMs !== undefined && { roundTripMs }),
      ...{ toDevice, fromDevice, lineErrors: { ...errors }, opens, sessions: { ...sessions }, skipped },
    }
  }

  /** How long the way to each peer that is here takes, there and back, where that is known. */
  roundTrips(): { peerId: string; roundTripMs: number }[] {
    return [...this.#sessions].flatMap(({ caller: { peerId }, roundTripMs }) =>
      roundTripMs === undefined ? [] : [{ peerId, roundTripMs }],
    )
  }

  /** Puts the stream under the channel that the hello is about. @throws FarportError */
  async attach(stream: Duplex, caller: Caller, hello: Hello): Promise<void> {
    const found = this.#session(caller, hello)
    this.#attaching.add(found)
    const session = await found.finally(() => this.#attaching.delete(found))
    session.attach(stream, hello)
  }

  /** Whether a refusal because the port is in use is news. */
  isFirstBusy(peerId: string): boolean {
    return this.#lease.isFirstBusy(peerId)
  }

  /** Ends every session that is no longer covered. */
  enforce(): void {
    for (const session of this.#sessions) {
      const { caller, mode } = session
      if (this.#may(caller.peerId, mode)) continue
      this.#options.log.info(
        { peer: caller.peerId, port: this.name, mode },
        'the right to the port was withdrawn',
      )
      void session.end(notGranted(this.name))
    }
  }

  /** Ends all sessions; resolves when the device is closed. */
  async close(error: FarportError): Promise<void> {
    this.#closing.abort(error)
    const ending = [...this.#sessions].map((session) => session.end(error))
    await Promise.allSettled(this.#attaching)
    await Promise.all(ending)
  }

  /** The session a hello is about: the one there is, or a new one. */
  async #session(caller: Caller, hello: Hello): Promise<PortSession> {
    for (const session of this.#sessions) if (session.isFor(caller, hello)) return session
    if (!hello.fresh) throw this.#lease.whyLost(hello.channel) ?? channelIsLost()
    switch (hello.mode) {
      case 'use':
        return await this.#use(caller, hello)
      case 'watch':
        return await this.#watch(caller, hello)
    }
  }

  async #use(caller: Caller, hello: Hello): Promise<PortSession> {
    using claim = await this.#lease.claim(caller, hello)
    await using undo = new AsyncDisposableStack()
    // Before its holder goes: so the device is not closed in between.
    const line = undo.use(await this.#line.join(this.#closing.signal))
    await claim.evict()
    this.#checkStill(caller, hello)
    if (line.port.destroyed) throw new FarportError('ERR_DEVICE_ABSENT', 'the device has gone')
    const session = this.#open(caller, hello, line, this.#holding(caller, hello, line))
    undo.move()
    claim.hold(session)
    return session
  }

  async #watch(caller: Caller, hello: Hello): Promise<PortSession> {
    const { peerId } = caller
    if (this.#watchers(peerId).length >= MAX_WATCHERS_PER_PEER)
      await this.#watchers(peerId)
        .find((session) => session.isGhostOf(peerId))
        ?.end(new FarportError('ERR_CHANNEL_LOST', 'the same peer watches the port anew'))
    await using undo = new AsyncDisposableStack()
    const line = undo.use(await this.#line.join(this.#closing.signal))
    this.#checkStill(caller, hello)
    const atMost = this.shared.watchers ?? MAX_WATCHERS
    if (this.#watchers().length >= atMost || this.#watchers(peerId).length >= MAX_WATCHERS_PER_PEER)
      throw new FarportError(
        'ERR_PORT_BUSY',
        `${this.name} has as many watchers as it can have: try again when one has left`,
      )
    const session = this.#open(caller, hello, line, this.#watching(hello, line))
    undo.move()
    return session
  }

  /** The device took its time, and much can have changed. */
  #checkStill({ peerId }: Caller, { mode }: Hello): void {
    this.#closing.signal.throwIfAborted()
    if (!this.#may(peerId, mode)) throw notGranted(this.name)
  }

  #open(caller: Caller, hello: Hello, line: LineUse, serve: Serve): PortSession {
    const { tell, log } = this.#options
    const session: PortSession = new PortSession({
      ...{ port: this.name, caller, hello, line, serve, tell, log },
      onGone: () => {
        this.#sessions.delete(session)
        this.#lease.release(session)
      },
    })
    this.#sessions.add(session)
    this.#counts.sessions[hello.mode]++
    return session
  }

  #holding(caller: Caller, { resumeMs, reset: mayReset = true }: Hello, line: LineUse): Serve {
    const { shared } = this
    const { tap, tell } = this.#options
    const who = { ...caller, port: this.name }
    return ({ channel, ...served }) =>
      serveHolder(channel, line, {
        ...{ ...served, shared, mayReset, staleMs: resumeMs },
        may: (right) => this.#may(caller.peerId, right),
        onWrite: (bytes) => {
          this.#counts.toDevice += bytes.length
          tap(this.name, 'toDevice', bytes)
        },
        onConfigured: (from, to) => tell({ event: 'configure', ...who, from, to }),
        onLinesChanged: (changed) => tell({ event: 'lines', ...who, changed }),
        onIdle: () => this.#lease.letGo('no byte came or went for too long'),
      })
  }

  #watching({ replay = Number.MAX_SAFE_INTEGER }: Hello, line: LineUse): Serve {
    const onSkipped = (bytes: number) => {
      this.#counts.skipped += bytes
    }
    return async ({ channel, log }) => {
      const watched = await serveWatcher(channel, line, { replayBytes: replay, onSkipped, log })
      return { toDevice: 0, ...watched }
    }
  }

  #may(peerId: string, right: Right): boolean {
    return this.#options.rights(peerId, this.name).has(right)
  }

  /** Those of one peer, or all. */
  #watchers(of?: string): PortSession[] {
    return [...this.#sessions].filter(
      ({ mode, caller: { peerId } }) => mode === 'watch' && (of === undefined || of === peerId),
    )
  }

  /** Whether the device is. One that is open is not looked for. */
  async #isThere(): Promise<boolean> {
    const [session] = this.#sessions
    return session === undefined ? await this.shared.source.present() : session.hasDevice
  }
}

function channelIsLost(): FarportError {
  return new FarportError(
    'ERR_CHANNEL_LOST',
    'the agent no longer has this channel: it was restarted, or the loss took too long',
  )
}

export function notGranted(port: string): FarportError {
  return new FarportError(
    'ERR_NOT_GRANTED',
    `this peer may not use ${port} there: its owner can grant it with ports=${port} in trusted_peers`,
  )
}
