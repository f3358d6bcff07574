import { access } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import { lineChanges } from '../serial/line-changes.ts'
import type {
  InputLines,
  OutputLines,
  PortDescription,
  PortSource,
  PortState,
  PurgeWhat,
  SerialPort,
} from '../serial/port.ts'
import { PortStream } from '../serial/port-stream.ts'
import { DEFAULT_SETTINGS, type SerialSettings } from '../serial/settings.ts'
import { listPorts } from './discovery.ts'
import { openWire, type Wire } from './package-wire.ts'

const BUFFER_BYTES = 64 * 1024
const LINES_EVERY_MS = 20
/** How long bytes on their way out get before a change of speed throws away what is left of them. */
const DRAIN_BEFORE_UPDATE_MS = 1000
/** What a tty holds is read in one or two turns; a device that floods must not keep us here. */
const MAX_TURNS = 8
const MAX_BAUD_RATE = 0xffff_ffff
const NO_LINES: Readonly<InputLines> = { cts: false, dsr: false, ri: false, dcd: false }

interface PackagePortOptions {
  /** How often to look whether an unplugged device is back. */
  retryMs?: number
  platform?: NodeJS.Platform
}

/**
 * A port of this machine through the serialport package's bindings: for macOS and Windows, where it has not been tried; it
 * is tested on Linux, which has a better one.
 *
 * What the package can't do is answered as it is: only the speed changes while the port is open, everything else stays as
 * it was opened; there is no RI, there are no line errors, and a pulse shorter than 20 ms goes unseen.
 */
export function packagePort(path: string, options: PackagePortOptions = {}): PortSource {
  const { platform = process.platform, retryMs = 1000 } = options
  return {
    description: { path, modemLines: true },
    async present() {
      if (platform !== 'win32') return succeeds(access(path))
      return (await listPorts()).some((port) => port.path === path)
    },
    async open({ settings, signal }) {
      signal?.throwIfAborted()
      const opener = new Opener(path, possible({ ...DEFAULT_SETTINGS, ...settings }, platform))
      const wire = await opener.open()
      const modemLines = await succeeds(wire.binding.get())
      return new PackagePort({ description: { path, modemLines }, opener, wire, retryMs })
    },
  }
}

/** Opens the same port again with the settings it has by now. */
class Opener {
  readonly path: string
  settings: SerialSettings

  constructor(path: string, settings: SerialSettings) {
    this.path = path
    this.settings = settings
  }

  async open(): Promise<Wire> {
    const { baudRate, dataBits, parity, stopBits, outputFlow, inputFlow } = this.settings
    try {
      return await openWire({
        path: this.path,
        baudRate,
        dataBits,
        parity: parity as 'none',
        stopBits,
        rtscts: outputFlow === 'rtscts',
        xon: outputFlow === 'xonxoff',
        xoff: inputFlow === 'xonxoff',
      })
    } catch (error) {
      throw asFarportError(this.path, error)
    }
  }
}

/** What of the settings the package can open a port with. RTS/CTS is one switch for both directions there. */
function possible(wanted: SerialSettings, platform: NodeJS.Platform): SerialSettings {
  const { parity, stopBits, outputFlow, inputFlow } = wanted
  const windows = platform === 'win32'
  const rtscts = outputFlow === 'rtscts' || inputFlow === 'rtscts'
  const xonxoff = (flow: string) => (flow === 'xonxoff' ? 'xonxoff' : 'none')
  return {
    ...wanted,
    parity: !windows && (parity === 'mark' || parity === 'space') ? 'none' : parity,
    stopBits: !windows && stopBits === 1.5 ? 1 : stopBits,
    outputFlow: rtscts ? 'rtscts' : xonxoff(outputFlow),
    inputFlow: rtscts ? 'rtscts' : xonxoff(inputFlow),
  }
}

/** The package tells its errors apart by their sentences only. */
function asFarportError(path: string, cause: unknown): FarportError {
  const sentence = String(cause)
  if (/cannot lock|access denied|busy/i.test(sentence))
    return new FarportError('ERR_PORT_BUSY', `${path} is in use by another program.`, { cause })
  if (/permission denied/i.test(sentence))
    return new FarportError('ERR_UNFIT', `This user may not open ${path}.`, { cause })
  if (/no such|not found|not configured/i.test(sentence))
    return new FarportError('ERR_DEVICE_ABSENT', `${path} is not there: is the device plugged in?`, { cause })
  return new FarportError('ERR_UNFIT', `${path} can't be opened as a serial port.`, { cause })
}

