import type { Channel } from '../channel/channel.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { Rfc2217Server } from '../rfc2217/server.ts'
import type { ServerRequest } from '../rfc2217/server-request.ts'
import type { InputLines, LineChanges, LineErrors, PortState } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'
import type { LineUse } from './shared-line.ts'

export interface WatchOptions {
  /** So much of what the device sent before comes first. */
  replayBytes: number
  /** Told of bytes that the watcher misses, as it does. */
  onSkipped?: (bytes: number) => void
  log: Logger
}

/** Bytes of data. */
export interface Watched {
  /** Sent to the watcher. */
  readonly fromDevice: number
  /** Not sent, because it was too far behind. */
  readonly skipped: number
  /** Sent by the watcher, and not written. */
  readonly ignored: number
}

/**
 * How far a watcher may be behind; what the device sends then is skipped. Enough for the default resume time at 115,200
 * baud, and of ten seconds at 921,600.
 */
export const WATCHER_BEHIND_BYTES = 1024 * 1024
/** Skipping goes on until it has caught up so far: one long gap is easier to read past than many short ones. */
const CAUGHT_UP_BYTES = WATCHER_BEHIND_BYTES / 2

/** `full`: a write is held by the channel. `catching-up`: it is not, but there is still much on its way. */
type Pace = 'live' | 'full' | 'catching-up'

const SKIPPED: LineErrors = { framing: 0, parity: 0, overrun: 1, break: 0 }

/**
 * Shows a device to a peer by RFC 2217, on a channel whose send buffer is WATCHER_BEHIND_BYTES. Nothing the peer sends has
 * an effect: requests are answered with what is in force. The device is never held back; a watcher that is too far behind
 * gets NOTIFY-LINESTATE with the overrun bit in the place of what it missed. Resolves when the channel is over.
 */
export async function serveWatcher(channel: Channel, line: LineUse, options: WatchOptions): Promise<Watched> {
  const watching = new Watching(channel, line, options)
  await watching.ended
  return watching.watched
}

class Watching {
  readonly ended: Promise<void>
  readonly watched = { fromDevice: 0, skipped: 0, ignored: 0 }
  readonly #channel: Channel
  readonly #line: LineUse
  readonly #onSkipped: (bytes: number) => void
  readonly #log: Logger
  readonly #server = new Rfc2217Server({ signature: 'farport' })
  #pace: Pace = 'live'
  /** Since the peer was last told how things stand. */
  #skippedBytes = 0
  #skippedNews = false
  /** The peer knows of a gap at the end of what it was sent. */
  #gapTold = false

  constructor(channel: Channel, line: LineUse, { replayBytes, onSkipped = () => {}, log }: WatchOptions) {
    this.#channel = channel
    this.#line = line
    this.#onSkipped = onSkipped
    this.#log = log
    this.ended = this.#run(replayBytes)
  }

