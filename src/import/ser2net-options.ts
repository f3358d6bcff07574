import { cString } from './c-string.ts'
import { MAX_TEXT, type Place, type PortDraft } from './draft.ts'
import { charactersMs, type LineWish } from './line-wish.ts'

/** An option of a connection, in the spelling of ser2net 4: `max-connections`, `2`. */
export interface Option extends Place {
  readonly name: string
  readonly value: string
}

/** What strings of ser2net may name. */
interface Named {
  readonly name: string
  readonly device: string
  /** The TCP port it was found at. */
  readonly tcpPort: string
  readonly line: LineWish
}

const TRUST =
  'who may use a port stands in trusted_peers: farport invite lets a machine in, farport revoke out'
const AUTHENTICATION = `${TRUST}; each machine proves itself by its key`
const NO_MDNS = 'farport announces no ports on the network: those who are trusted see them with farport ports'
const NO_LED = 'farport drives no LEDs'

const NO_SUCH_THING: Readonly<Record<string, string>> = {
  remaddr: TRUST,
  authdir: AUTHENTICATION,
  pamauth: AUTHENTICATION,
  'allowed-users': AUTHENTICATION,
  connback: 'farport calls nobody when a device sends: let the other machine keep a link to this port',
  'led-tx': NO_LED,
  'led-rx': NO_LED,
  signature: 'farport answers RFC 2217 clients with its own signature',
  closeon: 'farport does not end a connection by what the device sends',
  'no-acc-to-con': 'to let a peer only see what the device sends, give it may=watch in trusted_peers',
  'no-con-to-acc': 'what the device sends always goes to who holds the port',
  'telnet-brk-on-sync':
    'a break is asked for by RFC 2217 or by the telnet command BREAK, not by a telnet sync',
  'trace-hexdump': 'a capture has its own format',
  'trace-timestamp': 'a capture has its own format',
}
/** What farport does by itself, or what makes no difference to anyone. */
const MATCHED = new Set([
  'accepter-retry-time',
  'connector-retry-time',
  'net-to-dev-bufsize',
  'dev-to-net-bufsize',
])

const MAX_PACK_MS = 1000

