import type { Link } from '../config/config.ts'
import type { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { LineFormat } from '../serial/line-format.ts'
import type { SerialPort } from '../serial/port.ts'
import { formatSettings } from '../serial/settings.ts'
import { SERIAL_PROTOCOL } from '../session/hello.ts'
import { openRemotePort, type RemoteEvent, type RemoteMeter } from '../session/remote.ts'
import type { Peers } from './peers.ts'

/** A link without its local end. */
export type RemotePortWanted = Omit<Link, 'endpoint' | 'wait'>

export interface RemotePortOptions {
  peers: Peers
  report: (event: RemoteEvent) => void
  /** Another has taken the port over; asked for again, it would be taken back. Without it the port fails with that. */
  onTaken?: (error: FarportError) => void
  /** Kept true while the port is open. */
  meter?: RemoteMeter
  log: Logger
}

/**
 * Opens a port of a peer, with the line it is wanted with.
 * @throws FarportError the agent's refusal, or why it can't be reached; the signal's reason
 */
export async function openWanted(
  wanted: RemotePortWanted,
  { peers, report, onTaken, meter, log }: RemotePortOptions,
  signal: AbortSignal,
): Promise<SerialPort> {
  const { peer, port, resumeMs, mode = 'use', replayBytes, reset = true, line } = wanted
  let opened: SerialPort | undefined
  const remote = await openRemotePort(
    {
      port,
      connect: (attempt) => peers.connect(peer, SERIAL_PROTOCOL, attempt),
      onBestPath: (listener) => peers.onBestPath(peer, listener),
      suspect: (path) => peers.suspect(path),
      resumeMs,
      mode: mode === 'watch' ? 'watch' : 'use',
      steal: mode === 'steal',
      ...(replayBytes !== undefined && { replayBytes }),
      reset,
      onTaken: onTaken ?? ((error) => opened?.destroy(error)),
      report,
      ...(meter && { meter }),
      log,
    },
    signal,
  )
  opened = remote
  try {
    if (line !== undefined) await setLine(remote, line, log)
    signal.throwIfAborted()
  } catch (error) {
    remote.destroy()
    throw error
  }
  const tellSkipped = onceASecond(() => report({ state: 'skipped' }))
  remote.on('lineErrors', ({ overrun }) => {
    if (overrun > 0) tellSkipped()
  })
  return remote
}

/** Nothing is known of the device but this: so it is said when it can't be had, and the port is used all the same. */
async function setLine(port: SerialPort, line: LineFormat, log: Logger): Promise<void> {
  const wanted = formatSettings({ ...port.settings, ...line })
  const inForce = formatSettings(await port.configure(line))
  if (inForce !== wanted)
    log.warn({ asked: wanted, line: inForce }, 'the device can not have the line of this link')
}

function onceASecond(tell: () => void): () => void {
  let lastAt = Number.NEGATIVE_INFINITY
  return () => {
    if (performance.now() - lastAt < 1000) return
    lastAt = performance.now()
    tell()
  }
}
