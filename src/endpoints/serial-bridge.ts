import { setTimeout as delay } from 'node:timers/promises'
import type { SerialPort } from '../serial/port.ts'
import { type CableOptions, joinPorts } from './cable.ts'
import { LOWERED } from './crossed-lines.ts'
import type { LocalEndpoint, OpenPort } from './endpoint.ts'

export interface SerialBridgeOptions extends CableOptions {
  /** Where the local port is found, for people. */
  path: string
  /** Opens the local port; one that is unplugged later waits for its device by itself. */
  openLocal: OpenPort
  /** Whether the local port may come later. Otherwise it must be there now. */
  wait?: boolean
}

/** Before a lost port is asked for again, so that one that is lost at once does not keep us busy. */
const PAUSE_MS = 250

/**
 * Joins a serial port of this machine to a remote one, like a null-modem cable between what hangs at either. The local port
 * is open all the time. While there is no remote port its DTR and RTS are down, and what comes in is thrown away, as when
 * nothing is plugged in.
 * @param open keeps trying where that makes sense: what it throws ends the bridge
 * @throws FarportError ERR_DEVICE_ABSENT, ERR_PORT_BUSY for the local port, unless it is waited for
 */
export async function bridgeSerial(options: SerialBridgeOptions, open: OpenPort): Promise<LocalEndpoint> {
  const { path, openLocal, wait = false, modemLines, log } = options
  const stop = new AbortController()
  const first = wait ? undefined : await openLocal(stop.signal)
  const ended = bridge()
  // Whoever waits for `ended` is told; a disposal that comes first must not leave the rejection unheard.
  ended.catch(() => {})

  async function bridge(): Promise<void> {
    await using local = first ?? (await openLocal(stop.signal))
    const gone = new AbortController()
    local.on('error', (err) => log.warn({ err }, 'the local port failed'))
    local.once('close', () => gone.abort())
    const until = AbortSignal.any([stop.signal, gone.signal])
    await idle(local)
    while (!until.aborted) {
      await visit(local, until)
      if (!local.destroyed) await idle(local)
      await delay(PAUSE_MS, undefined, { signal: until }).catch(() => {})
    }
    if (local.errored && !stop.signal.aborted) throw local.errored
  }

  /** One remote port, for as long as it lasts. */
  async function visit(local: SerialPort, until: AbortSignal): Promise<void> {
    try {
      await using remote = await open(until)
      remote.on('error', (err) => log.debug({ err }, 'the remote port failed'))
      await joinPorts(local, remote, options, until)
    } catch (error) {
      if (!until.aborted) throw error
    }
  }

  async function idle(local: SerialPort): Promise<void> {
    local.resume()
    if (modemLines) await local.setLines(LOWERED)
  }

  return {
    address: path,
    ended,
    async [Symbol.asyncDispose]() {
      stop.abort()
      await ended.catch(() => {})
    },
  }
}