class PackagePort extends PortStream implements SerialPort {
  readonly description: PortDescription
  readonly #opener: Opener
  readonly #retryMs: number
  readonly #closing = new AbortController()
  readonly #lookOut: NodeJS.Timeout
  /** Commands to the device go one after the other. */
  #lastCommand: Promise<unknown> = Promise.resolve()

  /** Undefined while the device is away. */
  #wire: Wire | undefined
  #outputs: OutputLines = { dtr: true, rts: true }
  #breaking = false
  #lines: InputLines = { ...NO_LINES }

  #wanted = false
  #receivingFrom: Wire | undefined
  #sendingTo: Wire | undefined
  #held = false

  constructor(options: { description: PortDescription; opener: Opener; wire: Wire; retryMs: number }) {
    super({ readableHighWaterMark: BUFFER_BYTES, writableHighWaterMark: BUFFER_BYTES })
    this.description = options.description
    this.#opener = options.opener
    this.#retryMs = options.retryMs
    this.#attach(options.wire)
    this.#lookOut = this.#watchLines()
  }

  get state(): PortState {
    return this.#wire === undefined ? 'absent' : 'open'
  }

  get settings(): Readonly<SerialSettings> {
    return { ...this.#opener.settings }
  }

  get outputs(): Readonly<OutputLines> {
    return { ...this.#outputs }
  }

  get lines(): Readonly<InputLines> {
    return { ...this.#lines }
  }

  async configure({ baudRate }: Partial<SerialSettings>): Promise<Readonly<SerialSettings>> {
    this.mustBeOpen()
    if (baudRate !== undefined && Number.isInteger(baudRate) && baudRate > 0 && baudRate <= MAX_BAUD_RATE)
      await this.#inTurn(() => this.#changeSpeed(baudRate))
    return this.settings
  }

  async setLines(change: Partial<OutputLines>): Promise<Readonly<OutputLines>> {
    this.mustBeOpen()
    await this.#inTurn(async () => {
      const outputs = { ...this.#outputs, ...change }
      if (await this.#set(outputs, this.#breaking)) this.#outputs = outputs
    })
    return this.outputs
  }

  async setBreak(on: boolean): Promise<void> {
    this.mustBeOpen()
    await this.#inTurn(async () => {
      if (await this.#set(this.#outputs, on)) this.#breaking = on
    })
  }

  async purge(what: PurgeWhat): Promise<void> {
    this.mustBeOpen()
    if (what !== 'tx') {
      this.discardUnread()
      this.#emptyDriver(this.#wire, () => {})
    }
    if (what !== 'rx') this.discardUnsent()
    // The package flushes both directions or none. For 'tx' alone, what the driver has yet to send goes out: a few
    // kilobytes too many are better than received ones lost.
    if (what === 'both') await this.#wire?.binding.flush().catch(() => {})
  }

  async drain({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.allSent(signal)
    const wire = this.#wire
    if (wire === undefined) return
    // What the package waits with can't be called off: when we go, a thread of Node's pool stays with it.
    const ended = signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal
    const aborted = Promise.withResolvers<never>()
    const abort = () => aborted.reject(ended.reason)
    ended.addEventListener('abort', abort)
    try {
      ended.throwIfAborted()
      await Promise.race([succeeds(wire.binding.drain()), aborted.promise])
    } finally {
      ended.removeEventListener('abort', abort)
    }
  }

  override _read(): void {
    this.#wanted = true
    void this.#receive()
  }

  protected override send(): void {
    void this.#send()
  }

  protected override release(): Promise<void> {
    clearInterval(this.#lookOut)
    this.#closing.abort(new FarportError('ERR_DEVICE_ABSENT', 'The port is closed.'))
    const wire = this.#wire
    this.#wire = undefined
    return close(wire)
  }

  #inTurn(command: () => Promise<void>): Promise<void> {
    const done = this.#lastCommand.then(command)
    this.#lastCommand = done
    return done
  }

  /** A speed that the driver refuses is not in force. While the device is away any is, until it comes back. */
  async #changeSpeed(baudRate: number): Promise<void> {
    const wire = this.#wire
    if (baudRate === this.settings.baudRate) return
    if (wire !== undefined) {
      // The package throws away what is in the driver, both ways, when it changes the speed.
      this.#held = true
      await this.#drainInTime(wire)
      this.#emptyDriver(wire, (bytes) => this.#keep(bytes))
      const changed = await succeeds(wire.binding.update({ baudRate }))
      this.#held = false
      void this.#send()
      if (!changed) return
    }
    this.#opener.settings = { ...this.#opener.settings, baudRate }
  }

  async #drainInTime(wire: Wire): Promise<void> {
    const time = new AbortController()
    const signal = AbortSignal.any([time.signal, this.#closing.signal])
    await Promise.race([
      succeeds(wire.binding.drain()),
      succeeds(delay(DRAIN_BEFORE_UPDATE_MS, undefined, { signal })),
    ])
    time.abort()
  }

  /** Sets both lines and the break at once: the package knows no other way. False when the device did not do it. */
  async #set({ dtr, rts }: OutputLines, brk: boolean): Promise<boolean> {
    if (this.#wire === undefined || !this.description.modemLines) return true
    return succeeds(this.#wire.binding.set({ dtr, rts, brk }))
  }

  #watchLines(): NodeJS.Timeout {
    let looking = false
    return setInterval(async () => {
      const wire = this.#wire
      if (looking || wire === undefined || !this.description.modemLines) return
      looking = true
      const status = await wire.binding.get().catch(() => undefined)
      looking = false
      if (wire !== this.#wire) return
      if (status === undefined) this.#lose(wire)
      else this.#tellLines({ cts: status.cts, dsr: status.dsr, dcd: status.dcd, ri: false })
    }, LINES_EVERY_MS)
  }

  #tellLines(now: InputLines): void {
    const changes = lineChanges(this.#lines, now)
    if (changes === undefined) return
    this.#lines = now
    this.emit('lines', this.lines, changes)
  }

  async #receive(): Promise<void> {
    const wire = this.#wire
    if (wire === undefined || wire === this.#receivingFrom) return
    this.#receivingFrom = wire
    while (this.#wanted && wire === this.#wire) {
      const bytes = await received(wire)
      if (bytes === undefined) this.#lose(wire)
      else if (bytes.length > 0) this.#keep(bytes)
    }
    if (wire === this.#receivingFrom) this.#receivingFrom = undefined
  }

  async #send(): Promise<void> {
    const wire = this.#wire
    if (wire === undefined || wire === this.#sendingTo) return
    this.#sendingTo = wire
    while (this.unsent && !this.#held && wire === this.#wire) {
      const taken = wire.writeNow(this.unsent)
      if (taken !== undefined) this.sent(taken)
      if (taken === undefined || (this.unsent?.length && !(await succeeds(wire.writable())))) this.#lose(wire)
    }
    if (wire === this.#sendingTo) this.#sendingTo = undefined
  }

  #keep(bytes: Buffer): void {
    this.#wanted = this.push(bytes)
  }

  /** Takes out what waits in the driver: a few kilobytes. */
  #emptyDriver(wire: Wire | undefined, take: (bytes: Buffer) => void): void {
    for (let turn = 0; turn < MAX_TURNS; turn++) {
      // When the device is gone, `#receive` finds that out too, and acts on it.
      const bytes = wire?.readNow()
      if (!bytes?.length) return
      take(bytes)
    }
  }

  #attach(wire: Wire): void {
    this.#wire = wire
    void wire.gone.then(() => this.#lose(wire))
  }

  /** The device is gone. Closing a port of the package twice is an error there, so only the first to notice does it. */
  #lose(wire: Wire): void {
    if (this.destroyed || wire !== this.#wire) return
    this.#wire = undefined
    void close(wire)
    this.#tellLines({ ...NO_LINES })
    this.emit('state', this.state)
    void this.#comeBack()
  }

  async #comeBack(): Promise<void> {
    const { signal } = this.#closing
    let wire: Wire | undefined
    while (wire === undefined) {
      if (!(await succeeds(delay(this.#retryMs, undefined, { signal })))) return
      wire = await this.#opener.open().catch(() => undefined)
    }
    if (signal.aborted) return close(wire)
    this.#attach(wire)
    await this.#inTurn(async () => {
      await this.#set(this.#outputs, this.#breaking)
    })
    if (wire !== this.#wire) return
    this.emit('state', this.state)
    void this.#receive()
    void this.#send()
  }
}

/** What has come, after waiting for it; undefined when the device is gone. */
async function received(wire: Wire): Promise<Buffer | undefined> {
  return (await succeeds(wire.readable())) ? wire.readNow() : undefined
}

async function close(wire: Wire | undefined): Promise<void> {
  await wire?.binding.close().catch(() => {})
}

function succeeds(action: Promise<unknown>): Promise<boolean> {
  return action.then(
    () => true,
    () => false,
  )
}
