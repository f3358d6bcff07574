/**
 * farport.yaml: what may stand in it, and what each key means. The descriptions are the manual: the man page
 * and docs/config.md are made of them.
 */
import * as v from 'valibot'
import { CAPTURE_FORMATS } from '../capture/formats.ts'
import { isSearched } from '../device/device-search.ts'
import { parseLineFormat } from '../serial/line-format.ts'
import { parseReset, type ResetProfile } from '../serial/line-sequence.ts'
import { MAX_GAP_MS, MAX_PIECE_BYTES, parseUntil } from '../serial/packer.ts'
import { FAMILY_DEVICE, isFamilyName, isPortName } from './port-name.ts'
import { parseBytes, parseDuration } from './units.ts'

const LONGEST_RESUME_MS = 600_000
const MAX_ENTRIES = 4096

/** An object of known keys; another key is a mistake, and named with the one that was meant. */
function keys<const Entries extends v.ObjectEntries>(entries: Entries) {
  return v.strictObject(entries, (issue) => {
    if (issue.expected !== 'never')
      return issue.received === 'undefined' ? 'is missing' : `is not a group of keys`
    const asked = issue.received.slice(1, -1)
    const meant = Object.keys(entries).find((known) => isNear(asked, known))
    return `there is no such key${meant === undefined ? `; there are ${Object.keys(entries).join(', ')}` : `: ${meant} is meant?`}`
  })
}

/** One letter wrong, missing or too many, or the same letters in another order. */
function isNear(a: string, b: string): boolean {
  const letters = (text: string) => [...text.toLowerCase().replaceAll(/[-_]/g, '')].sort().join('')
  if (letters(a) === letters(b)) return true
  let i = 0
  while (i < a.length && a[i] === b[i]) i++
  const [restA, restB] = [a.slice(i), b.slice(i)]
  return restA.slice(1) === restB.slice(1) || restA === restB.slice(1) || restA.slice(1) === restB
}

/** Text that is read further; `parse` says what it is, or nothing. */
function text<T>(parse: (text: string) => T | undefined, wrong: string) {
  return v.pipe(
    v.union([v.string(), v.number()], wrong),
    v.rawTransform<string | number, T>(({ dataset, addIssue, NEVER }) => {
      const value = parse(String(dataset.value))
      if (value !== undefined) return value
      addIssue({ message: wrong })
      return NEVER
    }),
  )
}

const list = <Item extends v.GenericSchema>(item: Item, what: string) =>
  v.pipe(v.array(item, `is a list of ${what}`), v.maxLength(MAX_ENTRIES))

const words = (what: string) => list(v.string(`is ${what}`), what)
const flag = v.boolean('is true or false')
const duration = text(parseDuration, 'is a length of time, such as 500ms, 30s or 10m')
const bytes = text(parseBytes, 'is an amount of bytes, such as 4096, 16KiB or 8MiB')
const portNumber = v.pipe(v.number('is a port number'), v.integer(), v.minValue(0), v.maxValue(0xffff))
const path = v.pipe(v.string('is a path'), v.startsWith('/', 'is a whole path: it begins with /'))

const hostPort = text((written) => {
  const [, ipv6, host, port] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(written) ?? []
  if (port === undefined || Number(port) > 0xffff) return undefined
  return { host: ipv6 ?? (host || '127.0.0.1'), port: Number(port) }
}, 'is HOST:PORT, such as 127.0.0.1:4000')

const line = text((written) => {
  try {
    return parseLineFormat(written)
  } catch {
    return undefined
  }
}, 'is a line: data bits, parity and stop bits, as in 7E1, or with the speed in front, as in 9600-7E1')

const outputs = keys({
  dtr: v.exactOptional(v.pipe(flag, v.description('true raises it, false lowers it; as the system left it'))),
  rts: v.exactOptional(v.pipe(flag, v.description('the same'))),
})

/** What the device is sent, or a program is: text of one-byte characters, with \r, \n, \t, \0, \\ and \xHH. */
const MAX_STRING = 1024
const bytesOfText = v.pipe(
  text(unescaped, 'is text of one-byte characters with escapes such as \\r, \\n and \\x1b'),
  v.maxLength(MAX_STRING, `is ${MAX_STRING} bytes at most`),
)

