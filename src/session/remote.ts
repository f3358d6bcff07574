import type { Channel } from '../channel/channel.ts'
import type { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { SerialPort } from '../serial/port.ts'
import type { Conversation } from './conversation.ts'
import { type CarrierPath, ChannelKeeper, type KeeperOptions, type Welcomed } from './keeper.ts'
import { type Outlet, Rfc2217Port } from './rfc2217-port.ts'
import { channelWindow } from './window.ts'

export type RemoteEvent =
  | { state: 'up'; path?: CarrierPath['kind'] }
  /** Now on another path, without a pause; that one's round trip. */
  | { state: 'moved'; path?: CarrierPath['kind']; roundTripMs: number }
  /** Another carrier, or another channel, is being looked for. */
  | { state: 'down'; reason: string }
  /** Bytes that may not have reached the device in time: those nobody acknowledged, commands among them. */
  | { state: 'dropped'; bytes: number }
  /** Bytes of the device did not get here: a watcher was too slow, or the device itself overran. */
  | { state: 'skipped' }

export interface RemotePortOptions extends KeeperOptions {
  report: (event: RemoteEvent) => void
  log: Logger
}

/**
 * Opens a port of a peer. From then on it is a serial port like any other: lost carriers, and an agent that is restarted,
 * are mended below it, with settings and lines restored.
 * @throws FarportError the agent's refusal, or why it can't be reached
 */
export async function openRemotePort(options: RemotePortOptions, signal: AbortSignal): Promise<SerialPort> {
  const { resumeMs, report, log } = options
  let keeper: ChannelKeeper | undefined
  let current: Channel | undefined

  const port = new Rfc2217Port({
    holdMs: resumeMs,
    onDropped: (bytes) => report({ state: 'dropped', bytes }),
    onSettings: resizeWindow,
    onClosing: () => keeper?.stop(),
    log,
  })

  function opened(channel: Channel, { welcome, path }: Welcomed): void {
    if (port.destroyed) {
      channel.destroy()
      return
    }
    current = channel
    channel.on('attach', resizeWindow).on('roundTrip', resizeWindow)
    report({ state: 'up', ...kindOf(path) })
    const conversation = port.converse(channel)
    port.begin(conversation, channelOutlet(channel, conversation), welcome)
  }

  function resizeWindow(): void {
    if (current !== undefined) current.window = channelWindow(port.settings.baudRate, current.roundTripMs)
  }

  function lost(error: FarportError, unacknowledged: number): void {
    current = undefined
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
      up: ({ path }) => report({ state: 'up', ...kindOf(path) }),
      moved: ({ path, roundTripMs }) =>
        report({ state: 'moved', ...kindOf(path), roundTripMs: Math.round(roundTripMs) }),
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
