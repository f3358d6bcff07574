import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from 'yaml'
import { FarportError } from '../errors.ts'
import { printable } from '../printable.ts'
import { type Draft, MAX_TEXT, type Place, type PortDraft } from './draft.ts'
import { type Gensio, parseGensio } from './gensio.ts'
import { type LineWish, plainLine } from './line-wish.ts'
import { type DeviceWords, takeDeviceWord, takeDeviceWords } from './ser2net-device.ts'
import { isOff, type Option, takeOptions } from './ser2net-options.ts'

const ELSE: Readonly<Record<string, string>> = {
  admin: 'farport is asked with farport status, on its own machine',
  led: 'farport drives no LEDs',
  rotator: 'a client names the port it wants',
  include: 'hand the other file to farport import, too',
}
/** Defaults that are about the line or the device; the others are options of connections. */
const DEVICE_DEFAULTS = new Set([
  'speed',
  'rtscts',
  'xonxoff',
  'local',
  'nobreak',
  'hangup-when-done',
  'rs485',
  'dtr',
  'rts',
  'wronly',
])
const CONNECTION_KEYS = new Set(['accepter', 'connector', 'enable', 'options', 'name'])
const DEFAULT_CLASSES = new Set(['', 'serialdev', 'ser2net'])

/** Whether a line is one that ser2net 4 begins something with. */
export function isSer2netYamlLine(line: string): boolean {
  return /^(connection|define|default|delete_default|admin|rotator|led|include)\s*:(\s|$)/.test(line)
}

/**
 * ser2net.yaml, as of ser2net 4: YAML whose top-level keys repeat and count in their order, with `*(name)` for the text of
 * an alias inside of another text.
 * @throws FarportError ERR_USAGE when it is no YAML
 */
export function readSer2netYaml(text: string, draft: Draft, name: string): void {
  const lines = new LineCounter()
  // Every scalar stays the text it is: `on`, 0600 and 1e3 are for us to read.
  const document = parseDocument(text, {
    ...{ lineCounter: lines, prettyErrors: false, schema: 'failsafe', uniqueKeys: false, logLevel: 'silent' },
  })
  const [error] = document.errors
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0])
    throw new FarportError(
      'ERR_USAGE',
      `${name}:${line}:${col}: ${printable(error.message.split('\n', 1)[0] as string)}`,
    )
  }
  if (!isMap(document.contents))
    throw new FarportError('ERR_USAGE', `${name} is no ser2net.yaml: that is a group of keys`)
  const anchors = new Map<string, Node>()
  visit(document, {
    Node(_, node) {
      if (!isAlias(node) && node.anchor !== undefined) anchors.set(node.anchor, node)
    },
  })
  const file = new Ser2netYaml(draft, lines, anchors)
  for (const { key, value } of document.contents.items) file.take(key as Node | null, value as Node | null)
}

/** Keys of a group, with the lines they stand in. */
type Entries = Map<string, { readonly line: number; readonly value: Node | null }>

class Ser2netYaml {
  readonly #draft: Draft
  readonly #lines: LineCounter
  readonly #anchors: ReadonlyMap<string, Node>
  readonly #defaults = new Map<string, { option: Option; ofDevice: boolean }>()

  constructor(draft: Draft, lines: LineCounter, anchors: ReadonlyMap<string, Node>) {
    this.#draft = draft
    this.#lines = lines
    this.#anchors = anchors
  }

  take(keyNode: Node | null, value: Node | null): void {
    const key = this.#text(keyNode) ?? ''
    const place = { line: this.#line(keyNode), what: key }
    if (key === 'connection') this.#connection(value, place)
    else if (key === 'default') this.#default(value, place)
    else if (key === 'delete_default')
      this.#defaults.delete(this.#text(this.#entries(value).get('name')?.value) ?? '')
    else if (key === 'define') return
    else
      this.#draft.leaveOut(place, (Object.hasOwn(ELSE, key) && ELSE[key]) || 'ser2net.yaml has no such key')
  }

  #default(node: Node | null, place: Place): void {
    const entries = this.#entries(node)
    const name = this.#text(entries.get('name')?.value) ?? ''
    const value = this.#text(entries.get('value')?.value) ?? ''
    const ofClass = this.#text(entries.get('class')?.value) ?? ''
    if (!DEFAULT_CLASSES.has(ofClass)) {
      this.#draft.leaveOut({ ...place, what: `default ${name}` }, `is for ${ofClass}, which farport has not`)
      return
    }
    const option = { name, value, line: place.line, what: `default ${name}` }
    this.#defaults.set(name, { option, ofDevice: DEVICE_DEFAULTS.has(name) })
  }

