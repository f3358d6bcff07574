import type { Setup, Transfer, UsbDevice } from './usb-ip.ts'

/**
 * An FT232R, as far as Linux's ftdi_sio speaks to one, with a null-modem cable to another: TX to RX, RTS to CTS, DTR to DSR
 * and DCD. Bytes take their time on the line. Of the formats only what differs between the two ends is looked at: another
 * parity is a parity error, another speed or another count of bits a framing error, and the byte passes.
 *
 * A packet to the host is two bytes of status and up to 62 received. First byte: CTS 10, DSR 20, RI 40, DCD 80. Second:
 * overrun 02, parity 04, framing 08, break 10, room to send 20, all sent 40; what is an error is one of the last byte.
 */
const LINE = { CTS: 0x10, DSR: 0x20, DCD: 0x80 } as const
const STATUS = { OVERRUN: 0x02, PARITY: 0x04, FRAMING: 0x08, BREAK: 0x10, ROOM: 0x20, EMPTY: 0x40 } as const
const REQUEST = { RESET: 0, LINES: 1, FLOW: 2, BAUD: 3, FORMAT: 4, STATUS: 5, GET_LATENCY: 10 } as const
const VENDOR_OUT = 0x40
const VENDOR_IN = 0xc0
const STANDARD_IN = 0x80
const GET_DESCRIPTOR = 6

const PACKET_BYTES = 62
const RECEIVE_FIFO_BYTES = 256
const SEND_FIFO_BYTES = 128
/** RTS falls when this is left of the room. */
const RTS_MARGIN_BYTES = 64
const BASE_CLOCK_HZ = 3_000_000
/** By the code for the fraction of the divisor. */
const EIGHTHS = [0, 4, 2, 1, 3, 5, 6, 7]
/** Bytes of one step on the line: few enough for flow control, many enough for a slow machine. */
const STEP_MS = 8

interface Received {
  byte: number
  status: number
}

interface Format {
  baudRate: number
  dataBits: number
  parity: number
}

export class FtdiChip implements UsbDevice {
  peer: FtdiChip | undefined
  readonly #serialNumber: string
  #format: Format = { baudRate: 9600, dataBits: 8, parity: 0 }
  #dtr = false
  #rts = false
  #break = false
  #rtsCts = false
  #inputs = 0
  #received: Received[] = []
  #overrun = false
  #unsent = Buffer.alloc(0)
  #sending: NodeJS.Timeout | undefined
  #statusTold = -1
  #hostReads: Transfer[] = []
  #hostWrites: Transfer[] = []

  constructor(serialNumber: string) {
    this.#serialNumber = serialNumber
  }

  control({ requestType, request, value, index }: Setup): Buffer | undefined {
    if (requestType === STANDARD_IN) {
      if (request === GET_DESCRIPTOR) return this.#descriptor(value >> 8, value & 0xff)
      return Buffer.alloc(2) // status, configuration
    }
    if (requestType === VENDOR_IN) {
      if (request === REQUEST.STATUS) return this.#status(0)
      return Buffer.from(request === REQUEST.GET_LATENCY ? [16] : [0, 0])
    }
    if (requestType === VENDOR_OUT) this.#command(request, value, index)
    return Buffer.alloc(0)
  }

  receive(transfer: Transfer): void {
    this.#hostWrites.push(transfer)
    this.#transmit()
  }

  send(transfer: Transfer): void {
    this.#hostReads.push(transfer)
    this.#tellHost()
  }

