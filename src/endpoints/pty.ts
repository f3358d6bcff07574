import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { SerialPort } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'
import { accountId } from './account-id.ts'
import type { LocalEndpoint, OpenPort } from './endpoint.ts'
import { type PtyAccess, PtyDevice } from './pty-device.ts'
import { placeLink, removeLink } from './pty-link.ts'
import { visit } from './pty-visit.ts'

export interface PtyOptions {
  /** Where programs find the virtual port: a symlink, made now and removed at the end. */
  link: string
  /** Who may open it, as a file mode. Default 0o660. */
  mode?: number
  /** The user it belongs to, by name or number; only root may give it to another. Default the one that runs farport. */
  owner?: string
  /** The group that `mode` is about, by name or number. Default as the system makes PTYs, often `tty`. */
  group?: string
  /**
   * Settings that stay whatever programs ask for. A PTY can't carry data bits, nor even parity: a device that needs 7E1
   * gets it from here.
   */
  line?: Partial<SerialSettings>
  /** Whether the port is open only while a program has the PTY open. Default `on-open`. */
  openRemote?: 'on-open' | 'always'
  /** Whether DTR and RTS rise when a program comes and fall when the last one leaves. Default true. */
  modemLines?: boolean
  log: Logger
}

const FIRST_RETRY_MS = 250
const LAST_RETRY_MS = 10_000
/** How long bytes of a program that has left may wait for the port: a machine must not get yesterday's commands. */
const HOLD_MS = 30_000
/** How long a port may take to close in an orderly way. */
const CLOSE_TIMEOUT_MS = 2_000

/**
 * Makes a local virtual serial port (a PTY) that stands for a port. The PTY outlives programs and lost ports: what programs
 * write while there is no port is held, in the kernel and in a bounded buffer, and then holds them up.
 *
 * A program that sets nothing gets the line as the far end has it. What one does set stays for those that come after, as
 * on a real port: `stty -F link 9600; cat link` works.
 * @throws FarportError ERR_IN_USE or ERR_USAGE for the link, ERR_UNFIT where there are no such PTYs
 */
export async function createPtyEndpoint(options: PtyOptions, open: OpenPort): Promise<LocalEndpoint> {
  const { link, mode = 0o660, owner, group, line = {}, modemLines = true, log } = options
  const always = options.openRemote === 'always'
  const stop = new AbortController()
  const { signal } = stop
  const device = makeDevice({
    mode,
    ...(owner !== undefined && { ownerId: accountId('user', owner) }),
    ...(group !== undefined && { groupId: accountId('group', group) }),
  })
  try {
    placeLink(link, device.path)
  } catch (error) {
    await device[Symbol.asyncDispose]()
    throw error
  }

  async function serve(): Promise<void> {
    while (!signal.aborted) {
      if (!always) await programsCome(device, signal)
      const port = signal.aborted ? undefined : await reachPort()
      if (port === undefined) continue
      const lost = new AbortController()
      port.once('close', () => lost.abort())
      const over = AbortSignal.any([signal, lost.signal])
      do {
        if (always) await programsCome(device, over)
        await visit(device, port, { line, modemLines, log }, over)
      } while (always && !over.aborted)
      if (lost.signal.aborted) {
        log.warn(
          { lostBytes: port.writableLength },
          'lost the port; the PTY stays, and the port is opened again',
        )
        await delay(FIRST_RETRY_MS, undefined, { signal }).catch(() => {})
      } else await closePort(port, signal)
    }
  }

  /** Opens the port, however long it takes. Answers nothing when no program waits for it any more. */
  async function reachPort(): Promise<SerialPort | undefined> {
    const givenUp = new AbortController()
    const until = AbortSignal.any([signal, givenUp.signal])
    let hold: NodeJS.Timeout | undefined
    const onState = () => {
      clearTimeout(hold)
      if (device.state === 'idle' && !(always && device.vacant)) hold = setTimeout(giveUp, HOLD_MS)
    }
    const giveUp = () => {
      const lostBytes = device.stream.readableLength
      if (lostBytes > 0)
        log.warn({ lostBytes }, 'threw away what a program wrote: the port did not open in time')
      device.stream.discardUnread()
      if (!always) givenUp.abort()
    }
    device.on('state', onState)
    onState()
    try {
      for (let retryMs = FIRST_RETRY_MS; ; retryMs = Math.min(2 * retryMs, LAST_RETRY_MS)) {
        try {
          const port = await open(until)
          port.on('error', (err) => log.warn({ err }, 'the port failed'))
          // Until a program takes it, what comes is thrown away, as a closed tty does.
          port.resume()
          return port
        } catch (err) {
          if (until.aborted) return undefined
          log[retryMs === FIRST_RETRY_MS ? 'warn' : 'debug']({ err, retryMs }, 'could not open the port')
        }
        await delay(retryMs, undefined, { signal: until }).catch(() => {})
        if (!always && device.vacant) givenUp.abort()
        if (until.aborted) return undefined
      }
    } finally {
      clearTimeout(hold)
      device.off('state', onState)
    }
  }

  device.on('moved', (from) => {
    log.debug({ link, from, path: device.path }, 'a program left the PTY locked: replaced it')
    try {
      placeLink(link, device.path, from)
    } catch (err) {
      log.error({ err, path: device.path }, 'the link could not follow the PTY')
    }
  })
  device.on('locked', (err) =>
    log.error({ err, link }, 'a program left the PTY locked, and no other can be made'),
  )
  const ended = serve()
  // Whoever waits for `ended` is told; a disposal that comes first must not leave the rejection unheard.
  ended.catch((err) => log.error({ err, link }, 'the PTY can not go on'))
  log.debug({ link, path: device.path }, 'PTY made')

  return {
    address: link,
    ended,
    async [Symbol.asyncDispose]() {
      stop.abort()
      await ended.catch(() => {})
      removeLink(link, device.path)
      await device[Symbol.asyncDispose]()
    },
  }
}

function makeDevice(access: PtyAccess): PtyDevice {
  try {
    return new PtyDevice(access)
  } catch (cause) {
    if (cause instanceof FarportError) throw cause
    throw new FarportError('ERR_UNFIT', `can't make a virtual serial port: ${(cause as Error).message}`, {
      cause,
    })
  }
}

/** Resolves when a program has the PTY open or has left bytes in it, or with the signal. */
async function programsCome(device: PtyDevice, signal: AbortSignal): Promise<void> {
  while (device.vacant && !signal.aborted) await once(device, 'state', { signal }).catch(() => {})
}

async function closePort(port: SerialPort, signal: AbortSignal): Promise<void> {
  if (!signal.aborted) {
    port.end()
    const patience = AbortSignal.any([signal, AbortSignal.timeout(CLOSE_TIMEOUT_MS)])
    await once(port, 'close', { signal: patience }).catch(() => {})
  }
  await port[Symbol.asyncDispose]().catch(() => {})
}