function unescaped(written: string): string | undefined {
  const letters: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', 0: '\0', '\\': '\\' }
  let wrong = /[^\0-\xff]/.test(written)
  const plain = written.replace(/\\(?:x([0-9A-Fa-f]{2})|(.?))/gs, (_, hex?: string, letter = '') => {
    if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16))
    wrong ||= letters[letter] === undefined
    return letters[letter] ?? ''
  })
  return wrong ? undefined : plain
}

/** `off` is a profile, too: none. */
const reset = text<{ profile: ResetProfile | undefined }>((written) => {
  try {
    return { profile: parseReset(written) }
  } catch {
    return undefined
  }
}, 'is esp32, esp32-usb, arduino-1200, off, or a sequence such as dtr-rts+/100ms/dtr+rts-/50ms/dtr-rts-')

const until = text((written) => {
  try {
    return parseUntil(written)
  } catch {
    return undefined
  }
}, 'is one to eight bytes, such as "\\n"')

const pack = keys({
  gap: v.exactOptional(
    v.pipe(
      duration,
      v.minValue(1, 'is 1ms at least'),
      v.maxValue(MAX_GAP_MS, `is ${MAX_GAP_MS}ms at most`),
      v.description('a piece ends where the line is silent for so long, both ways'),
    ),
  ),
  size: v.exactOptional(
    v.pipe(
      bytes,
      v.minValue(1, 'is 1 at least'),
      v.maxValue(MAX_PIECE_BYTES, `is ${MAX_PIECE_BYTES} at most`),
      v.description('what the device sends goes on in pieces of at most so many bytes'),
    ),
  ),
  until: v.exactOptional(v.pipe(until, v.description('what the device sends goes on in pieces that end so'))),
})

/** The most that one file of a capture may grow to, and the most of them. */
const LARGEST_CAPTURE_BYTES = 4 * 1024 ** 3
const MAX_OLD_CAPTURES = 1000

const capture = keys({
  file: v.pipe(
    v.string('is a path'),
    v.nonEmpty('is a path'),
    v.description('where: a path, from the home on where it does not begin with /'),
  ),
  format: v.exactOptional(
    v.pipe(
      v.picklist(CAPTURE_FORMATS, `is one of ${CAPTURE_FORMATS.join(', ')}`),
      v.description('hex to read, asciicast for asciinema, pcapng for Wireshark; hex'),
    ),
  ),
  rotate: v.exactOptional(
    v.pipe(
      bytes,
      v.minValue(4096, 'is 4KiB at least'),
      v.maxValue(LARGEST_CAPTURE_BYTES, 'is 4096MiB at most'),
      v.description('a file that has grown so long becomes FILE.1, and a new one begins; 16MiB'),
    ),
  ),
  keep: v.exactOptional(
    v.pipe(
      v.number('is a number'),
      v.integer('is a whole number'),
      v.minValue(0, 'is 0 at least'),
      v.maxValue(MAX_OLD_CAPTURES, `is ${MAX_OLD_CAPTURES} at most`),
      v.description('how many old files are kept, the oldest as FILE.5; 5'),
    ),
  ),
})

const MAX_WATCHERS = 16

const LARGEST_REPLAY_BYTES = 1024 * 1024
const replay = v.pipe(bytes, v.maxValue(LARGEST_REPLAY_BYTES, 'is 1MiB at most'))

const fileMode = text(
  (written) => (/^0?[0-7]{3}$/.test(written) ? Number.parseInt(written, 8) : undefined),
  'is three octal digits in quotes, such as "660"',
)

