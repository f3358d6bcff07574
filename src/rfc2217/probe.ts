/**
 * Asks an RFC 2217 server everything a client may ask, and says of each answer whether it is right. It holds no stream and
 * no timer: the caller gives an `Ask` that sends bytes and gathers what comes back.
 *
 * The order matters. What the port is set to is asked first and set again at the end; what some servers never recover
 * from (an escaped 0xff, a message of unusual length) comes last, and on a new connection each time one was lost.
 */
import { AYT, BINARY, BRK, DO, DONT, NOP, type Verb, WILL, WONT } from '../telnet/bytes.ts'
import { command, concat, negotiate, subnegotiation } from '../telnet/encoder.ts'
import { COM_PORT } from './messages.ts'

/**
 * `refused`: an answer as it should be, by which the server keeps another value in force, which the RFC allows. `wrong` is
 * an answer that means something else, or that costs the connection.
 */
export type ProbeVerdict = 'right' | 'refused' | 'wrong' | 'silent'

export interface ProbeFinding {
  readonly request: string
  readonly answer: string
  readonly verdict: ProbeVerdict
  /** What a user feels of it; a sentence without its end. */
  readonly breaks?: string
}

export interface ProbeReport {
  readonly findings: readonly ProbeFinding[]
  /** What could not be set back to how it was found, in words. */
  readonly leftChanged: readonly string[]
}

/** What came after a question. */
export interface Heard {
  /** Of subnegotiations of COM-PORT, without telnet's escapes. */
  readonly payloads: readonly Uint8Array[]
  readonly negotiations: readonly { readonly verb: Verb; readonly option: number }[]
  /** The server has closed the connection, or takes no new one. */
  readonly closed: boolean
  readonly tookMs: number
}

export interface Question {
  readonly bytes: Uint8Array
  /** Nothing more is awaited when this holds, or after `waitMs`. */
  readonly enough: (heard: Heard) => boolean
  readonly waitMs: number
  /** On a new connection; the old one is of no use any more. */
  readonly anew: boolean
}

export type Ask = (question: Question) => Promise<Heard>

const UNKNOWN_OPTION = 99

const OPENING_WAIT_MS = 3_000
const SHORTEST_WAIT_MS = 300
const LONGEST_WAIT_MS = 2_000

const BAUD_RATE = 1
const CONTROL = 5
const PURGE = 12

/** The values of SET-CONTROL that answer a question about one thing. */
const OUTPUT_FLOW = [1, 2, 3, 17, 19]
const INPUT_FLOW = [14, 15, 16, 18]
const BREAK = [5, 6]
const DTR = [8, 9]
const RTS = [11, 12]

/** What is set, by code and, for SET-CONTROL, by the values that belong together. In the order to set it again. */
const SETTINGS = [
  { name: 'baud rate', code: BAUD_RATE, query: 0 },
  { name: 'data bits', code: 2, query: 0 },
  { name: 'parity', code: 3, query: 0 },
  { name: 'stop bits', code: 4, query: 0 },
  { name: 'outbound flow control', code: CONTROL, query: 0, group: OUTPUT_FLOW },
  { name: 'inbound flow control', code: CONTROL, query: 13, group: INPUT_FLOW },
  { name: 'break', code: CONTROL, query: 4, group: BREAK },
  { name: 'DTR', code: CONTROL, query: 7, group: DTR },
  { name: 'RTS', code: CONTROL, query: 10, group: RTS },
] as const satisfies readonly Setting[]

interface Setting {
  readonly name: string
  readonly code: number
  readonly query: number
  readonly group?: readonly number[]
}
type SettingName = (typeof SETTINGS)[number]['name']

interface Trial {
  readonly of: SettingName
  readonly value: number
  /** What the value is called. */
  readonly name: string
}

