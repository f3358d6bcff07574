import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../log.ts'
import type { Rfc2217Server } from '../rfc2217/server.ts'
import type { ServerRequest } from '../rfc2217/server-request.ts'
import type { ResetProfile } from '../serial/line-sequence.ts'
import { LineSequencer } from '../serial/line-sequencer.ts'
import type { OutputLines, SerialPort } from '../serial/port.ts'
import { formatSettings, type SerialSettings } from '../serial/settings.ts'

/** What is done among the data, in its place: a purge is not. `break` is IAC BRK, which has no answer. */
export type Command = Exclude<ServerRequest, { type: 'purge' }> | { type: 'break' }
type Of<Type> = Extract<Command, { type: Type }>

/** `sequence` is the name of the one that was run. */
export type LinesChanged = Partial<OutputLines> & { break?: boolean; sequence?: string }

export interface PortCommandsOptions {
  /** What whoever is at the other end may do now; asked each time. */
  readonly may: (right: 'configure' | 'lines') => boolean
  /** Told after settings were changed from there. */
  readonly onConfigured?: (inForce: Readonly<SerialSettings>, before: Readonly<SerialSettings>) => void
  /** Told after lines were changed from there, of each that did. */
  readonly onLinesChanged?: (changed: LinesChanged) => void
  /** How the board is reset, where its sequence is to be run here when the other end makes it. */
  readonly reset?: ResetProfile
  /** Writes what is being gathered for the port. */
  readonly flush: () => void
  /** Takes answers. */
  readonly send: (bytes: Uint8Array | undefined) => void
  readonly log: Logger
}

/** What IAC BRK stands for; the length tcsendbreak(3) uses. */
const BREAK_MS = 250
/** Longest wait for the bytes before a command to leave. pyserial gives an answer 3 s. */
const MAX_DRAIN_MS = 2_500
/** What may sit in a driver behind our own buffers. */
const DRIVER_BUFFER = 4096

/** Does on a port what the other end of a stream asks for and may, and answers with what is in force then. */
export class PortCommands implements Disposable {
  readonly #port: SerialPort
  readonly #server: Rfc2217Server
  readonly #may: PortCommandsOptions['may']
  readonly #onConfigured: NonNullable<PortCommandsOptions['onConfigured']>
  readonly #onLinesChanged: NonNullable<PortCommandsOptions['onLinesChanged']>
  readonly #sequencer: LineSequencer | undefined
  readonly #flush: () => void
  readonly #send: PortCommandsOptions['send']
  readonly #log: Logger
  #over = false

  constructor(port: SerialPort, server: Rfc2217Server, options: PortCommandsOptions) {
    const { may, onConfigured = () => {}, onLinesChanged = () => {}, reset, flush, send, log } = options
    this.#port = port
    this.#server = server
    this.#may = may
    this.#onConfigured = onConfigured
    this.#onLinesChanged = onLinesChanged
    this.#sequencer = reset && new LineSequencer(port, reset, (sequence) => onLinesChanged({ sequence }))
    this.#flush = flush
    this.#send = send
    this.#log = log
  }

  /** One at a time. Rejects when the port fails. */
  async perform(command: Command): Promise<void> {
    if (command.type === 'break' && !this.#may('lines')) return
    await this.#settle()
    if (this.#over) return
    switch (command.type) {
      case 'configure':
        await this.#configure(command)
        break
      case 'set-lines':
        await this.#setLines(command)
        break
      case 'set-break':
        await this.#setBreak(command)
        break
      case 'break':
        await this.#change({ break: true })
        await delay(BREAK_MS)
        await this.#change({ break: false })
        break
      default:
        command satisfies never
    }
  }

  /** A reset that is under way comes to its end without its waits, before the port is anybody else's. */
  [Symbol.dispose](): void {
    this.#over = true
    this.#sequencer?.[Symbol.dispose]()
  }

  async #configure(request: Of<'configure'>): Promise<void> {
    const { change } = request
    const port = this.#port
    if (isAsked(change) && this.#may('configure')) {
      const before = { ...port.settings }
      const inForce = await port.configure(change)
      if (change.baudRate !== undefined && this.#may('lines'))
        await this.#sequencer?.setBaudRate(inForce.baudRate)
      this.#log.debug({ before: formatSettings(before), now: formatSettings(inForce) }, 'settings')
      this.#onConfigured(inForce, before)
    }
    this.#send(this.#server.answer(request, port.settings))
  }

  async #setLines(request: Of<'set-lines'>): Promise<void> {
    const { change } = request
    const lines = this.#sequencer ?? this.#port
    if (isAsked(change) && this.#may('lines')) {
      const before = { ...this.#port.outputs }
      await lines.setLines(change)
      this.#tellLines(before, this.#port.outputs)
    }
    this.#send(this.#server.answer(request, lines.outputs))
  }

  async #setBreak(request: Of<'set-break'>): Promise<void> {
    const allowed = this.#may('lines')
    if (allowed) await this.#change({ break: request.on })
    this.#send(this.#server.answer(request, allowed && request.on))
  }

  async #change({ break: on }: { break: boolean }): Promise<void> {
    await this.#port.setBreak(on)
    this.#onLinesChanged({ break: on })
  }

  #tellLines(before: Readonly<OutputLines>, { dtr, rts }: Readonly<OutputLines>): void {
    if (dtr !== before.dtr || rts !== before.rts)
      this.#onLinesChanged({ ...(dtr !== before.dtr && { dtr }), ...(rts !== before.rts && { rts }) })
  }

  /**
   * Lets the bytes before a command leave before it acts, as the peer meant it: a program that waits for its output
   * (tcdrain) on a far port can't see it leave. A line that is held up would wait for ever, so there is a limit: the time
   * the bytes take at this speed.
   */
  async #settle(): Promise<void> {
    const port = this.#port
    this.#flush()
    if (port.state === 'absent') return
    const bytes = port.writableLength + DRIVER_BUFFER
    const limitMs = Math.min(
      MAX_DRAIN_MS,
      50 + Math.ceil((bytes * 12_500) / Math.max(1, port.settings.baudRate)),
    )
    await port.drain({ signal: AbortSignal.timeout(limitMs) }).catch(() => {})
  }
}

/** An empty change only asks. */
function isAsked(change: object): boolean {
  return Object.keys(change).length > 0
}