  async #run(replayBytes: number): Promise<void> {
    const channel = this.#channel
    const { port } = this.#line
    const over = Promise.withResolvers<void>()
    const onOver = () => over.resolve()
    const onPortError = (error: Error) => channel.destroy(error)
    const onPortClose = () =>
      channel.destroy(new FarportError('ERR_DEVICE_ABSENT', 'the serial port was closed'))
    const onDrain = () => channel.resume()
    channel.on('data', this.#onChunk).on('drain', onDrain)
    channel.on('end', onOver).on('close', onOver).on('error', onOver)
    if (channel.destroyed) onOver()
    this.#send(this.#server.start())
    this.#sendData(this.#line.replay.last(replayBytes))
    port.on('data', this.#onDeviceData).on('lines', this.#onLines).on('lineErrors', this.#onLineErrors)
    port.on('settings', this.#onSettings).on('error', onPortError).on('close', onPortClose)
    port.on('state', this.#onState)
    const forget = this.#line.onConfigured(this.#onSettings)

    await over.promise
    forget()
    port.off('data', this.#onDeviceData).off('lines', this.#onLines).off('lineErrors', this.#onLineErrors)
    port.off('settings', this.#onSettings).off('error', onPortError).off('close', onPortClose)
    port.off('state', this.#onState)
    channel.off('data', this.#onChunk).off('drain', onDrain)
    channel.off('end', onOver).off('close', onOver)
    const { ignored, skipped } = this.watched
    if (ignored > 0) this.#log.warn({ bytes: ignored }, 'bytes of a watcher were not written')
    if (skipped > 0) this.#log.info({ bytes: skipped }, 'a watcher was too slow, and missed bytes')
    channel.end()
  }

  readonly #onChunk = (chunk: Uint8Array): void => {
    for (const event of this.#server.push(chunk)) {
      switch (event.type) {
        case 'data':
          this.watched.ignored += event.bytes.length
          break
        case 'send':
          this.#send(event.bytes)
          break
        case 'request':
          this.#send(this.#answer(event.request))
          break
        case 'active':
          this.#send(this.#server.modemState(this.#line.port.lines))
          if (this.#line.port.state === 'absent') this.#onState('absent')
          break
        case 'resume':
          this.#endGap()
          break
        case 'break':
        case 'suspend':
        case 'signature':
          break
        case 'malformed':
          this.#log.debug({ reason: event.reason }, 'malformed telnet')
          break
        default:
          event satisfies never
      }
    }
    // Questions are not taken faster than their answers are.
    if (this.#channel.writableNeedDrain) this.#channel.pause()
  }

  /** How things stand, whatever was asked for. */
  #answer(request: ServerRequest): Uint8Array {
    const { port } = this.#line
    switch (request.type) {
      case 'configure':
        return this.#server.answer(request, port.settings)
      case 'set-lines':
        return this.#server.answer(request, port.outputs)
      case 'set-break':
        return this.#server.answer(request, false)
      case 'purge':
        return this.#server.answer(request)
    }
  }

  readonly #onDeviceData = (bytes: Uint8Array): void => {
    if (this.#pace === 'catching-up' && this.#channel.unacknowledged <= CAUGHT_UP_BYTES) this.#pace = 'live'
    if (this.#pace === 'live' && !this.#server.suspended) {
      this.#endGap()
      this.#sendData(bytes)
    } else {
      this.watched.skipped += bytes.length
      this.#skippedBytes += bytes.length
      this.#onSkipped(bytes.length)
    }
  }

  /** Marks the gap, and tells how the line stands now: a change may have fallen into it. */
  #endGap(): void {
    if ((this.#skippedBytes === 0 && !this.#skippedNews) || this.#server.suspended) return
    if (this.#skippedBytes > 0 && !this.#gapTold) {
      this.#send(this.#server.lineState(SKIPPED))
      this.#gapTold = true
    }
    this.#skippedBytes = 0
    this.#skippedNews = false
    const { settings, lines } = this.#line.port
    this.#send(this.#server.settings(settings))
    this.#send(this.#server.modemState(lines))
  }

  readonly #onLines = (lines: InputLines, changes: LineChanges): void => {
    this.#tell(this.#server.modemState(lines, changes))
  }

  readonly #onLineErrors = (errors: LineErrors): void => {
    this.#tell(this.#server.lineState(errors))
  }

  readonly #onSettings = (settings: Readonly<SerialSettings>): void => {
    this.#tell(this.#server.settings(settings))
  }

  /** Never skipped: nothing would set it right again. A watcher has nothing to send, so that is all it says. */
  readonly #onState = (state: PortState): void => {
    this.#send(this.#server.holdOff(state === 'absent'))
  }

  /** News that goes with the data, and is skipped with it. */
  #tell(bytes: Uint8Array | undefined): void {
    if (this.#pace === 'full') this.#skippedNews = true
    else this.#send(bytes)
  }

  #sendData(bytes: Uint8Array): void {
    this.watched.fromDevice += bytes.length
    if (bytes.length > 0) this.#gapTold = false
    this.#send(this.#server.data(bytes))
  }

  #send(bytes: Uint8Array | undefined): void {
    const channel = this.#channel
    if (bytes === undefined || bytes.length === 0 || channel.writableEnded || channel.destroyed) return
    channel.write(bytes, () => {
      if (this.#pace !== 'full' || channel.writableLength > 0) return
      this.#pace = 'catching-up'
      this.#endGap()
    })
    // What the channel has not taken over is what its send buffer has no room for.
    if (channel.writableLength > 0) this.#pace = 'full'
  }
}
