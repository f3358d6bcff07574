/**
 * Asks an RFC 2217 server everything a client may ask, and says of each answer whether it is right. It holds no stream and
 * no timer: the caller gives an `Ask` that sends bytes and gathers what comes back.
 *
 * The order matters. What the port is set to is asked first and set again at the end; what some servers never recover
 * from (an escaped 0xff, a message of unusual length) comes last, and on a new connection each time one was lost.
 */
import { AYT, BINARY, BRK, DO, DONT, NOP, WILL, WONT } from '../telnet/bytes.ts'
import { command, concat, negotiate } from '../telnet/encoder.ts'
import { COM_PORT } from './messages.ts'
import {
  type Ask,
  agreed,
  BAUD_RATE,
  type Heard,
  has,
  message,
  ProbeConnection,
  payloadOf,
  ServerGone,
  says,
} from './probe-connection.ts'
import { answerText, type ProbeFinding, ProbeFindings } from './probe-findings.ts'
import {
  FRAMING,
  HAZARDS,
  nameOf,
  OUTSIDE,
  PURGES,
  SETTINGS,
  type Setting,
  setMessage,
  settingOf,
  VALUES,
  valuesIn,
} from './probe-table.ts'

export interface ProbeReport {
  readonly findings: readonly ProbeFinding[]
  /** What could not be set back to how it was found, in words. */
  readonly leftChanged: readonly string[]
}

const UNKNOWN_OPTION = 99

const NO_ANSWER = 'a program waits for the answer, some for seconds'

/** Asks everything, in order. Rejects only where `ask` does. */
export async function probeServer(ask: Ask): Promise<ProbeReport> {
  return await new Probe(ask).run()
}

class Probe {
  readonly #connection: ProbeConnection
  readonly #findings: ProbeFindings
  /** How the port was found, by the names of SETTINGS. */
  readonly #found = new Map<string, number>()
  /** Settings that have been touched. */
  readonly #touched = new Set<string>()

  constructor(ask: Ask) {
    this.#connection = new ProbeConnection(ask)
    this.#findings = new ProbeFindings(() => this.#connection.lose())
  }

  async run(): Promise<ProbeReport> {
    try {
      return { findings: this.#findings.all, leftChanged: await this.#askAll() }
    } catch (error) {
      if (!(error instanceof ServerGone)) throw error
      this.#findings.wrong('another connection', 'refused', 'after the last message nobody can use this port')
      const leftChanged = [...this.#touched].map((name) => `${name}: the server has gone`)
      return { findings: this.#findings.all, leftChanged }
    }
  }

  /** Gives what could not be set back. */
  async #askAll(): Promise<string[]> {
    if (!(await this.#opening())) return []
    await this.#signature()
    for (const setting of SETTINGS) await this.#query(setting)
    for (const trial of VALUES) await this.#set(settingOf(trial), trial.value, trial.name)
    await this.#masks(0)
    for (const purge of PURGES) await this.#purge(purge)
    await this.#suspend()
    await this.#silentCommand('IAC NOP', command(NOP))
    await this.#silentCommand('IAC AYT', command(AYT))
    await this.#silentCommand('IAC BRK', command(BRK))
    for (const trial of FRAMING) await this.#set(settingOf(trial), trial.value, trial.name)
    await this.#restore()

    for (const request of OUTSIDE) await this.#outside(request)
    await this.#masks(255)
    for (const hazard of HAZARDS) await this.#hazard(hazard)
    await this.#afterCisco()
    return await this.#restore()
  }

  async #opening(): Promise<boolean> {
    const request = 'RFC 2217 (option 44)'
    const heard = await this.#connection.open()
    if (!agreed(heard, COM_PORT)) {
      const answer = heard.closed ? 'closes the connection' : 'does not agree'
      this.#findings.wrong(request, answer, 'nothing but bytes passes: no settings, no lines')
      return false
    }
    this.#findings.right(request, 'agrees')
    this.#binary(heard)
    this.#firstModemState(heard)
    await this.#connection.measure()
    await this.#unknownOption()
    return true
  }

  #binary(heard: Heard): void {
    const request = 'BINARY, both ways'
    if (says(heard, WILL, BINARY) && says(heard, DO, BINARY)) this.#findings.right(request, 'agrees')
    else this.#findings.wrong(request, 'does not agree', 'a client may have to pad CR, and a strict one does')
  }

  #firstModemState(heard: Heard): void {
    const request = 'the modem lines, unasked'
    const bits = payloadOf(heard, 107)?.[1]
    const answer = `NOTIFY-MODEMSTATE ${bits}`
    if (bits === undefined)
      this.#findings.silent(
        request,
        'a program that asks for CTS, DSR, RI or DCD has no answer; pyserial raises',
      )
    else if ((bits & 0x0f) === 0) this.#findings.right(request, answer)
    else this.#findings.wrong(request, `${answer}, with changes`, 'lines seem to have changed that did not')
  }

