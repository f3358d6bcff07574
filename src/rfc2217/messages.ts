/**
 * The messages of RFC 2217: the payloads of telnet subnegotiation 44.
 *
 *     code value…      code: 0 to 12 from the client, 100 to 112 from the access server. Numbers in network order
 *
 *      0 100  SIGNATURE             text; empty asks the other side for its own
 *      1 101  SET-BAUDRATE          4 octets, bits per second, 0 asks. Cisco: 1 octet, see CISCO_BAUD_RATES
 *      2 102  SET-DATASIZE          0 asks; 5 to 8
 *      3 103  SET-PARITY            0 asks; 1 none, 2 odd, 3 even, 4 mark, 5 space
 *      4 104  SET-STOPSIZE          0 asks; 1 = 1, 2 = 2, 3 = 1.5
 *      5 105  SET-CONTROL           outbound, or both, flow   0 asks; 1 none, 2 XON/XOFF, 3 RTS/CTS, 17 DCD, 19 DSR
 *                                   inbound flow             13 asks; 14 none, 15 XON/XOFF, 16 RTS/CTS, 18 DTR
 *                                   break                     4 asks; 5 on, 6 off
 *                                   DTR                       7 asks; 8 on, 9 off
 *                                   RTS                      10 asks; 11 on, 12 off
 *      6 106  NOTIFY-LINESTATE      1 octet of bits: line-state.ts. pyserial asks with a 6 that has no value
 *      7 107  NOTIFY-MODEMSTATE     1 octet of bits: modem-state.ts. Asked for in the same way
 *      8 108  FLOWCONTROL-SUSPEND   no value: send neither data nor commands until
 *      9 109  FLOWCONTROL-RESUME    no value
 *     10 110  SET-LINESTATE-MASK    1 octet: the bits of 106 that are wanted; 0 at first
 *     11 111  SET-MODEMSTATE-MASK   1 octet: the bits of 107 that are wanted; 255 at first
 *     12 112  PURGE-DATA            1 what the device sent, 2 what goes to the device, 3 both
 *
 * The server answers 1 to 5 and 10 to 12 with the same kind of message and the value in force.
 *
 * Decoding accepts everything. A value's surplus octets are ignored (sredird sends a baud rate in eight), a missing one
 * reads as 0, and numbers outside the tables are kept as Unknown.
 */
import { Rfc2217Error } from './error.ts'
import type { DataBits, InputFlow, OutputFlow, Parity, PurgeWhat, StopBits } from './line.ts'
import { type LineState, lineStateBits, lineStateOf } from './line-state.ts'
import { type ModemState, modemStateBits, modemStateOf } from './modem-state.ts'

/** The number of the telnet option. */
export const COM_PORT = 44

/** Which of the two sends a message; the same message has a code for either. */
export type Sender = 'client' | 'server'

/** A number that none of the words stands for. */
export interface Unknown {
  unknown: number
}

/** `query` asks for the value in force and sets nothing. */
export type Value<T> = T | 'query' | Unknown

/** The messages that set, or ask for, something that stays set. `set-control` is one that the RFC's table doesn't have. */
export type SetMessage =
  | { type: 'set-baud-rate'; value: Value<number>; form?: 'cisco' }
  | { type: 'set-data-bits'; value: Value<DataBits> }
  | { type: 'set-parity'; value: Value<Parity> }
  | { type: 'set-stop-bits'; value: Value<StopBits> }
  | { type: 'set-output-flow'; value: Value<OutputFlow> }
  | { type: 'set-input-flow'; value: Value<InputFlow> }
  | { type: 'set-break'; value: Value<boolean> }
  | { type: 'set-dtr'; value: Value<boolean> }
  | { type: 'set-rts'; value: Value<boolean> }
  | { type: 'set-control'; value: Unknown }

export type Message =
  | { type: 'signature'; text: string }
  | SetMessage
  | { type: 'notify-line-state'; value: LineState | 'query' }
  | { type: 'notify-modem-state'; value: ModemState | 'query' }
  | { type: 'suspend' }
  | { type: 'resume' }
  | { type: 'set-line-state-mask'; value: number | 'query' }
  | { type: 'set-modem-state-mask'; value: number | 'query' }
  | { type: 'purge'; value: PurgeWhat | Unknown }

export interface Malformed {
  type: 'malformed'
  reason: string
}

const SERVER_BASE = 100
const MAX_BAUD_RATE = 0xffff_ffff