  #command(request: number, value: number, index: number): void {
    switch (request) {
      case REQUEST.RESET:
        if (value !== 2) this.#received = []
        if (value !== 1) this.#unsent = Buffer.alloc(0)
        break
      case REQUEST.LINES:
        if (value & 0x100) this.#dtr = (value & 1) !== 0
        if (value & 0x200) this.#rts = (value & 2) !== 0
        break
      case REQUEST.FLOW:
        this.#rtsCts = (index & 0x100) !== 0
        break
      case REQUEST.BAUD:
        this.#format = { ...this.#format, baudRate: baudRate(value, index) }
        break
      case REQUEST.FORMAT:
        this.#format = { ...this.#format, dataBits: value & 0xf, parity: (value >> 8) & 7 }
        this.#setBreak((value & 0x4000) !== 0)
        break
    }
    this.#drive()
    this.#transmit()
  }

  #setBreak(on: boolean): void {
    if (on && !this.#break) this.peer?.take([{ byte: 0, status: STATUS.BREAK }])
    this.#break = on
  }

  /** Puts our outputs on the cable. */
  #drive(): void {
    const full = this.#received.length > RECEIVE_FIFO_BYTES - RTS_MARGIN_BYTES
    const rts = this.#rts && !(this.#rtsCts && full)
    this.peer?.see((rts ? LINE.CTS : 0) | (this.#dtr ? LINE.DSR | LINE.DCD : 0))
  }

  /** From the other end of the cable: its outputs, as they arrive. */
  see(inputs: number): void {
    if (inputs === this.#inputs) return
    this.#inputs = inputs
    this.#tellHost()
    this.#transmit()
  }

  #transmit(): void {
    while (this.#unsent.length < SEND_FIFO_BYTES) {
      const write = this.#hostWrites.shift()
      if (write === undefined) break
      if (write.done) continue
      this.#unsent = Buffer.concat([this.#unsent, write.bytes])
      write.complete()
    }
    const held = this.#rtsCts && (this.#inputs & LINE.CTS) === 0
    if (this.#sending === undefined && this.#unsent.length > 0 && !held) {
      const { baudRate, dataBits, parity } = this.#format
      const byteMs = (1000 * (2 + dataBits + (parity === 0 ? 0 : 1))) / baudRate
      const count = Math.min(this.#unsent.length, Math.max(1, Math.floor(STEP_MS / byteMs)))
      this.#sending = setTimeout(() => {
        this.#sending = undefined
        const bytes = this.#unsent.subarray(0, count)
        this.#unsent = this.#unsent.subarray(bytes.length)
        this.peer?.hear(bytes, this.#format)
        this.#transmit()
      }, count * byteMs)
    }
    this.#tellHost()
  }

  /** From the other end of the cable: bytes, as they were sent. */
  hear(bytes: Buffer, format: Format): void {
    const { baudRate, dataBits, parity } = this.#format
    const readable = Math.abs(format.baudRate / baudRate - 1) < 0.03 && format.dataBits === dataBits
    const status = !readable ? STATUS.FRAMING : format.parity !== parity ? STATUS.PARITY : 0
    this.take(Array.from(bytes, (byte) => ({ byte: byte & (2 ** dataBits - 1), status })))
  }

  /** From the line into our buffer. */
  take(received: Received[]): void {
    const room = RECEIVE_FIFO_BYTES - this.#received.length
    this.#overrun ||= received.length > room
    this.#received.push(...received.slice(0, room))
    this.#drive()
    this.#tellHost()
  }

  #tellHost(): void {
    for (;;) {
      this.#hostReads = this.#hostReads.filter((read) => !read.done)
      const statusNow = this.#status(0).readUInt16LE()
      if (this.#received.length === 0 && statusNow === this.#statusTold) return
      const read = this.#hostReads.shift()
      if (read === undefined) return
      this.#statusTold = statusNow
      read.complete(this.#packet())
    }
  }

  /** Up to and with the first byte that has an error, since a packet has one status. */
  #packet(): Buffer {
    const faulty = this.#received.findIndex(({ status }) => status !== 0)
    const count = Math.min(PACKET_BYTES, faulty === -1 ? this.#received.length : Math.max(1, faulty))
    const taken = this.#received.splice(0, count)
    let errors = taken.at(-1)?.status ?? 0
    if (this.#overrun && taken.length > 0) {
      errors |= STATUS.OVERRUN
      this.#overrun = false
    }
    this.#drive()
    return Buffer.concat([this.#status(errors), Buffer.from(taken.map(({ byte }) => byte))])
  }

  #status(errors: number): Buffer {
    const empty = this.#unsent.length === 0
    return Buffer.from([this.#inputs | 1, errors | STATUS.ROOM | (empty ? STATUS.EMPTY : 0)])
  }

  #descriptor(type: number, index: number): Buffer | undefined {
    switch (type) {
      case 1: // device: USB 2.0, vendor 0403, product 6001, release 6.00 is an FT232R
        return Buffer.from('120100020000000803040160000601020301', 'hex')
      case 2: // configuration, interface, endpoints 1 in and 2 out, bulk, 64 bytes
        return Buffer.from(
          '09022000010100a02d 0904000002ffffff02 07058102400000 07050202400000'.replaceAll(' ', ''),
          'hex',
        )
      case 3: {
        if (index === 0) return Buffer.from([4, 3, 0x09, 0x04])
        const text = Buffer.from(['farport', 'FT232R model', this.#serialNumber][index - 1] ?? '', 'utf16le')
        return Buffer.concat([Buffer.from([text.length + 2, 3]), text])
      }
      default:
        return undefined
    }
  }
}

/** The divisor's whole part in 14 bits, behind them the code for its eighths; 0 and 1 are the two fastest. */
function baudRate(value: number, index: number): number {
  const whole = value & 0x3fff
  const eighths = EIGHTHS[(value >> 14) | ((index & 1) << 2)] ?? 0
  if (whole === 0) return BASE_CLOCK_HZ
  if (whole === 1 && eighths === 0) return 2_000_000
  return BASE_CLOCK_HZ / (whole + eighths / 8)
}
