/** What a probe asks of a server, as data. */
import { BAUD_RATE, type Heard, message, octets } from './probe-connection.ts'

const CONTROL = 5
const PURGE = 12

/** The values of SET-CONTROL that answer a question about one thing. */
const OUTPUT_FLOW = [1, 2, 3, 17, 19]
const INPUT_FLOW = [14, 15, 16, 18]
const BREAK = [5, 6]
const DTR = [8, 9]
const RTS = [11, 12]

const WAITS = 'a program that sets it waits for the answer; pyserial raises after 3 s'
const NO_OPENING = 'pyserial can’t open this port without ign_set_control'

export interface Setting {
  readonly name: string
  readonly code: number
  readonly query: number
  /** The values that belong to it, where others have the same code. */
  readonly group?: readonly number[]
  /** The server's own to move: another state in the answer is a false one, and not what the hardware allows. */
  readonly isState?: true
  /** What a user feels when setting it has no answer. */
  readonly breaks: string
}

/** What is set, by code and, for SET-CONTROL, by the values that belong together. In the order to set it again. */
export const SETTINGS = [
  {
    ...{ name: 'baud rate', code: BAUD_RATE, query: 0 },
    breaks:
      'a program that sets this rate waits for the answer, and fails or runs at a rate it does not know',
  },
  { name: 'data bits', code: 2, query: 0, breaks: WAITS },
  { name: 'parity', code: 3, query: 0, breaks: WAITS },
  { name: 'stop bits', code: 4, query: 0, breaks: WAITS },
  { name: 'outbound flow control', code: CONTROL, query: 0, group: OUTPUT_FLOW, breaks: NO_OPENING },
  {
    ...{ name: 'inbound flow control', code: CONTROL, query: 13, group: INPUT_FLOW },
    breaks: 'a program can’t have flow control in one direction only',
  },
  {
    ...{ name: 'break', code: CONTROL, query: 4, group: BREAK, isState: true },
    breaks: 'a program can’t tell whether the break is on',
  },
  { name: 'DTR', code: CONTROL, query: 7, group: DTR, isState: true, breaks: NO_OPENING },
  { name: 'RTS', code: CONTROL, query: 10, group: RTS, isState: true, breaks: NO_OPENING },
] as const satisfies readonly Setting[]

interface Trial {
  readonly of: (typeof SETTINGS)[number]['name']
  readonly value: number
  /** What the value is called. */
  readonly name: string
}

const RATES = [9600, 115_200, 230_400, 250_000, 460_800, 921_600, 1_000_000, 3_000_000, 12_345, 74_880]

export const VALUES: readonly Trial[] = [
  ...RATES.map((rate) => ({ of: 'baud rate' as const, value: rate, name: `${rate}` })),
  { of: 'stop bits', value: 2, name: '2' },
  { of: 'stop bits', value: 3, name: '1.5' },
  { of: 'stop bits', value: 1, name: '1' },
  { of: 'outbound flow control', value: 2, name: 'XON/XOFF' },
  { of: 'outbound flow control', value: 3, name: 'RTS/CTS' },
  { of: 'outbound flow control', value: 17, name: 'DCD' },
  { of: 'outbound flow control', value: 19, name: 'DSR' },
  { of: 'outbound flow control', value: 1, name: 'none' },
  { of: 'inbound flow control', value: 15, name: 'XON/XOFF' },
  { of: 'inbound flow control', value: 16, name: 'RTS/CTS' },
  { of: 'inbound flow control', value: 18, name: 'DTR' },
  { of: 'inbound flow control', value: 14, name: 'none' },
  { of: 'break', value: 5, name: 'on' },
  { of: 'break', value: 6, name: 'off' },
  { of: 'DTR', value: 9, name: 'off' },
  { of: 'DTR', value: 8, name: 'on' },
  { of: 'RTS', value: 12, name: 'off' },
  { of: 'RTS', value: 11, name: 'on' },
]

/** Tried behind the others: a server whose driver refuses one of them (a PTY's does) may end. */
export const FRAMING: readonly Trial[] = [
  ...[5, 6, 7, 8].map((bits) => ({ of: 'data bits' as const, value: bits, name: `${bits}` })),
  ...['odd', 'even', 'mark', 'space'].map((name, i) => ({ of: 'parity' as const, value: i + 2, name })),
  { of: 'parity', value: 1, name: 'none' },
]

interface Request {
  readonly name: string
  /** A code and its value. */
  readonly payload: readonly number[]
  readonly breaks?: string
}

export const PURGES: readonly Request[] = ['the device’s bytes', 'the client’s bytes', 'both'].map(
  (what, i) => ({
    ...{ name: `purge ${what}`, payload: [PURGE, i + 1] },
    breaks: 'a flush does not end; pyserial can’t open this port',
  }),
)

/** What an honest server answers with the value in force. */
export const OUTSIDE: readonly Request[] = [
  { name: 'data bits 9', payload: [2, 9] },
  { name: 'parity 6', payload: [3, 6] },
  { name: 'stop bits 4', payload: [4, 4] },
  { name: 'control 20', payload: [CONTROL, 20] },
  { name: 'purge 4', payload: [PURGE, 4] },
]

/** What some servers never recover from. */
export const HAZARDS: readonly Request[] = [
  { name: 'an empty NOTIFY-LINESTATE', payload: [6], breaks: 'pyserial’s poll_modem has no answer' },
  { name: 'an empty NOTIFY-MODEMSTATE', payload: [7], breaks: 'pyserial’s poll_modem has no answer' },
  { name: 'a baud rate with 0xff in it', payload: [BAUD_RATE, ...octets(0x00ff00ff)] },
  { name: 'baud rate 4294967295', payload: [BAUD_RATE, ...octets(0xffffffff)] },
  { name: 'a baud rate in one octet (Cisco)', payload: [BAUD_RATE, 14] },
]

export function settingOf({ of }: Trial): Setting {
  return SETTINGS.find(({ name }) => name === of) as Setting
}

/** What a value of a setting is called. */
export function nameOf({ name }: Setting, value: number): string {
  return [...VALUES, ...FRAMING].find((one) => one.of === name && one.value === value)?.name ?? `${value}`
}

export function setMessage({ code }: Setting, value: number): Uint8Array {
  return code === BAUD_RATE ? message(code, ...octets(value)) : message(code, value)
}

/** The values that answer a question about this setting, in the order they came. */
export function valuesIn({ payloads }: Heard, { code, group }: Setting): number[] {
  return payloads
    .filter((payload) => payload[0] === code + 100 && payload.length > 1)
    .map((payload) => (code === BAUD_RATE ? baudRateIn(payload.subarray(1)) : (payload[1] as number)))
    .filter((value) => group === undefined || group.includes(value))
}

/** sredird sends eight octets of a 64-bit number, in either order of the machine: the rate is in the first four. */
export function baudRateIn(value: Uint8Array): number {
  if (value.length < 4) return value[0] ?? 0
  return new DataView(value.buffer, value.byteOffset).getUint32(0)
}