/** Takes over what a connection says of itself besides its device. */
export function takeOptions(port: PortDraft, options: readonly Option[], named: Named): void {
  const delays = new Map<string, Option>()
  let until: { text: string; place: Option } | undefined
  for (const option of options) {
    const { name, value } = option
    switch (name) {
      case 'banner':
      case 'openstr':
      case 'closestr': {
        const text = stringOf(port, option, named)
        if (text !== undefined && text !== '') port.set(STRINGS[name], text, option)
        break
      }
      case 'timeout':
        if (/^\d{1,9}$/.test(value)) {
          if (Number(value) > 0) port.set('idle-timeout', durationOf(Number(value)), option)
        } else port.leaveOut(option, `“${value}” is no number of seconds`)
        break
      case 'kickolduser':
        if (isOn(value))
          port.leaveOut(
            option,
            'the newcomer says so: farport connect --steal takes the port over, for peers with may=steal in trusted_peers',
          )
        break
      case 'max-connections':
        if (Number(value) > 1)
          port.leaveOut(
            option,
            'one peer holds the port, and others see what the device sends: watch: true in their link',
          )
        break
      case 'chardelay':
      case 'chardelay-scale':
      case 'chardelay-min':
      case 'chardelay-max':
        delays.set(name, option)
        break
      case 'sendon': {
        const text = stringOf(port, option, named)
        if (text !== undefined && /[^\0-\xff]/.test(text)) port.leaveOut(option, 'is not made of bytes')
        else if (text !== undefined && text !== '') until = { text: escaped(text), place: option }
        break
      }
      case 'trace-both':
      case 'trace-read':
      case 'trace-write': {
        const file = stringOf(port, option, { ...named, device: named.device.replace(/^.*\//, '') })
        if (file !== undefined) port.set('capture', { file }, option)
        break
      }
      default:
        if (MATCHED.has(name)) break
        if (/^mdns(-|$)/.test(name)) {
          if (name !== 'mdns' || isOn(value)) port.leaveOut(option, NO_MDNS)
        } else if (/^trace-(read|write|both)-/.test(name))
          port.leaveOut(option, 'a capture has its own format')
        else if (Object.hasOwn(NO_SUCH_THING, name)) {
          if (!isOff(value)) port.leaveOut(option, NO_SUCH_THING[name] as string)
        } else port.leaveOut(option, 'ser2net has no such option, or a later one that farport does not know')
    }
  }
  takePacking(port, delays, until, named.line)
}

const STRINGS = { banner: 'banner', openstr: 'open-string', closestr: 'close-string' } as const

/**
 * chardelay: how long ser2net waits for more before it sends. Its default is a trade for its own sake; farport sends at once,
 * and gathers only where the file has a wish of its own.
 */
function takePacking(
  port: PortDraft,
  delays: ReadonlyMap<string, Option>,
  until: { text: string; place: Option } | undefined,
  line: LineWish,
): void {
  const off = isOff(delays.get('chardelay')?.value ?? 'true')
  const numbers = [...delays.values()].filter(({ name }) => name !== 'chardelay')
  const number = (name: string, otherwise: number) => {
    const value = delays.get(name)?.value
    return value !== undefined && /^\d{1,9}$/.test(value) ? Number(value) : otherwise
  }
  const place = until?.place ?? numbers[0]
  if (place === undefined) return
  const leastMs = number('chardelay-min', 1000) / 1000
  const mostMs = number('chardelay-max', 20_000) / 1000
  const gapMs = Math.min(Math.max(charactersMs(line, number('chardelay-scale', 20) / 10), leastMs), mostMs)
  const waits = numbers.length > 0 && !off
  const pack = {
    ...(waits && { gap: `${Math.min(Math.max(Math.ceil(gapMs), 1), MAX_PACK_MS)}ms` }),
    ...(until !== undefined && { until: until.text }),
  }
  if (Object.keys(pack).length > 0) port.set('pack', pack, place)
}

function stringOf(
  port: PortDraft,
  option: Option,
  { name, device, tcpPort, line }: Named,
): string | undefined {
  const format = `${line.baudRate ?? ''}${line.parity}${line.dataBits}${line.stopBits}`
  const read = cString(option.value, { d: device, o: name, N: name, p: tcpPort, B: format, s: format })
  if ('unknown' in read)
    port.leaveOut(option, `${read.unknown} changes from use to use, and farport's text is fixed`)
  else if (read.text.length > MAX_TEXT) port.leaveOut(option, 'is too long')
  else return read.text
  return undefined
}

/** `600` seconds are `10m`. */
export function durationOf(seconds: number): string {
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`
}

/** As farport.yaml writes what ends a piece. */
function escaped(text: string): string {
  return text.replace(/[^\x20-\x5b\x5d-\x7e]/g, (c) => {
    const code = c.charCodeAt(0)
    return code === 0x5c ? '\\\\' : `\\x${code.toString(16).padStart(2, '0')}`
  })
}

/** An option that is only named is on, too. */
export function isOn(value: string): boolean {
  return /^(true|yes|on|1|)$/i.test(value)
}

export function isOff(value: string): boolean {
  return /^(false|no|off|0)$/i.test(value)
}

/** Sets the port's flow control, of which it has one kind. */
export function takeFlow(port: PortDraft, { rtscts, xonxoff }: LineWish, place: Place): void {
  if (rtscts && xonxoff) port.leaveOut(place, 'of RTS/CTS and XON/XOFF a port has one: RTS/CTS was taken')
  if (rtscts || xonxoff) port.set('flow', rtscts ? 'rtscts' : 'xonxoff', place)
}
