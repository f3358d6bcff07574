import type { Socket } from 'node:net'
import type {
  InputLines,
  OutputLines,
  PortDescription,
  PortSource,
  PortState,
  PurgeWhat,
  SerialPort,
} from './port.ts'
import { PortStream } from './port-stream.ts'
import { DEFAULT_SETTINGS, type SerialSettings } from './settings.ts'
import { dialTcp, formatTcpAddress, presenceOf, type TcpAddress, untilItWorks } from './tcp-dial.ts'

/** What is handed to the socket at once: a purge can't take back more than it has not got. */
const PIECE_BYTES = 16 * 1024
const READ_BUFFER_BYTES = 64 * 1024
const MAX_BAUD_RATE = 0xffff_ffff

const ALL_LOW: Readonly<InputLines> = { cts: false, dsr: false, ri: false, dcd: false }

type Link = { state: 'open'; socket: Socket } | { state: 'absent' }

/**
 * A device behind a TCP port that carries its bytes and nothing else (a serial server in raw mode, socat, an ESP bridge).
 * Settings and lines are taken and remembered, as a PTY does, and change nothing. A server that goes away is a device that
 * is unplugged: what is written waits for it.
 */
export function tcpPort(address: TcpAddress): PortSource {
  const description: PortDescription = { path: `tcp://${formatTcpAddress(address)}`, modemLines: false }
  return {
    description,
    present: presenceOf(address),
    async open({ settings, signal = new AbortController().signal }) {
      const socket = await dialTcp(address, signal)
      return new TcpPort(address, description, socket, { ...DEFAULT_SETTINGS, ...settings })
    },
  }
}

class TcpPort extends PortStream implements SerialPort {
  readonly description: PortDescription
  readonly lines = ALL_LOW
  readonly #address: TcpAddress
  readonly #closing = new AbortController()
  #link: Link = { state: 'absent' }
  #settings: Readonly<SerialSettings>
  #outputs: Readonly<OutputLines> = { dtr: true, rts: true }
  /** Whether the socket has a piece of what is being written. */
  #sending = false

  constructor(
    address: TcpAddress,
    description: PortDescription,
    socket: Socket,
    settings: Readonly<SerialSettings>,
  ) {
    super({ readableHighWaterMark: READ_BUFFER_BYTES, writableHighWaterMark: PIECE_BYTES })
    this.#address = address
    this.description = description
    this.#settings = settings
    this.#attach(socket)
  }

  get state(): PortState {
    return this.#link.state
  }

  get settings(): Readonly<SerialSettings> {
    return this.#settings
  }

  get outputs(): Readonly<OutputLines> {
    return this.#outputs
  }

  async configure(change: Partial<SerialSettings>): Promise<Readonly<SerialSettings>> {
    this.mustBeOpen()
    const { baudRate = this.#settings.baudRate } = change
    const known = Number.isInteger(baudRate) && baudRate > 0 && baudRate <= MAX_BAUD_RATE
    this.#settings = { ...this.#settings, ...change, baudRate: known ? baudRate : this.#settings.baudRate }
    return this.#settings
  }

  async setLines(change: Partial<OutputLines>): Promise<Readonly<OutputLines>> {
    this.mustBeOpen()
    this.#outputs = { ...this.#outputs, ...change }
    return this.#outputs
  }

  async setBreak(): Promise<void> {
    this.mustBeOpen()
  }

  /** What the socket has already is on its way and can't be called back. */
  async purge(what: PurgeWhat): Promise<void> {
    this.mustBeOpen()
    if (what !== 'tx') this.discardUnread()
    if (what !== 'rx') this.discardUnsent()
  }

  drain({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    return this.allSent(signal)
  }

  override _read(): void {
    if (this.#link.state === 'open') this.#link.socket.resume()
  }

  override _final(done: (error?: Error | null) => void): void {
    if (this.#link.state === 'absent' || this.#link.socket.destroyed) {
      done()
      return
    }
    this.#closing.abort()
    this.#link.socket.once('close', () => done()).end()
  }

  protected override send(): void {
    const bytes = this.unsent?.subarray(0, PIECE_BYTES)
    if (this.#sending || bytes === undefined || this.#link.state === 'absent') return
    const { socket } = this.#link
    this.#sending = true
    socket.write(bytes, (error) => {
      this.#sending = false
      // A write that was purged meanwhile is over, and this one is another.
      if (!error && this.unsent?.buffer === bytes.buffer && this.unsent.byteOffset === bytes.byteOffset)
        this.sent(bytes.length)
      this.send()
    })
  }

  protected override release(): void {
    this.#closing.abort()
    if (this.#link.state === 'open') this.#link.socket.destroy()
  }

  #attach(socket: Socket): void {
    if (this.destroyed) {
      socket.destroy()
      return
    }
    this.#link = { state: 'open', socket }
    socket.on('data', (chunk: Buffer) => {
      if (!this.destroyed && !this.push(chunk)) socket.pause()
    })
    socket.once('close', () => this.#lose())
    this.send()
  }

  #lose(): void {
    this.#link = { state: 'absent' }
    const { signal } = this.#closing
    if (signal.aborted) return
    this.emit('state', 'absent')
    untilItWorks(() => dialTcp(this.#address, signal), signal).then(
      (socket) => {
        this.#attach(socket)
        if (!this.destroyed) this.emit('state', 'open')
      },
      () => {},
    )
  }
}