const VALUES: readonly Trial[] = [
  ...[9600, 115_200, 230_400, 250_000, 460_800, 921_600, 1_000_000, 3_000_000, 12_345, 74_880].map(
    (rate) => ({
      ...{ of: 'baud rate' as const, value: rate, name: `${rate}` },
    }),
  ),
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
const FRAMING: readonly Trial[] = [
  ...[5, 6, 7, 8].map((bits) => ({ of: 'data bits' as const, value: bits, name: `${bits}` })),
  ...['odd', 'even', 'mark', 'space'].map((name, i) => ({ of: 'parity' as const, value: i + 2, name })),
  { of: 'parity', value: 1, name: 'none' },
]

const BREAKS: Record<SettingName, string> = {
  'baud rate':
    'a program that sets this rate waits for the answer, and fails or runs at a rate it does not know',
  'data bits': 'a program that sets it waits for the answer; pyserial raises after 3 s',
  parity: 'a program that sets it waits for the answer; pyserial raises after 3 s',
  'stop bits': 'a program that sets it waits for the answer; pyserial raises after 3 s',
  'outbound flow control': 'pyserial can’t open this port without ign_set_control',
  'inbound flow control': 'a program can’t have flow control in one direction only',
  break: 'a program can’t tell whether the break is on',
  DTR: 'pyserial can’t open this port without ign_set_control',
  RTS: 'pyserial can’t open this port without ign_set_control',
}

/** Asks everything, in order. Rejects only where `ask` does. */
export async function probeServer(ask: Ask): Promise<ProbeReport> {
  return await new Probe(ask).run()
}

/** There is nobody left to ask. */
class ServerGone extends Error {}

class Probe {
  readonly #ask: Ask
  readonly #findings: ProbeFinding[] = []
  /** How the port was found, by the words of SETTINGS. */
  readonly #found = new Map<string, number>()
  /** Settings that have been touched. */
  readonly #touched = new Set<string>()
  #waitMs = OPENING_WAIT_MS
  #lost = false

  constructor(ask: Ask) {
    this.#ask = ask
  }

  async run(): Promise<ProbeReport> {
    try {
      return { findings: this.#findings, leftChanged: await this.#askAll() }
    } catch (error) {
      if (!(error instanceof ServerGone)) throw error
      const leftChanged = [...this.#touched].map((name) => `${name}: the server has gone`)
      return { findings: this.#findings, leftChanged }
    }
  }

  async #askAll(): Promise<string[]> {
    if (!(await this.#opening())) return []
    await this.#signature()
    for (const setting of SETTINGS) await this.#query(setting)
    for (const { of, value, name } of VALUES) await this.#set(settingOf(of), value, name)
    await this.#masks(0)
    for (const [value, name] of ['the device’s bytes', 'the client’s bytes', 'both'].entries())
      await this.#plain(
        `purge ${name}`,
        [PURGE, value + 1],
        [PURGE + 100, value + 1],
        'a flush does not end; pyserial can’t open this port',
      )
    await this.#suspend()
    await this.#silentCommand('IAC NOP', command(NOP))
    await this.#silentCommand('IAC AYT', command(AYT))
    await this.#silentCommand('IAC BRK', command(BRK))
    for (const { of, value, name } of FRAMING) await this.#set(settingOf(of), value, name)
    await this.#restore()

    // What an honest server answers with the value in force.
    await this.#outside('data bits 9', [2, 9])
    await this.#outside('parity 6', [3, 6])
    await this.#outside('stop bits 4', [4, 4])
    await this.#outside('control 20', [CONTROL, 20])
    await this.#outside('purge 4', [PURGE, 4])

    await this.#masks(255)
    for (const [code, name] of ['line', 'modem'].entries())
      await this.#hazard(
        `an empty NOTIFY-${name.toUpperCase()}STATE`,
        [6 + code],
        6 + code,
        'pyserial’s poll_modem has no answer',
      )
    await this.#hazard('a baud rate with 0xff in it', [BAUD_RATE, ...octets(0x00ff00ff)], BAUD_RATE)
    await this.#hazard('baud rate 4294967295', [BAUD_RATE, ...octets(0xffffffff)], BAUD_RATE)
    await this.#hazard('a baud rate in one octet (Cisco)', [BAUD_RATE, 14], BAUD_RATE)
    await this.#afterCisco()
    return await this.#restore()
  }

  async #opening(): Promise<boolean> {
    const heard = await this.#put(
      opening(),
      (h) => agreed(h, COM_PORT) && has(h, [107]) && says(h, WILL, BINARY) && says(h, DO, BINARY),
    )
    if (!agreed(heard, COM_PORT)) {
      this.#tell({
        ...{
          request: 'RFC 2217 (option 44)',
          answer: heard.closed ? 'closes the connection' : 'does not agree',
        },
        ...{ verdict: 'wrong', breaks: 'nothing but bytes passes: no settings, no lines' },
      })
      return false
    }
    this.#tell({ request: 'RFC 2217 (option 44)', answer: 'agrees', verdict: 'right' })
    this.#binary(heard)
    this.#firstModemState(heard)
    const timed = await this.#put(message(BAUD_RATE, ...octets(0)), (h) => has(h, [101]))
    if (has(timed, [101]))
      this.#waitMs = Math.min(LONGEST_WAIT_MS, Math.max(SHORTEST_WAIT_MS, 4 * timed.tookMs + 150))
    else this.#waitMs = LONGEST_WAIT_MS
    await this.#unknownOption()
    return true
  }

  #binary(heard: Heard): void {
    const both = says(heard, WILL, BINARY) && says(heard, DO, BINARY)
    this.#tell(
      both
        ? { request: 'BINARY, both ways', answer: 'agrees', verdict: 'right' }
        : {
            ...{ request: 'BINARY, both ways', answer: 'does not agree', verdict: 'wrong' },
            breaks: 'a client may have to pad CR, and a strict one does',
          },
    )
  }

  #firstModemState(heard: Heard): void {
    const request = 'the modem lines, unasked'
    const bits = heard.payloads.find(([code]) => code === 107)?.[1]
    if (bits === undefined)
      this.#tell({
        ...{ request, answer: 'nothing', verdict: 'silent' },
        breaks: 'a program that asks for CTS, DSR, RI or DCD has no answer; pyserial raises',
      })
    else if ((bits & 0x0f) !== 0)
      this.#tell({
        ...{ request, answer: `NOTIFY-MODEMSTATE ${bits}, with changes`, verdict: 'wrong' },
        breaks: 'lines seem to have changed that did not',
      })
    else this.#tell({ request, answer: `NOTIFY-MODEMSTATE ${bits}`, verdict: 'right' })
  }

  async #unknownOption(): Promise<void> {
    const refused = (h: Heard) => says(h, WONT, UNKNOWN_OPTION) && says(h, DONT, UNKNOWN_OPTION)
    const bytes = concat([negotiate(DO, UNKNOWN_OPTION), negotiate(WILL, UNKNOWN_OPTION)])
    const heard = await this.#put(bytes, refused)
    const request = 'an option nobody has'
    if (refused(heard)) this.#tell({ request, answer: 'refused', verdict: 'right' })
    else if (
      heard.negotiations.some(
        ({ verb, option }) => option === UNKNOWN_OPTION && (verb === DO || verb === WILL),
      )
    )
      this.#tell({
        ...{ request, answer: 'agreed to', verdict: 'wrong' },
        breaks: 'a client believes in an option that does nothing',
      })
    else
      this.#tell({
        ...{ request, answer: 'no refusal', verdict: 'silent' },
        breaks: 'a telnet client waits for the refusal',
      })
  }

  async #signature(): Promise<void> {
    const heard = await this.#put(message(0), (h) => has(h, [100]))
    const request = 'its signature'
    const text = heard.payloads.find(([code]) => code === 100)
    if (text === undefined)
      this.#none(heard, request, 'a program can’t tell what it talks to, and work around what it knows')
    else this.#tell({ request, answer: printable(text.subarray(1)), verdict: 'right' })
  }

  async #query(setting: Setting): Promise<void> {
    const { name, code, query } = setting
    const request = `${name}?`
    const heard = await this.#put(
      code === BAUD_RATE ? message(code, ...octets(query)) : message(code, query),
      (h) => valuesIn(h, setting).length > 0,
    )
    const value = valuesIn(heard, setting).at(-1)
    const longest = Math.max(...heard.payloads.filter(([c]) => c === 101).map(({ length }) => length - 1))
    // A rate of 0 is what nobody told the server, and setting it would only ask again.
    if (value !== undefined && !(code === BAUD_RATE && value === 0)) this.#found.set(name, value)
    if (value === undefined) this.#noneOf(heard, setting, request, `a program can’t learn it`)
    else if (code === BAUD_RATE && longest !== 4)
      this.#tell({
        ...{ request, answer: `${value}, in ${longest} octets and not in 4`, verdict: 'wrong' },
        breaks: 'strict clients (hub4com) take it for no answer',
      })
    else this.#tell({ request, answer: nameOf(setting, value), verdict: 'right' })
  }

  async #set(setting: Setting, value: number, called: string): Promise<void> {
    const { name, code } = setting
    const request = `${name} ${called}`
    this.#touched.add(name)
    const heard = await this.#put(setMessage(setting, value), (h) => valuesIn(h, setting).includes(value))
    const values = valuesIn(heard, setting)
    const got = values.at(-1)
    if (values.includes(value)) this.#tell({ request, answer: called, verdict: 'right' })
    else if (got === undefined) this.#noneOf(heard, setting, request, BREAKS[name as SettingName])
    // A break and the lines are the server's own to move: another state in the answer is a false one.
    else if (code === CONTROL && setting.group !== OUTPUT_FLOW && setting.group !== INPUT_FLOW)
      this.#tell({
        ...{ request, answer: nameOf(setting, got), verdict: 'wrong', breaks: BREAKS[name as SettingName] },
      })
    else
      this.#tell({
        ...{ request, answer: `stays at ${nameOf(setting, got)}`, verdict: 'refused' },
        breaks: 'this port has no such setting, or the server does not know it',
      })
  }

  async #masks(value: number): Promise<void> {
    for (const [code, name] of [
      [10, 'line state'],
      [11, 'modem state'],
    ] as const) {
      const request = `mask of the ${name} ${value}`
      const heard = await this.#put(message(code, value), (h) => has(h, [code + 100, value]))
      const alive = value === 255 ? await this.#alive(heard) : !heard.closed
      const other = heard.payloads.find(([c]) => c === code + 96)
      const breaks = `a program can’t know whether it will hear of the ${name}`
      if (!alive) this.#broken(heard, request)
      else if (has(heard, [code + 100, value])) this.#tell({ request, answer: `${value}`, verdict: 'right' })
      else if (other !== undefined && !has(heard, [code + 100]))
        this.#tell({ request, answer: `code ${code + 96} and not ${code + 100}`, verdict: 'wrong', breaks })
      else this.#none(heard, request, breaks)
    }
  }

  async #plain(request: string, payload: number[], expected: number[], breaks: string): Promise<void> {
    const heard = await this.#put(message(...payload), (h) => has(h, expected))
    if (has(heard, expected)) this.#tell({ request, answer: 'done', verdict: 'right' })
    else this.#none(heard, request, breaks)
  }

  /** The RFC has data and commands held back, so nothing is to come of a question in between. */
  async #suspend(): Promise<void> {
    const request = 'FLOWCONTROL-SUSPEND'
    const breaks = 'a client that can take no more gets more'
    const held = await this.#put(concat([message(8), message(BAUD_RATE, ...octets(0))]), (h) => has(h, [101]))
    if (has(held, [101])) {
      const answer = has(held, [105]) ? 'answers it as a control, and goes on' : 'goes on answering'
      this.#tell({ request, answer, verdict: 'wrong', breaks })
    } else if (held.closed) this.#none(held, request, breaks)
    else this.#tell({ request, answer: 'holds its answers', verdict: 'right' })
    const after = await this.#put(message(9), (h) => has(h, [101]))
    if (has(held, [101]) || has(after, [101]))
      this.#tell({ request: 'FLOWCONTROL-RESUME', answer: 'goes on', verdict: 'right' })
    else this.#none(after, 'FLOWCONTROL-RESUME', 'what was held back is lost')
  }

  /** A command without an answer: all that can be seen is that it does no harm. */
  async #silentCommand(request: string, bytes: Uint8Array): Promise<void> {
    const heard = await this.#put(concat([bytes, message(BAUD_RATE, ...octets(0))]), (h) => has(h, [101]))
    if (has(heard, [101])) this.#tell({ request, answer: 'taken', verdict: 'right' })
    else this.#broken(heard, request)
  }

  /** A value the RFC's tables don't have: any answer of the same kind says what is in force. */
  async #outside(request: string, payload: number[]): Promise<void> {
    const code = (payload[0] ?? 0) + 100
    const heard = await this.#put(message(...payload), (h) => has(h, [code]))
    const got = heard.payloads.find(([c]) => c === code)
    if (got !== undefined) this.#tell({ request, answer: `${got[1] ?? 'empty'}`, verdict: 'right' })
    else this.#none(heard, request, 'a program waits for the answer, some for seconds')
  }

  async #hazard(request: string, payload: number[], code: number, breaks?: string): Promise<void> {
    if (code === BAUD_RATE) this.#touched.add('baud rate')
    const heard = await this.#put(message(...payload), (h) => has(h, [code + 100]))
    const got = heard.payloads.find(([c]) => c === code + 100)
    if (!(await this.#alive(heard))) this.#broken(heard, request)
    else if (got !== undefined) this.#tell({ request, answer: answerText(got.subarray(1)), verdict: 'right' })
    else this.#none(heard, request, breaks ?? 'a program waits for the answer, some for seconds')
  }

  /** ser2net answers one Cisco message in that form, and every later one. */
  async #afterCisco(): Promise<void> {
    const heard = await this.#put(message(BAUD_RATE, ...octets(0)), (h) => has(h, [101]))
    const got = heard.payloads.find(([code]) => code === 101)
    const request = 'four octets, after one'
    if (got === undefined || got.length !== 5) this.#lost = true
    if (got === undefined) this.#none(heard, request, 'one message in Cisco’s form ends the conversation')
    else if (got.length === 2)
      this.#tell({
        ...{ request, answer: 'in one octet', verdict: 'wrong' },
        breaks: 'a client that tries both forms can’t set other rates any more',
      })
    else this.#tell({ request, answer: answerText(got.subarray(1)), verdict: 'right' })
  }

  /** Sets what was touched to what it was; gives the names of what could not be. */
  async #restore(): Promise<string[]> {
    const left: string[] = []
    for (const setting of SETTINGS) {
      if (!this.#touched.has(setting.name)) continue
      const value = this.#found.get(setting.name)
      if (value === undefined) {
        left.push(`${setting.name}: the server does not tell what it was`)
        continue
      }
      const heard = await this.#put(setMessage(setting, value), (h) => valuesIn(h, setting).includes(value))
      if (valuesIn(heard, setting).includes(value)) this.#touched.delete(setting.name)
      else left.push(`${setting.name}: it was ${nameOf(setting, value)}, and the server did not confirm it`)
    }
    return left
  }

  /** Whether the connection is still good for a question. */
  async #alive(heard: Heard): Promise<boolean> {
    if (!heard.closed) {
      const again = await this.#put(message(BAUD_RATE, ...octets(0)), (h) => has(h, [101]))
      if (has(again, [101])) return true
    }
    this.#lost = true
    return false
  }

  async #put(bytes: Uint8Array, enough: (heard: Heard) => boolean): Promise<Heard> {
    if (this.#lost) {
      this.#lost = false
      const opened = await this.#ask({
        ...{ bytes: opening(), anew: true, waitMs: OPENING_WAIT_MS },
        enough: (h) => agreed(h, COM_PORT),
      })
      if (opened.closed) {
        this.#tell({
          ...{ request: 'another connection', answer: 'refused', verdict: 'wrong' },
          breaks: 'after the last message nobody can use this port',
        })
        throw new ServerGone()
      }
    }
    const heard = await this.#ask({ bytes, enough, waitMs: this.#waitMs, anew: false })
    if (heard.closed) this.#lost = true
    return heard
  }

  #tell(finding: ProbeFinding): void {
    this.#findings.push(finding)
  }

  #none(heard: Heard, request: string, breaks: string): void {
    if (heard.closed) this.#broken(heard, request)
    else this.#tell({ request, answer: 'nothing', verdict: 'silent', breaks })
  }

  /** No answer, or one that is about something else. */
  #noneOf(heard: Heard, { code }: Setting, request: string, breaks: string): void {
    const other = heard.payloads.findLast(([c]) => c === code + 100)
    if (heard.closed || other === undefined) this.#none(heard, request, breaks)
    else this.#tell({ request, answer: answerText(other.subarray(1)), verdict: 'wrong', breaks })
  }

  #broken({ closed }: Heard, request: string): void {
    this.#lost = true
    this.#tell({
      request,
      answer: closed ? 'the connection is closed' : 'no answers any more on this connection',
      verdict: 'wrong',
      breaks: 'a program that asks this loses the port',
    })
  }
}

