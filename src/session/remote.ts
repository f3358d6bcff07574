import type { Channel } from '../channel/channel.ts'
import type { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { SerialPort } from '../serial/port.ts'
import type { Conversation } from './conversation.ts'
import { type CarrierPath, ChannelKeeper, type KeeperOptions, type Welcomed } from './keeper.ts'
import { type Outlet, Rfc2217Port } from './rfc2217-port.ts'
import type { Traffic } from './serve.ts'
import { channelWindow } from './window.ts'

export type RemoteEvent =
  | { state: 'up'; path?: CarrierPath['kind'] }
  /** Now on another path, without a pause; that one's round trip. */
  | { state: 'moved'; path?: CarrierPath['kind']; roundTripMs: number }
  /** Another carrier, or another channel, is being looked for. */
  | { state: 'down'; reason: string }
  /** The agent is there, its device is not: it was unplugged. `up` when it is back. */
  | { state: 'absent' }
  /** Bytes that may not have reached the device in time: those nobody acknowledged, commands among them. */
  | { state: 'dropped'; bytes: number }
  /** Bytes of the device did not get here: a watcher was too slow, or the device itself overran. */
  | { state: 'skipped' }

/** What goes over a port that is used here. */
export interface RemoteMeter extends Traffic {
  /** Of the present channel, once it was measured. */
  roundTripMs?: number
}

export interface RemotePortOptions extends KeeperOptions {
  report: (event: RemoteEvent) => void
  /** Kept true as bytes pass, for whoever wants to know meanwhile. */
  meter?: RemoteMeter
  log: Logger
}

/**
 * Opens a port of a peer. From then on it is a serial port like any other: lost carriers, and an agent that is restarted,
 * are mended below it, with settings and lines restored.
 * @throws FarportError the agent's refusal, or why it can't be reached
 */
export async function openRemotePort(options: RemotePortOptions, signal: AbortSignal): Promise<SerialPort> {
  const { resumeMs, report, meter = { toDevice: 0, fromDevice: 0 }, log } = options
  let keeper: ChannelKeeper | undefined
  let current: Channel | undefined
  let kind: ReturnType<typeof kindOf> = {}
  let deviceThere = true

  const port = new Rfc2217Port({
    holdMs: resumeMs,
    onDropped: (bytes) => report({ state: 'dropped', bytes }),
    onSettings: resizeWindow,
    onDevice,
    onClosing: () => keeper?.stop(),
    traffic: meter,
    log,
  })

  function opened(channel: Channel, { welcome, path }: Welcomed): void {
    if (port.destroyed) {
      channel.destroy()
      return
    }
    current = channel
    channel.on('attach', resizeWindow).on('roundTrip', resizeWindow)
    channel.on('roundTrip', (ms: number) => {
      meter.roundTripMs = ms
    })
    kind = kindOf(path)
    report({ state: 'up', ...kind })
    const conversation = port.converse(channel)
    port.begin(conversation, channelOutlet(channel, conversation), welcome)
  }

  function onDevice(there: boolean): void {
    deviceThere = there
    log.info({ port: options.port }, there ? 'the device is back' : 'the agent has lost the device')
    report(there ? { state: 'up', ...kind } : { state: 'absent' })
  }

  /** How the carrier is says nothing of the device. */
  function reportCarrier(path: CarrierPath | undefined, event: RemoteEvent): void {
    kind = kindOf(path)
    report(event)
    if (!deviceThere) report({ state: 'absent' })
  }

  function resizeWindow(): void {
    if (current !== undefined) current.window = channelWindow(port.settings.baudRate, current.roundTripMs)
  }

  function lost(error: FarportError, unacknowledged: number): void {
    current = undefined
    deviceThere = true
    delete meter.roundTripMs
    log.warn({ err: error, unacknowledged }, 'the channel is lost')
    report({ state: 'down', reason: error.message })
    if (unacknowledged > 0) report({ state: 'dropped', bytes: unacknowledged })
    port.lose()
  }

  keeper = await ChannelKeeper.open(
    options,
    {
      opened,
      lost,
      down: (reason) => report({ state: 'down', reason }),
      up: ({ path }) => reportCarrier(path, { state: 'up', ...kindOf(path) }),
      moved: ({ path, roundTripMs }) =>
        reportCarrier(path, { state: 'moved', ...kindOf(path), roundTripMs: Math.round(roundTripMs) }),
      stayed: (error) => log.debug({ err: error }, 'could not move to the better path'),
    },
    signal,
  )
  return port
}

/** The channel keeps what is on its way by itself, and tells the agent what a purge is about ahead of it. */
function channelOutlet(channel: Channel, conversation: Conversation): Outlet {
  return {
    write: (bytes, done) => void channel.write(conversation.data(bytes), () => done()),
    purge: () => channel.mark(),
    resume: () => {},
    get unconfirmedBytes() {
      return channel.unacknowledged
    },
    end: (done) => {
      channel.once('close', done)
      channel.end()
    },
  }
}

function kindOf(path: CarrierPath | undefined): { path?: CarrierPath['kind'] } {
  return path === undefined ? {} : { path: path.kind }
}