  #connection(node: Node | null, place: Place): void {
    const entries = this.#entries(node)
    const target = this.#resolved(node)
    const accepterText = this.#text(entries.get('accepter')?.value) ?? ''
    const connectorText = this.#text(entries.get('connector')?.value) ?? ''
    const connectorAt = { line: entries.get('connector')?.line ?? place.line, what: 'connector' }
    const accepterAt = { line: entries.get('accepter')?.line ?? place.line, what: 'accepter' }
    const enable = this.#text(entries.get('enable')?.value) ?? 'on'
    const alias = target?.anchor ?? ''
    const named = { line: place.line, what: alias || 'connection' }
    if (isOff(enable)) {
      this.#draft.leaveOut(named, 'is switched off there (enable: off)')
      return
    }
    const connector = parseGensio(connectorText)
    const device = connector && deviceOf(connector)
    if (connector === undefined || device === undefined) {
      this.#draft.leaveOut(
        connectorAt,
        `farport shares serial ports, RFC 2217 servers and TCP servers, and “${connectorText.slice(0, 100)}” is none`,
      )
      return
    }
    const port = this.#draft.addPort(alias || device.replace(/^.*\//, ''), device, named, [
      [alias, accepterText, connectorText].filter(Boolean).join(', '),
    ])
    if (port === undefined) return
    const accepter = parseGensio(accepterText)
    for (const why of accepterLosses(accepter)) port.leaveOut(accepterAt, why)
    const line = this.#takeDevice(connector, port, connectorAt)
    const options = this.#optionsOf(entries, port)
    const tcpPort = accepter?.args.at(-1) ?? ''
    takeOptions(port, options, { name: alias, device, tcpPort, line })
  }

  /** How the device is to be, by the defaults and by its own words. */
  #takeDevice({ end, args }: Gensio, port: PortDraft, place: Place): LineWish {
    const words: DeviceWords = { line: plainLine(9600), onOpen: {}, hangUp: false }
    if (end.name !== 'serialdev') return words.line
    for (const { option, ofDevice } of this.#defaults.values())
      if (ofDevice && !takeDeviceWord(words, `${option.name}=${option.value}`, option, port))
        port.leaveOut(option, `“${option.value}” can't be read`)
    for (const word of [...end.options, ...args.slice(1)])
      if (!takeDeviceWord(words, word, place, port))
        port.leaveOut({ ...place, what: word }, 'is no option of a serial device that farport knows')
    takeDeviceWords(port, words, place)
    return words.line
  }

  /** A connection's options: what it says itself goes before the defaults. */
  #optionsOf(entries: Entries, port: PortDraft): Option[] {
    const options = new Map<string, Option>()
    for (const { option, ofDevice } of this.#defaults.values())
      if (!ofDevice) options.set(option.name, option)
    for (const [name, { line, value }] of entries) {
      if (name === 'timeout') options.set(name, { name, what: name, line, value: this.#text(value) ?? '' })
      else if (!CONNECTION_KEYS.has(name)) port.leaveOut({ line, what: name }, 'a connection has no such key')
    }
    for (const [name, { line, value }] of this.#entries(entries.get('options')?.value ?? null)) {
      const text = this.#text(value)
      options.delete(name)
      if (text?.includes('*{'))
        port.leaveOut({ line, what: name }, 'farport reads no text out of other files')
      // An LED is no text, and what farport has to say to it does not depend on which.
      else options.set(name, { name, what: name, line, value: text ?? 'given' })
    }
    return [...options.values()]
  }

  /** A group's keys; the last of two with one name counts. */
  #entries(node: Node | null): Entries {
    const map = this.#resolved(node)
    const entries: Entries = new Map()
    if (!isMap(map)) return entries
    for (const { key, value } of map.items)
      entries.set(this.#text(key as Node | null) ?? '', {
        line: this.#line(key as Node | null),
        value: value as Node | null,
      })
    return entries
  }

  #text(node: Node | null | undefined): string | undefined {
    const target = this.#resolved(node ?? null)
    if (isSeq(target)) return undefined
    if (!isScalar(target)) return target === null && node === null ? '' : undefined
    const text = typeof target.value === 'string' ? target.value : String(target.value ?? '')
    // Once and no further: what stands in a define is text. A long text of texts is cut where nobody reads on.
    return text
      .slice(0, MAX_TEXT)
      .replace(/\*\((\*|[^)]*\))/g, (written, name: string) => {
        if (name === '*') return '*('
        const meant = this.#anchors.get(name.slice(0, -1))
        return isScalar(meant) ? String(meant.value ?? '').slice(0, MAX_TEXT) : written
      })
      .slice(0, MAX_TEXT)
  }

  #resolved(node: Node | null): Node | null {
    return isAlias(node) ? (this.#anchors.get(node.source) ?? null) : node
  }

  #line(node: Node | null): number {
    return Math.max(1, this.#lines.linePos(node?.range?.[0] ?? 0).line)
  }
}

/** In farport's words; undefined for what it can't share. */
function deviceOf({ filters, end, args }: Gensio): string | undefined {
  const [first = ''] = args
  if (end.name === 'serialdev' && filters.length === 0) return first.startsWith('/') ? first : undefined
  if (end.name !== 'tcp' || args.length < 2) return undefined
  const [host = '', port = ''] = args.slice(-2)
  const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
  if (filters.length === 0) return `tcp://${address}`
  return filters.length === 1 && filters[0]?.name === 'telnet' ? `rfc2217://${address}` : undefined
}

/** What an accepter is, besides a place to find the port at: that is now the peer's name and the port's. */
function accepterLosses(accepter: Gensio | undefined): string[] {
  if (accepter === undefined) return ["can't be read; clients name this machine and the port"]
  const losses: string[] = []
  for (const { name } of accepter.filters)
    switch (name) {
      case 'telnet':
        break
      case 'ssl':
      case 'certauth':
        losses.push(
          `${name}: farport encrypts everything by itself and knows machines by their keys: pair them with farport invite`,
        )
        break
      case 'mdns':
        losses.push(
          'mdns: farport announces no ports on the network: those who are trusted see them with farport ports',
        )
        break
      case 'mux':
        losses.push('mux: farport carries any number of ports on one connection by itself')
        break
      default:
        losses.push(`${name}: farport has no such filter`)
    }
  if (accepter.end.name !== 'tcp')
    losses.push(
      `${accepter.end.name}: farport's clients have a PTY, a local TCP port or a serial port: see farport connect`,
    )
  return losses
}
