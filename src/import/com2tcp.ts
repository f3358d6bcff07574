import type { CommandLine } from './command-lines.ts'
import type { Draft, Place, PortDraft } from './draft.ts'
import { farPort, localAddress } from './far-port.ts'
import { type LineWish, lineText, plainLine } from './line-wish.ts'
import { isOff, isOn, takeFlow } from './ser2net-options.ts'

/** Of these, what is about the characters on the line. */
export const LINE_FORMAT = new Set(['baud', 'data', 'parity', 'stop'])
/** What com2tcp and hub4com say of a serial line: `--baud=9600 --parity=even`, with `=` or a word behind. */
export const LINE_OPTIONS = new Set([
  'baud',
  'data',
  'parity',
  'stop',
  'octs',
  'odsr',
  'ox',
  'ix',
  'idsr',
  'ito',
])
const WITH_WORD = new Set([...LINE_OPTIONS, 'awak-seq', 'reconnect', 'interface', 'terminal', 'write-limit'])
const PARITIES: Readonly<Record<string, LineWish['parity']>> = {
  ...{ n: 'N', no: 'N', none: 'N', e: 'E', even: 'E', o: 'O', odd: 'O' },
  ...{ m: 'M', mark: 'M', s: 'S', space: 'S' },
}

/**
 * `com2tcp-rfc2217 COM1 7000`, a port for others, and `com2tcp-rfc2217 \\.\CNCB0 HOST 7000`, a port of another machine;
 * com2tcp does the same without RFC 2217.
 */
export function readCom2tcp({ line, program, words, text }: CommandLine, draft: Draft): void {
  const place = { line, what: text }
  const operands: string[] = []
  const options: { name: string; value: string; text: string }[] = []
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string
    const [, name, said] = /^--([a-z0-9-]+)(?:=([\s\S]*))?$/i.exec(word) ?? []
    if (name === undefined) operands.push(word)
    else {
      const value = said ?? (WITH_WORD.has(name) ? words[++i] : '') ?? ''
      options.push({ name, value, text: value === '' ? word : `--${name}=${value}` })
    }
  }
  const [device, ...address] = operands
  if (device === undefined || address.length === 0 || address.length > 2) {
    draft.leaveOut(place, `${program} has a serial port and then PORT or HOST PORT`)
    return
  }
  const rfc2217 = program === 'com2tcp-rfc2217' || options.some(({ name }) => name === 'telnet')
  const wish = plainLine()
  let saysLine = false
  for (const { name, value, text: what } of options) {
    if (name === 'telnet') continue
    if (takeLineOption(wish, name, value, { line, what }, draft)) saysLine ||= LINE_FORMAT.has(name)
    else draft.leaveOut({ line, what }, whyNot(name))
  }
  if (address.length === 1) {
    const port = sharePort(draft, device, place)
    if (port !== undefined) takeLine(port, wish, saysLine, place)
  } else {
    if (saysLine)
      draft.leaveOut({ line, what: 'line' }, 'the line follows the program; line: in the link says otherwise')
    const [host = '', port = ''] = address
    linkPort(draft, { device, host, port, rfc2217 }, place)
  }
}

/** Sets the line as far as something was said of it. */
export function takeLine(port: PortDraft, wish: LineWish, saysLine: boolean, { line }: Place): void {
  if (saysLine) port.set('line', lineText(wish), { line, what: 'line' })
  takeFlow(port, wish, { line, what: 'flow control' })
}

/** A serial port for others. Windows knows COM1 as `\\.\COM1`, too. */
export function sharePort(draft: Draft, device: string, place: Place): PortDraft | undefined {
  const plain = device.replace(/^\\\\\.\\/, '')
  return draft.addPort(plain.replace(/^.*\//, ''), plain, place, [place.what])
}

interface FarPort {
  readonly device: string
  readonly host: string
  readonly port: string
  readonly rfc2217: boolean
}

/**
 * A port of another machine. On Windows farport makes no COM port: it opens a local RFC 2217 port, and the same program goes
 * on between that and com0com.
 */
export function linkPort(draft: Draft, { device, host, port, rfc2217 }: FarPort, place: Place): void {
  const target = farPort({ host, port })
  if (device.startsWith('/')) {
    draft.addLink({ port: target, serial: device }, place, [place.what])
    return
  }
  const local = localAddress(port)
  if (local === undefined) {
    draft.leaveOut(place, `“${port}” is no number of a TCP port`)
    return
  }
  draft.addLink({ port: target, [rfc2217 ? 'rfc2217' : 'raw']: local }, place, [
    place.what,
    `For ${device}, run the same command with 127.0.0.1 in the place of ${host}.`,
  ])
}

/** False for an option that is about something else than the line. */
export function takeLineOption(
  wish: LineWish,
  name: string,
  value: string,
  place: Place,
  draft: Draft,
): boolean {
  if (!LINE_OPTIONS.has(name)) return false
  // d and c: as it is, and as the other port has it, which is what happens without the option.
  if (/^(d|default|c|current)$/i.test(value)) return true
  const parity = Object.hasOwn(PARITIES, value.toLowerCase()) ? PARITIES[value.toLowerCase()] : undefined
  if (name === 'baud' && /^[1-9]\d{0,8}$/.test(value)) wish.baudRate = Number(value)
  else if (name === 'data' && /^[5-8]$/.test(value)) wish.dataBits = value as LineWish['dataBits']
  else if (name === 'stop' && /^(1|1\.5|2)$/.test(value)) wish.stopBits = value as LineWish['stopBits']
  else if (name === 'parity' && parity !== undefined) wish.parity = parity
  else if (name === 'octs' && (isOn(value) || isOff(value))) wish.rtscts = isOn(value)
  else if ((name === 'ox' || name === 'ix') && (isOn(value) || isOff(value))) wish.xonxoff ||= isOn(value)
  else if (name === 'ito') draft.leaveOut(place, 'farport sends what comes at once; pack: gathers')
  else if (!isOff(value))
    draft.leaveOut(
      place,
      name === 'odsr' || name === 'idsr' ? 'farport has no flow control by DSR' : `“${value}” can't be read`,
    )
  return true
}

function whyNot(name: string): string {
  switch (name) {
    case 'awak-seq':
      return 'farport waits for no word before it connects'
    case 'reconnect':
      return 'farport connects again by itself'
    case 'interface':
      return 'farport listens where listen: says'
    case 'terminal':
      return 'farport is no terminal; its telnet is for RFC 2217'
    case 'ignore-dsr':
    case 'connect-dtr':
      return 'a link stays up; its port is open while a program has it open'
    default:
      return 'farport has nothing like it'
  }
}
