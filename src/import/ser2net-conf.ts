import { type Draft, MAX_TEXT } from './draft.ts'
import { plainLine } from './line-wish.ts'
import { type DeviceWords, takeDeviceWord, takeDeviceWords } from './ser2net-device.ts'
import { type Option, takeOptions } from './ser2net-options.ts'

/** Names that stand for a text further down: `BANNER:name:text`. */
const NAMED_TEXTS = ['BANNER', 'OPENSTR', 'CLOSESTR', 'CLOSEON', 'SIGNATURE', 'TRACEFILE'] as const
type NamedText = (typeof NAMED_TEXTS)[number]

/** What else has a line of its own. */
const ELSE: Readonly<Record<string, string>> = {
  CONTROLPORT: 'farport is asked with farport status, on its own machine',
  ROTATOR: 'a client names the port it wants',
  LED: 'farport drives no LEDs',
  RS485CONF: 'farport does not switch RS-485 drivers: an adapter that does so by itself is needed',
}

/** How options of ser2net 3 are spelled in ser2net 4. */
const SPELLED: Readonly<Record<string, string>> = {
  telnet_brk_on_sync: 'telnet-brk-on-sync',
  hexdump: 'trace-hexdump',
  timestamp: 'trace-timestamp',
  tr: 'trace-read',
  tw: 'trace-write',
  tb: 'trace-both',
}
const OF_TEXT: Readonly<Record<Exclude<NamedText, 'TRACEFILE'>, string>> = {
  BANNER: 'banner',
  OPENSTR: 'openstr',
  CLOSESTR: 'closestr',
  CLOSEON: 'closeon',
  SIGNATURE: 'signature',
}

/** Whether a line is one that only ser2net 3 has. */
export function isSer2netConfLine(line: string): boolean {
  return (
    /^[^#\s:][^#]*:(raw|rawlp|telnet|off):\d+:[^:\s]/.test(line) ||
    /^(BANNER|OPENSTR|CLOSESTR|CLOSEON|SIGNATURE|TRACEFILE|DEVICE|DEFAULT|CONTROLPORT|ROTATOR):[^\s]/.test(
      line,
    )
  )
}

/**
 * ser2net.conf, as of ser2net 2 and 3:
 *
 *   BANNER:hello:Port \p, device \d\r\n
 *   DEVICE:plc:/dev/ttyUSB0:9600 EVEN 7DATABITS
 *   DEFAULT:speed:19200
 *   localhost,2000:telnet:600:plc:remctl hello
 *
 * A name counts from its line on. A line that ends with a backslash goes on in the next.
 */
export function readSer2netConf(text: string, draft: Draft): void {
  const texts = new Map<string, { kind: NamedText; text: string }>()
  const devices = new Map<string, { device: string; words: string[] }>()
  const defaults: string[] = []
  for (const { line, text: written } of joined(text)) {
    const place = { line, what: written.slice(0, 60) }
    const [word = '', name = '', ...rest] = written.split(':')
    if (isNamedText(word)) texts.set(name, { kind: word, text: rest.join(':') })
    else if (word === 'DEVICE')
      devices.set(name, { device: rest[0] ?? '', words: wordsOf(rest.slice(1).join(':')) })
    else if (word === 'DEFAULT') {
      const value = rest.join(':')
      if (/^(true|false)$/.test(value)) defaults.push(value === 'true' ? name : `-${name}`)
      else defaults.push(name === 'speed' ? value : `${name}=${value}`)
    } else if (Object.hasOwn(ELSE, word)) draft.leaveOut({ line, what: word }, ELSE[word] as string)
    else {
      const port = /^(.*?):(raw|rawlp|telnet|off):(\d{1,9}):(?:(\/[^:]*)|([^:]*))(?::([\s\S]*))?$/.exec(
        written,
      )
      if (port === null) {
        draft.leaveOut(place, 'is no line of ser2net.conf that farport can read')
        continue
      }
      const [, address = '', state = '', timeout = '', path, named = '', own = ''] = port
      const known = path === undefined ? devices.get(named) : undefined
      readPort(draft, place.line, {
        ...{ address, state, timeout, texts },
        device: path ?? known?.device ?? named,
        words: [...defaults, ...(known?.words ?? []), ...wordsOf(own)],
        written: written.split(':').slice(0, 4).join(':'),
      })
    }
  }
}

interface PortLine {
  readonly address: string
  readonly state: string
  readonly timeout: string
  readonly device: string
  readonly words: readonly string[]
  readonly texts: ReadonlyMap<string, { kind: NamedText; text: string }>
  readonly written: string
}

function readPort(
  draft: Draft,
  line: number,
  { address, state, timeout, device, words, texts, written }: PortLine,
): void {
  const place = { line, what: written }
  if (state === 'off') {
    draft.leaveOut(place, 'is switched off there')
    return
  }
  if (!device.startsWith('/')) {
    draft.leaveOut(place, `“${device}” is no device that farport can open: it shares serial ports`)
    return
  }
  const port = draft.addPort(device.replace(/^.*\//, ''), device, place, [written])
  if (port === undefined) return
  if (state === 'rawlp')
    port.leaveOut({ line, what: 'rawlp' }, 'farport opens it as a serial port, not as a printer')
  const tcpPort = /[^,]*$/.exec(address)?.[0] ?? ''
  const deviceWords: DeviceWords = { line: plainLine(9600), onOpen: {}, hangUp: false }
  const options: Option[] = [{ line, what: 'timeout', name: 'timeout', value: timeout }]
  for (const word of words) {
    const text = texts.get(word)
    if (text !== undefined && text.kind !== 'TRACEFILE')
      options.push({ line, what: word, name: OF_TEXT[text.kind], value: text.text })
    else if (!takeDeviceWord(deviceWords, word, place, port)) options.push(optionOf(word, line, texts))
  }
  takeDeviceWords(port, deviceWords, place)
  takeOptions(port, options, { name: device, device, tcpPort, line: deviceWords.line })
}

function optionOf(word: string, line: number, texts: PortLine['texts']): Option {
  const [, minus = '', written = '', said] = /^(-?)([^=]*)(?:=([\s\S]*))?$/.exec(word) ?? []
  const name = (Object.hasOwn(SPELLED, written) ? SPELLED[written] : undefined) ?? written
  let value = minus === '-' ? 'false' : (said ?? 'true')
  // tr=NAME, of a TRACEFILE line.
  if (/^trace-(read|write|both)$/.test(name)) value = texts.get(value)?.text ?? value
  return { line, what: word, name, value }
}

function wordsOf(text: string): string[] {
  // `remaddr=10.0.0.1,0` has a comma of its own.
  return text
    .split(/\s+/)
    .flatMap((word) => (word.includes('=') ? [word] : word.split(',')))
    .filter(Boolean)
}

function isNamedText(word: string): word is NamedText {
  return (NAMED_TEXTS as readonly string[]).includes(word)
}

/** Lines with something on them, those that go on put together, by the number of the first. */
function* joined(text: string): Generator<{ line: number; text: string }> {
  let begun: { line: number; text: string } | undefined
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const goesOn = raw.endsWith('\\') && !raw.endsWith('\\\\')
    const part = goesOn ? raw.slice(0, -1) : raw
    if (begun === undefined) {
      if (/^\s*(#|$)/.test(raw)) continue
      begun = { line: index + 1, text: part }
    } else if (begun.text.length <= MAX_TEXT) begun.text += part.trimStart()
    if (goesOn) continue
    yield begun
    begun = undefined
  }
  if (begun !== undefined) yield begun
}
