import type { Channel } from '../channel/channel.ts'
import type { Logger } from '../log.ts'
import type { SerialPort } from '../serial/port.ts'
import { formatSettings } from '../serial/settings.ts'
import { type ServeOptions, servePort, type Traffic } from './serve.ts'
import type { LineUse } from './shared-line.ts'
import type { SharedPort } from './shared-port.ts'
import { channelWindow } from './window.ts'

/** What the last holder's bytes still get, after servePort() has waited for them, before they are thrown away. */
const LAST_DRAIN_MS = 100
/** How often a port that may be idle is looked at, at most. */
const MIN_LOOK_MS = 20

interface HolderOptions extends Pick<ServeOptions, 'may' | 'onWrite' | 'onLinesChanged'> {
  readonly shared: Pick<SharedPort, 'reset' | 'pack' | 'banner' | 'idleTimeoutMs'>
  /** Whether the peer wants the port's reset sequence to be run here. */
  readonly mayReset: boolean
  /** What the client holds by itself is too old after so long; so is what it had sent. */
  readonly staleMs: number
  /** Somebody waits for the port. */
  readonly hurry: AbortSignal
  /** Told of settings that are other ones now, as formatSettings() says them. */
  readonly onConfigured: (from: string, to: string) => void
  /** No byte has come or gone for the port's `idleTimeoutMs`. */
  readonly onIdle: () => void
  readonly log: Logger
}

/**
 * Gives an open device to the peer that holds it, and leaves it to whoever comes next: open, flowing, and without what the
 * peer left behind. Resolves when the channel is over.
 */
export async function serveHolder(channel: Channel, line: LineUse, options: HolderOptions): Promise<Traffic> {
  const { shared, mayReset, may, onWrite, onLinesChanged, staleMs, hurry, log } = options
  const { reset, pack, banner, idleTimeoutMs } = shared
  const { port } = line
  const traffic: Traffic = { toDevice: 0, fromDevice: 0 }
  const resize = () => {
    channel.window = channelWindow(port.settings.baudRate, channel.roundTripMs)
  }
  port.on('settings', resize)
  channel.on('roundTrip', resize)
  const idle = idleTimeoutMs === undefined ? undefined : watchIdle(traffic, idleTimeoutMs, options.onIdle)
  await servePort(channel, port, {
    ...{ traffic, may, staleMs, hurry, leaveFlowing: true, log },
    ...(onWrite && { onWrite }),
    ...(onLinesChanged && { onLinesChanged }),
    ...(banner !== undefined && { greeting: Buffer.from(banner, 'latin1') }),
    ...(reset && mayReset && { reset }),
    ...(pack && { pack }),
    onConfigured: (inForce, before) => {
      resize()
      const [from, to] = [formatSettings(before), formatSettings(inForce)]
      if (from === to) return
      line.configured(inForce)
      options.onConfigured(from, to)
    },
  })
  clearInterval(idle)
  port.off('settings', resize)
  await leave(port)
  return traffic
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
