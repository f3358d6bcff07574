import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../log.ts'
import type { LineErrors, SerialPort } from '../serial/port.ts'
import { formatSettings, type SerialSettings } from '../serial/settings.ts'
import { CrossedLines, type PinMap } from './crossed-lines.ts'
import { forward } from './forward.ts'

export interface CableOptions {
  /** What the local port has whatever the remote one has. */
  line: Readonly<Partial<SerialSettings>>
  /** Whether the inputs of each port drive the outputs of the other. */
  modemLines: boolean
  log: Logger
}

/** As hub4com has them: what the machine at the local port does with its DTR and RTS, the device sees. */
const TO_REMOTE: PinMap = { dtr: ['dsr'], rts: ['cts'] }
/** DCD as well: a null-modem cable leads DTR to both DSR and DCD, so a device that has only one of them is seen. */
const TO_LOCAL: PinMap = { dtr: ['dsr', 'dcd'], rts: ['cts'] }

/** How long a break is made that has come in, since how long that one was is not to be had: as tcsendbreak(3) at least. */
const BREAK_MS = 250

/**
 * Joins two ports back to back: what hangs at the local one is as if it hung at the remote one. Bytes and breaks go both
 * ways, the local port follows the settings of the remote one, and lines are crossed. Resolves when either port closes, or
 * with the signal; the ports stay the caller's.
 */
export async function joinPorts(
  local: SerialPort,
  remote: SerialPort,
  { line, modemLines, log }: CableOptions,
  signal: AbortSignal,
): Promise<void> {
  const over = new AbortController()
  const until = AbortSignal.any([signal, over.signal])
  using lines = new DisposableStack()
  const crossed = modemLines
    ? [
        lines.use(new CrossedLines(local, remote, TO_REMOTE, log)),
        lines.use(new CrossedLines(remote, local, TO_LOCAL, log)),
      ]
    : []

  const follow = () => {
    followSettings(local, { ...remote.settings, ...line }, log)
      .then(() => {
        if (!until.aborted) for (const direction of crossed) direction.update()
      })
      .catch((err) => log.warn({ err }, 'the local port did not take the settings'))
  }
  const onLocalBreak = passBreaks(remote, until, log)
  const onRemoteBreak = passBreaks(local, until, log)
  // What waited for the device that has gone is not for the one that comes back.
  const onLocalState = () => {
    if (local.state === 'absent')
      local.purge('tx').catch((err) => log.debug({ err }, 'could not throw away what was unsent'))
  }
  local.on('lineErrors', onLocalBreak).on('state', onLocalState)
  remote.on('lineErrors', onRemoteBreak).on('settings', follow).on('state', follow)
  follow()
  try {
    const aborted = new Promise<void>((resolve) =>
      signal.addEventListener('abort', () => resolve(), { signal: over.signal }),
    )
    const carried = [forward(local, remote), forward(remote, local, { wanted: () => local.state === 'open' })]
    if (!signal.aborted) await Promise.race([...carried, aborted])
  } finally {
    over.abort()
    local.off('lineErrors', onLocalBreak).off('state', onLocalState)
    remote.off('lineErrors', onRemoteBreak).off('settings', follow).off('state', follow)
  }
}

async function followSettings(
  port: SerialPort,
  wanted: Readonly<SerialSettings>,
  log: Logger,
): Promise<void> {
  const asked = formatSettings(wanted)
  if (port.destroyed || formatSettings(port.settings) === asked) return
  const inForce = formatSettings(await port.configure(wanted))
  if (inForce === asked) log.debug({ line: inForce }, 'the local port follows the remote one')
  else log.warn({ asked, line: inForce }, 'the local port can not have the settings of the remote one')
}

/** Breaks that come while one is being made are part of it. Bytes wait until it is over, as they do in the kernel. */
function passBreaks(to: SerialPort, until: AbortSignal, log: Logger): (errors: LineErrors) => void {
  let breaking = false
  const make = async () => {
    to.cork()
    try {
      await to.setBreak(true)
      await delay(BREAK_MS, undefined, { signal: until }).catch(() => {})
      if (!to.destroyed) await to.setBreak(false)
    } finally {
      to.uncork()
    }
  }
  return (errors) => {
    if (errors.break === 0 || breaking || to.destroyed) return
    breaking = true
    make()
      .catch((err) => log.debug({ err }, 'a break was not passed on'))
      .finally(() => {
        breaking = false
      })
  }
}