/** Cisco IOS sends a baud rate as one octet that stands for one of these. Facts as in gensio's RFC 2217 code. */
const CISCO_BAUD_RATES = new Map([
  [3, 300],
  [4, 600],
  [5, 1200],
  [6, 2400],
  [7, 4800],
  [8, 9600],
  [10, 19_200],
  [12, 38_400],
  [13, 57_600],
  [14, 115_200],
  [15, 230_400],
])

/** The octets of the messages whose value is one of a few words. */
const OCTETS = {
  'set-data-bits': new Map<number, Value<DataBits>>([
    [0, 'query'],
    [5, 5],
    [6, 6],
    [7, 7],
    [8, 8],
  ]),
  'set-parity': new Map<number, Value<Parity>>([
    [0, 'query'],
    [1, 'none'],
    [2, 'odd'],
    [3, 'even'],
    [4, 'mark'],
    [5, 'space'],
  ]),
  'set-stop-bits': new Map<number, Value<StopBits>>([
    [0, 'query'],
    [1, 1],
    [2, 2],
    [3, 1.5],
  ]),
  'set-output-flow': new Map<number, Value<OutputFlow>>([
    [0, 'query'],
    [1, 'none'],
    [2, 'xonxoff'],
    [3, 'rtscts'],
    [17, 'dcd'],
    [19, 'dsr'],
  ]),
  'set-break': new Map<number, Value<boolean>>([
    [4, 'query'],
    [5, true],
    [6, false],
  ]),
  'set-dtr': new Map<number, Value<boolean>>([
    [7, 'query'],
    [8, true],
    [9, false],
  ]),
  'set-rts': new Map<number, Value<boolean>>([
    [10, 'query'],
    [11, true],
    [12, false],
  ]),
  'set-input-flow': new Map<number, Value<InputFlow>>([
    [13, 'query'],
    [14, 'none'],
    [15, 'xonxoff'],
    [16, 'rtscts'],
    [18, 'dtr'],
  ]),
  purge: new Map<number, PurgeWhat | Unknown>([
    [1, 'rx'],
    [2, 'tx'],
    [3, 'both'],
  ]),
}

/** True for the word of a value, false for a query and for an unknown number. */
export function isKnown<T>(value: Value<T>): value is Exclude<T, 'query' | Unknown> {
  return value !== 'query' && typeof value !== 'object'
}

/** The payload of subnegotiation 44, not yet escaped. */
export function encodeMessage(message: Message, sender: Sender): Uint8Array {
  const payload = (code: number, ...value: number[]) =>
    Uint8Array.of(sender === 'server' ? code + SERVER_BASE : code, ...value)

  switch (message.type) {
    case 'signature':
      return payload(0, ...octetsOfText(message.text))
    case 'set-baud-rate':
      return payload(1, ...octetsOfBaudRate(message))
    case 'set-data-bits':
      return payload(2, octetOf(OCTETS[message.type], message.value))
    case 'set-parity':
      return payload(3, octetOf(OCTETS[message.type], message.value))
    case 'set-stop-bits':
      return payload(4, octetOf(OCTETS[message.type], message.value))
    case 'set-output-flow':
      return payload(5, octetOf(OCTETS[message.type], message.value))
    case 'set-input-flow':
      return payload(5, octetOf(OCTETS[message.type], message.value))
    case 'set-break':
    case 'set-dtr':
    case 'set-rts':
      return payload(5, octetOf(OCTETS[message.type], message.value))
    case 'set-control':
      return payload(5, message.value.unknown)
    case 'notify-line-state':
      return message.value === 'query' ? payload(6) : payload(6, lineStateBits(message.value))
    case 'notify-modem-state':
      return message.value === 'query' ? payload(7) : payload(7, modemStateBits(message.value))
    case 'suspend':
      return payload(8)
    case 'resume':
      return payload(9)
    case 'set-line-state-mask':
      return message.value === 'query' ? payload(10) : payload(10, octetOfMask(message.value))
    case 'set-modem-state-mask':
      return message.value === 'query' ? payload(11) : payload(11, octetOfMask(message.value))
    case 'purge':
      return payload(12, octetOf(OCTETS.purge, message.value))
  }
}