/** What a port may be told, and all ports together under `defaults`. */
function portOptions() {
  return {
    line: v.exactOptional(v.pipe(line, v.description('how the line is when the device is opened; 9600-8N1'))),
    flow: v.exactOptional(
      v.pipe(
        v.picklist(['none', 'rtscts', 'xonxoff'], 'is none, rtscts or xonxoff'),
        v.description('flow control when the device is opened; none'),
      ),
    ),
    'on-open': v.exactOptional(
      v.pipe(outputs, v.description('DTR and RTS once the device has been opened: {dtr: true, rts: false}')),
    ),
    'on-close': v.exactOptional(v.pipe(outputs, v.description('DTR and RTS before the device is closed'))),
    'open-string': v.exactOptional(
      v.pipe(bytesOfText, v.description('sent to the device when it has been opened: "ATZ\\r"')),
    ),
    'close-string': v.exactOptional(
      v.pipe(bytesOfText, v.description('sent to the device before it is closed')),
    ),
    banner: v.exactOptional(v.pipe(bytesOfText, v.description('sent to whoever begins to use the port'))),
    'idle-timeout': v.exactOptional(
      v.pipe(
        duration,
        v.minValue(100, 'is 100ms at least'),
        v.description('who uses the port without a byte either way for so long loses it'),
      ),
    ),
    watchers: v.exactOptional(
      v.pipe(
        v.number('is a number'),
        v.integer('is a whole number'),
        v.minValue(0, 'is 0 at least'),
        v.maxValue(MAX_WATCHERS, `is ${MAX_WATCHERS} at most`),
        v.description('how many peers may watch at a time; 16'),
      ),
    ),
    replay: v.exactOptional(
      v.pipe(replay, v.description('what of its last bytes is kept for who begins to watch; 16KiB')),
    ),
    reset: v.exactOptional(
      v.pipe(
        reset,
        v.description('the reset of this board, run here when a client begins one: docs/reset.md'),
      ),
    ),
    pack: v.exactOptional(
      v.pipe(
        pack,
        v.description('gather bytes into pieces: {gap: 2ms, size: 256, until: "\\n"}: docs/pack.md'),
      ),
    ),
  }
}

/** What a port may be told, besides its device. */
export const portOptionsSchema = keys(portOptions())

export type PortOptions = v.InferOutput<typeof portOptionsSchema>

const portEntries = {
  device: v.pipe(
    v.string('is a device'),
    v.nonEmpty('names no device'),
    v.description(
      'a path, better a /dev/serial/by-id link; usb:VID:PID[:SERIAL]; either with *, where it is looked for; rfc2217://HOST:PORT; tcp://HOST:PORT; simulated:gps',
    ),
  ),
  ...portOptions(),
}

/** Not for all ports together, which would write to one file. */
const captureEntry = {
  capture: v.exactOptional(
    v.pipe(
      capture,
      v.description('write what passes to a file: {file: gps.hex, format: hex}: docs/captures.md'),
    ),
  ),
}

const sharedPort = v.pipe(
  v.unknown(),
  // The short form: a name and its device.
  v.transform((value) => (typeof value === 'string' ? { device: value } : value)),
  keys({ ...portEntries, ...captureEntry }),
)

const PORTS = 'is a group of ports: name, colon, device'

const portNames = v.pipe(
  v.unknown(),
  // valibot takes a list for a group whose keys are numbers.
  v.check((value) => !Array.isArray(value), PORTS),
  v.record(
    v.pipe(
      v.string(),
      v.check(isPortName, 'is no name for a port: up to 64 letters, digits, - _ and ., or one * among them'),
    ),
    sharedPort,
    PORTS,
  ),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return
    const capturedBy = new Map<string, string>()
    for (const [name, port] of Object.entries(dataset.value)) {
      const wrong = (key: 'device' | 'capture', message: string) =>
        addIssue({
          message,
          path: [
            { type: 'object', origin: 'value', input: dataset.value, key: name, value: port },
            { type: 'object', origin: 'value', input: port, key, value: port[key] },
          ],
        })
      if (port.capture !== undefined) {
        const other = capturedBy.get(port.capture.file)
        if (other !== undefined) wrong('capture', `goes to the same file as that of ${other}`)
        capturedBy.set(port.capture.file, name)
      }
      if (!isFamilyName(name)) continue
      if (!isSearched(port.device)) wrong('device', FAMILY_DEVICE)
      if (port.capture !== undefined)
        wrong('capture', 'is one file, and a port with a * in its name is for many devices')
    }
  }),
)

