import { once } from 'node:events'
import type { Logger } from '../log.ts'
import type { PurgeWhat, SerialPort } from '../serial/port.ts'
import { formatSettings, type SerialSettings } from '../serial/settings.ts'
import type { PtyDevice } from './pty-device.ts'

interface VisitOptions {
  /** Settings that no program changes. */
  line: Readonly<Partial<SerialSettings>>
  /** Whether DTR and RTS rise when programs come and fall when they leave. */
  modemLines: boolean
  log: Logger
}

/**
 * Before this, a program that has just opened the PTY is left alone with its termios: to change them is to read and write
 * them back, and settings that it makes in between would be lost.
 */
const SETTLE_MS = 100

/** How long the last bytes may take after the last close: what Linux allows a closing tty (closing_wait). */
const LINGER_MS = 30_000

/**
 * Gives an open port to the programs that have a PTY open: bytes both ways, their settings and their flushes. Resolves when
 * they have left and what they wrote is out, when the port is lost, or with the signal. The port stays the caller's.
 */
export async function visit(
  device: PtyDevice,
  port: SerialPort,
  options: VisitOptions,
  signal: AbortSignal,
): Promise<void> {
  await new Visit(device, port, options).run(signal)
}

class Visit {
  readonly #device: PtyDevice
  readonly #port: SerialPort
  readonly #options: VisitOptions
  readonly #over = Promise.withResolvers<void>()
  /** Why bytes from programs have to wait. */
  readonly #holds = new Set<'settings' | 'port' | 'leaving'>()
  /** None and even look the same on a PTY. Of the two it is the one that the port had. */
  readonly #hiddenParity: 'none' | 'even'
  #asked: Partial<SerialSettings>
  #raised: boolean | undefined
  /** The settings being brought to the port, and whether they have changed since. */
  #following: { again: boolean } | undefined

  constructor(device: PtyDevice, port: SerialPort, options: VisitOptions) {
    this.#device = device
    this.#port = port
    this.#options = options
    const { parity } = port.settings
    this.#hiddenParity = parity === 'even' ? 'even' : 'none'
    this.#asked = { parity }
  }

  async run(signal: AbortSignal): Promise<void> {
    const { stream } = this.#device
    const port = this.#port
    if (signal.aborted || port.destroyed) return
    const end = () => this.#over.resolve()
    signal.addEventListener('abort', end)
    port.on('close', end)
    const settled = setTimeout(this.#showSettings, SETTLE_MS)
    port.on('settings', this.#showSettings)
    this.#device.on('settings', this.#follow).on('flush', this.#flush).on('state', this.#endIfDone)
    stream.on('data', this.#onProgramData).on('drain', this.#resumeDevice)
    port.on('data', this.#onDeviceData).on('drain', this.#resumePrograms)
    this.#follow()
    try {
      await this.#over.promise
      this.#hold('leaving')
      if (!signal.aborted && !port.destroyed) await this.#leave(signal)
    } finally {
      clearTimeout(settled)
      if (this.#device.state === 'idle') this.#showSettings()
      stream.pause()
      signal.removeEventListener('abort', end)
      port.off('close', end).off('settings', this.#showSettings)
      this.#device.off('settings', this.#follow).off('flush', this.#flush).off('state', this.#endIfDone)
      stream.off('data', this.#onProgramData).off('drain', this.#resumeDevice)
      port.off('data', this.#onDeviceData).off('drain', this.#resumePrograms)
      port.resume()
    }
  }

  readonly #onProgramData = (chunk: Uint8Array): void => {
    if (!this.#port.write(chunk)) this.#hold('port')
    this.#endIfDone()
  }

  readonly #resumePrograms = (): void => this.#release('port')

  readonly #onDeviceData = (chunk: Uint8Array): void => {
    if (!this.#device.write(chunk)) this.#port.pause()
  }

  readonly #resumeDevice = (): void => {
    this.#port.resume()
  }

  #hold(why: 'settings' | 'port' | 'leaving'): void {
    this.#holds.add(why)
    this.#device.stream.pause()
  }

  #release(why: 'settings' | 'port'): void {
    this.#holds.delete(why)
    if (this.#holds.size > 0) return
    this.#device.stream.resume()
    this.#endIfDone()
  }

  readonly #endIfDone = (): void => {
    if (this.#device.vacant && !this.#holds.has('settings')) this.#over.resolve()
  }

  readonly #showSettings = (): void => this.#device.show({ ...this.#port.settings, ...this.#options.line })

  /**
   * Brings settings and lines to what the programs want. Bytes that follow wait for it; bytes before it do not delay it,
   * since a change may be what gets them moving again (flow control turned off).
   */
  readonly #follow = (): void => {
    if (this.#holds.has('leaving')) return
    if (this.#following !== undefined) {
      this.#following.again = true
      return
    }
    const following = { again: false }
    this.#following = following
    this.#hold('settings')
    const apply = async (): Promise<void> => {
      do {
        following.again = false
        await this.#apply()
      } while (following.again)
    }
    apply()
      .catch((err) => {
        if (!this.#port.destroyed) this.#options.log.warn({ err }, 'the port did not take the settings')
      })
      .finally(() => {
        this.#following = undefined
        this.#release('settings')
      })
  }

  async #apply(): Promise<void> {
    const wish = this.#device.wish
    const change = this.#changeTo(wish?.settings)
    if (Object.keys(change).length > 0) {
      this.#asked = { ...this.#asked, ...change }
      this.#report(change, await this.#port.configure(change))
    }
    const raise = wish?.hungUp !== true
    if (this.#options.modemLines && raise !== this.#raised) {
      this.#raised = raise
      await this.#port.setLines({ dtr: raise, rts: raise })
    }
  }

  /** What to ask of the port, beyond what was asked already. What a PTY hides is left as the far end has it. */
  #changeTo(settings: Readonly<Partial<SerialSettings>> = {}): Partial<SerialSettings> {
    const parity = settings.parity ?? (settings.baudRate && this.#hiddenParity)
    const wanted = { ...settings, ...(parity && { parity }), ...this.#options.line }
    return Object.fromEntries(
      Object.entries(wanted).filter(([key, value]) => this.#asked[key as keyof SerialSettings] !== value),
    )
  }

  #report(change: Partial<SerialSettings>, inForce: Readonly<SerialSettings>): void {
    const line = formatSettings(inForce)
    const met = formatSettings({ ...inForce, ...change }) === line
    if (met) this.#options.log.debug({ line }, 'settings changed')
    else this.#options.log.warn({ asked: change, line }, 'the device can not have the settings asked for')
  }

  readonly #flush = (what: PurgeWhat): void => {
    this.#port.purge(what).catch((err) => this.#options.log.debug({ err }, 'purge failed'))
  }

  async #leave(signal: AbortSignal): Promise<void> {
    const port = this.#port
    const until = AbortSignal.any([signal, AbortSignal.timeout(LINGER_MS)])
    try {
      await port.drain({ signal: until })
    } catch (err) {
      if (!port.destroyed && !signal.aborted)
        this.#options.log.warn({ err }, 'the last bytes of a program were not sent')
    }
    const lower = this.#options.modemLines && this.#device.hangUpOnClose
    if (!lower || port.destroyed) return
    const lowered = port
      .setLines({ dtr: false, rts: false })
      .catch((err) => this.#options.log.debug({ err }, 'could not drop the lines'))
    // The far end may be out of reach, and its answer as far away as the channel lives.
    if (!until.aborted) await Promise.race([lowered, once(until, 'abort')])
  }
}