function opening(): Uint8Array {
  return concat([
    ...[negotiate(WILL, COM_PORT), negotiate(DO, COM_PORT)],
    ...[negotiate(WILL, BINARY), negotiate(DO, BINARY)],
  ])
}

function message(...payload: number[]): Uint8Array {
  return subnegotiation(COM_PORT, Uint8Array.from(payload))
}

function setMessage({ code }: Setting, value: number): Uint8Array {
  return code === BAUD_RATE ? message(code, ...octets(value)) : message(code, value)
}

function octets(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff]
}

function settingOf(name: SettingName): Setting {
  return SETTINGS.find((setting) => setting.name === name) as Setting
}

/** The values that answer a question about this setting, in the order they came. */
function valuesIn({ payloads }: Heard, { code, group }: Setting): number[] {
  return payloads
    .filter((payload) => payload[0] === code + 100 && payload.length > 1)
    .map((payload) => (code === BAUD_RATE ? baudRateIn(payload.subarray(1)) : (payload[1] as number)))
    .filter((value) => group === undefined || group.includes(value))
}

/** sredird sends eight octets of a 64-bit number, in either order of the machine: the rate is in the first four. */
function baudRateIn(value: Uint8Array): number {
  if (value.length < 4) return value[0] ?? 0
  return new DataView(value.buffer, value.byteOffset).getUint32(0)
}

function agreed(heard: Heard, option: number): boolean {
  return says(heard, DO, option) || says(heard, WILL, option)
}

function says({ negotiations }: Heard, verb: Verb, option: number): boolean {
  return negotiations.some((one) => one.verb === verb && one.option === option)
}

/** Whether a payload begins so. */
function has({ payloads }: Heard, start: readonly number[]): boolean {
  return payloads.some((payload) => start.every((octet, i) => payload[i] === octet))
}

function nameOf({ name }: Setting, value: number): string {
  return [...VALUES, ...FRAMING].find((one) => one.of === name && one.value === value)?.name ?? `${value}`
}

function answerText(value: Uint8Array): string {
  return value.length === 4 ? `${baudRateIn(value)}` : Array.from(value).join(' ') || 'empty'
}

function printable(text: Uint8Array): string {
  const shown = Array.from(text.subarray(0, 60), (octet) =>
    octet >= 0x20 && octet < 0x7f ? String.fromCharCode(octet) : '.',
  ).join('')
  return `“${shown}”`
}