/** Reads a payload that `sender` sent. Never throws. */
export function decodeMessage(payload: Uint8Array, sender: Sender): Message | Malformed {
  const code = payload[0]
  if (code === undefined) return { type: 'malformed', reason: 'an RFC 2217 message without a code' }
  const command = sender === 'server' ? code - SERVER_BASE : code
  const octet = payload[1] ?? 0

  switch (command) {
    case 0:
      return { type: 'signature', text: textOf(payload.subarray(1)) }
    case 1:
      return decodeBaudRate(payload.subarray(1))
    case 2:
      return { type: 'set-data-bits', value: wordOf(OCTETS['set-data-bits'], octet) }
    case 3:
      return { type: 'set-parity', value: wordOf(OCTETS['set-parity'], octet) }
    case 4:
      return { type: 'set-stop-bits', value: wordOf(OCTETS['set-stop-bits'], octet) }
    case 5:
      return decodeControl(octet)
    case 6:
      return { type: 'notify-line-state', value: payload.length > 1 ? lineStateOf(octet) : 'query' }
    case 7:
      return { type: 'notify-modem-state', value: payload.length > 1 ? modemStateOf(octet) : 'query' }
    case 8:
      return { type: 'suspend' }
    case 9:
      return { type: 'resume' }
    case 10:
      return { type: 'set-line-state-mask', value: payload.length > 1 ? octet : 'query' }
    case 11:
      return { type: 'set-modem-state-mask', value: payload.length > 1 ? octet : 'query' }
    case 12:
      return { type: 'purge', value: wordOf(OCTETS.purge, octet) }
    default:
      return { type: 'malformed', reason: `RFC 2217 code ${code} from a ${sender}` }
  }
}

function decodeControl(octet: number): SetMessage {
  const outputFlow = OCTETS['set-output-flow'].get(octet)
  if (outputFlow !== undefined) return { type: 'set-output-flow', value: outputFlow }
  const inputFlow = OCTETS['set-input-flow'].get(octet)
  if (inputFlow !== undefined) return { type: 'set-input-flow', value: inputFlow }
  for (const type of ['set-break', 'set-dtr', 'set-rts'] as const) {
    const value = OCTETS[type].get(octet)
    if (value !== undefined) return { type, value }
  }
  return { type: 'set-control', value: { unknown: octet } }
}

function decodeBaudRate(value: Uint8Array): SetMessage {
  const type = 'set-baud-rate'
  if (value.length === 1) {
    const index = value[0] as number
    if (index === 0) return { type, value: 'query', form: 'cisco' }
    return { type, value: CISCO_BAUD_RATES.get(index) ?? { unknown: index }, form: 'cisco' }
  }
  // Two or three octets are no number in either form. They are read as a query, so that the peer hears what is in force.
  if (value.length < 4) return { type, value: 'query' }
  const rate = new DataView(value.buffer, value.byteOffset).getUint32(0)
  return { type, value: rate === 0 ? 'query' : rate }
}

function octetsOfBaudRate({ value, form }: SetMessage & { type: 'set-baud-rate' }): number[] {
  if (typeof value === 'object') return [value.unknown]
  if (form === 'cisco') {
    if (value === 'query') return [0]
    // A rate that Cisco's table doesn't have goes out in four octets: a peer that knows the one form knows the other.
    for (const [index, rate] of CISCO_BAUD_RATES) if (rate === value) return [index]
  }
  const rate = value === 'query' ? 0 : value
  if (value !== 'query' && !(Number.isInteger(rate) && rate >= 1 && rate <= MAX_BAUD_RATE))
    throw new Rfc2217Error(`RFC 2217 has no baud rate ${rate}: whole numbers from 1 to ${MAX_BAUD_RATE}`)
  return [rate >>> 24, (rate >>> 16) & 0xff, (rate >>> 8) & 0xff, rate & 0xff]
}

function wordOf<T>(octets: ReadonlyMap<number, T>, octet: number): T | Unknown {
  return octets.get(octet) ?? { unknown: octet }
}

function octetOf<T>(octets: ReadonlyMap<number, T>, value: T | Unknown): number {
  for (const [octet, word] of octets) if (word === value) return octet
  if (typeof value === 'object' && value !== null && 'unknown' in value) return value.unknown
  throw new Rfc2217Error(`RFC 2217 has no octet for ${String(value)}`)
}

function octetOfMask(mask: number): number {
  if (!(Number.isInteger(mask) && mask >= 0 && mask <= 0xff))
    throw new Rfc2217Error(`${mask} is no mask of eight bits`)
  return mask
}

/** One character per octet: the RFC means ASCII, but some servers put other things in. */
function textOf(octets: Uint8Array): string {
  let text = ''
  for (const octet of octets) text += String.fromCharCode(octet)
  return text
}

function octetsOfText(text: string): number[] {
  return Array.from(text, (character) => {
    const code = character.codePointAt(0) as number
    return code > 0xff ? 0x3f : code
  })
}
