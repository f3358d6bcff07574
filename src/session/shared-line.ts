import type { LineErrors, PortSource, PortState, SerialPort } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'
import { closeBy, openBy, type PortHabits } from './port-habits.ts'
import { Replay } from './replay.ts'

type OnSettings = (settings: Readonly<SerialSettings>) => void

/** Somebody's part in an open device. Disposing of the last one closes the device. */
export interface LineUse extends AsyncDisposable {
  readonly port: SerialPort
  /** What the device has sent since it was opened. */
  readonly replay: Replay
  /** Lets the device's bytes flow. Whoever wants the first of them listens before. */
  start(): void
  /** Tells who asked `onConfigured` of settings made by a user: the port is silent about what it was told to do. */
  configured: OnSettings
  /** The answer ends it. */
  onConfigured(listener: OnSettings): () => void
}

interface SharedLineOptions {
  replayBytes: number
  maxUsers: number
  habits: PortHabits
  /** Told when the open device goes away, and when it is back. */
  onState: (state: PortState) => void
  /** Shown what passes. */
  tap: Tap
}

/** Shown the bytes of a device, as they come from it and go to it. They may change once it returns. */
export type Tap = (direction: 'fromDevice' | 'toDevice', bytes: Uint8Array) => void

/** What the device did since the line was made, whoever used it. Only ever rises. */
export interface LineCounts {
  /** Bytes it has sent while it was open. */
  fromDevice: number
  opens: number
  readonly errors: LineErrors
}

const LINE_ERRORS = ['framing', 'parity', 'overrun', 'break'] as const

/** What one user listens to on the port, generously. */
const LISTENERS_PER_USER = 3

/**
 * One device that several use at a time: opened for the first, closed behind the last. Whoever comes while another is there
 * gets it as it is, because opening a device can reset the board behind it.
 */
export class SharedLine {
  readonly counts: LineCounts = {
    fromDevice: 0,
    opens: 0,
    errors: { framing: 0, parity: 0, overrun: 0, break: 0 },
  }
  readonly #source: PortSource
  readonly #options: SharedLineOptions
  #device: Promise<OpenDevice> | undefined

  constructor(source: PortSource, options: SharedLineOptions) {
    this.#source = source
    this.#options = options
  }

  /** @throws FarportError as PortSource.open() does */
  async join(signal: AbortSignal): Promise<LineUse> {
    for (;;) {
      this.#device ??= this.#open(signal)
      const opening = this.#device
      const forget = () => {
        if (this.#device === opening) this.#device = undefined
      }
      let device: OpenDevice
      try {
        device = await opening
      } catch (error) {
        forget()
        throw error
      }
      const use = device.use()
      if (use !== undefined) return use
      await device.closed
      forget()
    }
  }

  async #open(signal: AbortSignal): Promise<OpenDevice> {
    const { replayBytes, maxUsers, habits, onState, tap } = this.#options
    const port = await openBy(habits, this.#source, signal)
    if (habits.openString) tap('toDevice', Buffer.from(habits.openString, 'latin1'))
    port.on('state', onState)
    port.setMaxListeners(LISTENERS_PER_USER * maxUsers)
    return new OpenDevice(port, new Replay(replayBytes), habits, this.counts, tap)
  }
}

class OpenDevice {
  readonly closed: Promise<void>
  readonly #port: SerialPort
  readonly #replay: Replay
  readonly #habits: PortHabits
  readonly #uses = new Set<LineUse>()
  readonly #listeners = new Set<OnSettings>()
  readonly #counts: LineCounts
  readonly #tap: Tap
  readonly #keep = (bytes: Uint8Array) => {
    this.#counts.fromDevice += bytes.length
    this.#replay.push(bytes)
    this.#tap('fromDevice', bytes)
  }
  #started = false
  #closing = false

  constructor(port: SerialPort, replay: Replay, habits: PortHabits, counts: LineCounts, tap: Tap) {
    this.#port = port
    this.#replay = replay
    this.#habits = habits
    this.#counts = counts
    this.#tap = tap
    counts.opens++
    this.closed = new Promise((resolve) => port.once('close', () => resolve()))
    // Its users hear of it, too; between two of them a failure must not end the process.
    port.on('error', () => {})
    port.on('lineErrors', (errors) => {
      for (const kind of LINE_ERRORS) counts.errors[kind] += errors[kind]
    })
  }

  /** Undefined when the device is on its way out. */
  use(): LineUse | undefined {
    if (this.#closing || this.#port.destroyed) return undefined
    const use: LineUse = {
      port: this.#port,
      replay: this.#replay,
      start: () => {
        if (this.#started) return
        this.#started = true
        this.#port.on('data', this.#keep)
      },
      configured: (settings) => {
        for (const listener of this.#listeners) listener(settings)
      },
      onConfigured: (listener) => {
        this.#listeners.add(listener)
        return () => void this.#listeners.delete(listener)
      },
      [Symbol.asyncDispose]: async () => {
        if (this.#uses.delete(use) && this.#uses.size === 0) await this.#close()
      },
    }
    this.#uses.add(use)
    return use
  }

  async #close(): Promise<void> {
    this.#closing = true
    const { closeString } = this.#habits
    if (closeString && !this.#port.destroyed) this.#tap('toDevice', Buffer.from(closeString, 'latin1'))
    await closeBy(this.#habits, this.#port)
  }
}