const linkEntries = {
  port: v.pipe(
    text((written) => {
      const [, peer, port] = /^([^/]+)\/([^/]+)$/.exec(written) ?? []
      return peer === undefined || port === undefined ? undefined : { peer, port }
    }, 'is PEER/PORT, such as workshop/gps'),
    v.description(
      'PEER/PORT: the peer by its name in trusted_peers, the port by the name it is shared under',
    ),
  ),
  pty: v.exactOptional(v.pipe(path, v.description('a virtual serial port, found at this path'))),
  rfc2217: v.exactOptional(v.pipe(hostPort, v.description('a local RFC 2217 port at HOST:PORT'))),
  raw: v.exactOptional(
    v.pipe(hostPort, v.description('a local TCP port that carries bytes only, at HOST:PORT')),
  ),
  resume: v.exactOptional(
    v.pipe(
      duration,
      v.maxValue(LONGEST_RESUME_MS, 'is 10m at most'),
      v.description('how long bytes on their way are kept when the connection is lost; 30s'),
    ),
  ),
  serial: v.exactOptional(v.pipe(path, v.description('a serial port of this machine, joined to it'))),
  line: v.exactOptional(
    v.pipe(line, v.description('how the remote line is to be, where programs cannot say: 7E1 or 9600-7E1')),
  ),
  watch: v.exactOptional(v.pipe(flag, v.description('only to see what the device sends'))),
  replay: v.exactOptional(
    v.pipe(replay, v.description('with watch: at most so much of what the device sent before')),
  ),
  mode: v.exactOptional(v.pipe(fileMode, v.description('with pty: who may open it, in octal; "660"'))),
  owner: v.exactOptional(
    v.pipe(
      v.string('is a user'),
      v.description(
        'with pty: the user it belongs to; only root can give it to another; the one that runs farport',
      ),
    ),
  ),
  group: v.exactOptional(
    v.pipe(v.string('is a group'), v.description('with pty: the group that may open it, such as dialout')),
  ),
  'modem-lines': v.exactOptional(
    v.pipe(flag, v.description('with serial: whether DTR and RTS of both ports follow each other; true')),
  ),
}

const ENDS = ['pty', 'rfc2217', 'raw', 'serial'] as const

const link = v.pipe(
  keys(linkEntries),
  v.check(
    (value) => ENDS.filter((end) => value[end] !== undefined).length === 1,
    `needs one of ${ENDS.join(', ')}: where the port is to appear`,
  ),
)

export const fileSchema = keys({
  listen: v.exactOptional(
    v.pipe(
      words('multiaddrs'),
      v.description('where others reach this machine; /ip4/0.0.0.0/tcp/4001 where it shares ports'),
    ),
  ),
  announce: v.exactOptional(
    v.pipe(words('multiaddrs'), v.description('further addresses of this machine, such as a forwarded port')),
  ),
  relays: v.exactOptional(
    v.pipe(
      words('relays'),
      v.description('relays to be reached through: names in trusted_peers, or addresses with /p2p/PEERID'),
    ),
  ),
  relay: v.exactOptional(
    v.pipe(
      keys({
        stun: v.exactOptional(
          v.pipe(
            v.union(
              [v.literal(false), v.tuple([portNumber, portNumber])],
              'is two ports, such as [3478, 3479], or false',
            ),
            v.description('where to answer STUN, over UDP and TCP; [3478, 3479]'),
          ),
        ),
      }),
      v.description('be a relay for the peers that may relay'),
    ),
  ),
  metrics: v.exactOptional(
    v.pipe(
      hostPort,
      v.description('answer Prometheus at http://HOST:PORT/metrics, such as 127.0.0.1:9464: docs/metrics.md'),
    ),
  ),
  defaults: v.exactOptional(
    v.pipe(portOptionsSchema, v.description('what holds for every port that does not say otherwise')),
  ),
  ports: v.exactOptional(
    v.pipe(
      portNames,
      v.description(
        'serial ports to share; a name with a * shares each device that there is, under its own name',
      ),
    ),
  ),
  links: v.exactOptional(v.pipe(list(link, 'links'), v.description('ports of other machines, made local'))),
})

export type ConfigFile = v.InferOutput<typeof fileSchema>