  async #unknownOption(): Promise<void> {
    const request = 'an option nobody has'
    const refused = (h: Heard) => says(h, WONT, UNKNOWN_OPTION) && says(h, DONT, UNKNOWN_OPTION)
    const bytes = concat([negotiate(DO, UNKNOWN_OPTION), negotiate(WILL, UNKNOWN_OPTION)])
    const heard = await this.#connection.put(bytes, refused)
    if (refused(heard)) this.#findings.right(request, 'refused')
    else if (agreed(heard, UNKNOWN_OPTION))
      this.#findings.wrong(request, 'agreed to', 'a client believes in an option that does nothing')
    else this.#findings.silent(request, 'a telnet client waits for the refusal', 'no refusal')
  }

  async #signature(): Promise<void> {
    const heard = await this.#connection.put(message(0), (h) => has(h, [100]))
    const request = 'its signature'
    const text = payloadOf(heard, 100)
    if (text === undefined)
      this.#findings.none(
        heard,
        request,
        'a program can’t tell what it talks to, and work around what it knows',
      )
    else this.#findings.right(request, printable(text.subarray(1)))
  }

  async #query(setting: Setting): Promise<void> {
    const { name, query } = setting
    const request = `${name}?`
    const heard = await this.#connection.put(
      setMessage(setting, query),
      (h) => valuesIn(h, setting).length > 0,
    )
    const isRate = setting.code === BAUD_RATE
    const value = valuesIn(heard, setting).at(-1)
    const longest = Math.max(...heard.payloads.filter(([c]) => c === 101).map(({ length }) => length - 1))
    // A rate of 0 is what nobody told the server, and setting it would only ask again.
    if (value !== undefined && !(isRate && value === 0)) this.#found.set(name, value)
    if (value === undefined) this.#findings.noneOf(heard, setting, request, 'a program can’t learn it')
    else if (isRate && longest !== 4) {
      const answer = `${value}, in ${longest} octets and not in 4`
      this.#findings.wrong(request, answer, 'strict clients (hub4com) take it for no answer')
    } else this.#findings.right(request, nameOf(setting, value))
  }

  async #set(setting: Setting, value: number, called: string): Promise<void> {
    const { name, breaks } = setting
    const request = `${name} ${called}`
    this.#touched.add(name)
    const values = (h: Heard) => valuesIn(h, setting)
    const heard = await this.#connection.put(setMessage(setting, value), (h) => values(h).includes(value))
    const got = values(heard).at(-1)
    if (values(heard).includes(value)) this.#findings.right(request, called)
    else if (got === undefined) this.#findings.noneOf(heard, setting, request, breaks)
    else if (setting.isState) this.#findings.wrong(request, nameOf(setting, got), breaks)
    else this.#findings.refused(request, nameOf(setting, got))
  }

  async #masks(value: number): Promise<void> {
    for (const [code, name] of [
      [10, 'line state'],
      [11, 'modem state'],
    ] as const) {
      const request = `mask of the ${name} ${value}`
      const heard = await this.#connection.put(message(code, value), (h) => has(h, [code + 100, value]))
      const alive = value === 255 ? await this.#connection.isAlive(heard) : !heard.closed
      const other = has(heard, [code + 96]) && !has(heard, [code + 100])
      const breaks = `a program can’t know whether it will hear of the ${name}`
      if (!alive) this.#findings.broken(heard, request)
      else if (has(heard, [code + 100, value])) this.#findings.right(request, `${value}`)
      else if (other) this.#findings.wrong(request, `code ${code + 96} and not ${code + 100}`, breaks)
      else this.#findings.none(heard, request, breaks)
    }
  }

  async #purge({ name, payload, breaks = NO_ANSWER }: (typeof PURGES)[number]): Promise<void> {
    const [code = 0, ...value] = payload
    const done = (h: Heard) => has(h, [code + 100, ...value])
    const heard = await this.#connection.put(message(...payload), done)
    if (done(heard)) this.#findings.right(name, 'done')
    else this.#findings.none(heard, name, breaks)
  }

  /** The RFC has data and commands held back, so nothing is to come of a question in between. */
  async #suspend(): Promise<void> {
    const request = 'FLOWCONTROL-SUSPEND'
    const breaks = 'a client that can take no more gets more'
    const held = await this.#connection.askBaudRate(message(8))
    if (has(held, [101])) {
      const answer = has(held, [105]) ? 'answers it as a control, and goes on' : 'goes on answering'
      this.#findings.wrong(request, answer, breaks)
    } else if (held.closed) this.#findings.none(held, request, breaks)
    else this.#findings.right(request, 'holds its answers')
    const after = await this.#connection.put(message(9), (h) => has(h, [101]))
    if (has(held, [101]) || has(after, [101])) this.#findings.right('FLOWCONTROL-RESUME', 'goes on')
    else this.#findings.none(after, 'FLOWCONTROL-RESUME', 'what was held back is lost')
  }

  /** A command without an answer: all that can be seen is that it does no harm. */
  async #silentCommand(request: string, bytes: Uint8Array): Promise<void> {
    const heard = await this.#connection.askBaudRate(bytes)
    if (has(heard, [101])) this.#findings.right(request, 'taken')
    else this.#findings.broken(heard, request)
  }

  /** A value the RFC's tables don't have: any answer of the same kind says what is in force. */
  async #outside({ name, payload }: (typeof OUTSIDE)[number]): Promise<void> {
    const code = (payload[0] ?? 0) + 100
    const heard = await this.#connection.put(message(...payload), (h) => has(h, [code]))
    const got = payloadOf(heard, code)
    if (got !== undefined) this.#findings.right(name, `${got[1] ?? 'empty'}`)
    else this.#findings.none(heard, name, NO_ANSWER)
  }

  async #hazard({ name, payload, breaks = NO_ANSWER }: (typeof HAZARDS)[number]): Promise<void> {
    const [code = 0] = payload
    if (code === BAUD_RATE) this.#touched.add('baud rate')
    const heard = await this.#connection.put(message(...payload), (h) => has(h, [code + 100]))
    const got = payloadOf(heard, code + 100)
    if (!(await this.#connection.isAlive(heard))) this.#findings.broken(heard, name)
    else if (got !== undefined) this.#findings.right(name, answerText(got.subarray(1)))
    else this.#findings.none(heard, name, breaks)
  }

  /** ser2net answers one Cisco message in that form, and every later one. */
  async #afterCisco(): Promise<void> {
    const request = 'four octets, after one'
    const heard = await this.#connection.askBaudRate()
    const got = payloadOf(heard, 101)
    if (got?.length !== 5) this.#connection.lose()
    if (got === undefined)
      this.#findings.none(heard, request, 'one message in Cisco’s form ends the conversation')
    else if (got.length === 2)
      this.#findings.wrong(
        request,
        'in one octet',
        'a client that tries both forms can’t set other rates any more',
      )
    else this.#findings.right(request, answerText(got.subarray(1)))
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
      const confirmed = (h: Heard) => valuesIn(h, setting).includes(value)
      if (confirmed(await this.#connection.put(setMessage(setting, value), confirmed)))
        this.#touched.delete(setting.name)
      else left.push(`${setting.name}: it was ${nameOf(setting, value)}, and the server did not confirm it`)
    }
    return left
  }
}

function printable(text: Uint8Array): string {
  const shown = Array.from(text.subarray(0, 60), (octet) =>
    octet >= 0x20 && octet < 0x7f ? String.fromCharCode(octet) : '.',
  ).join('')
  return `“${shown}”`
}
