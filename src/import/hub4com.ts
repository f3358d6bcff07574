import { LINE_FORMAT, LINE_OPTIONS, linkPort, sharePort, takeLine, takeLineOption } from './com2tcp.ts'
import type { CommandLine } from './command-lines.ts'
import type { Draft } from './draft.ts'
import { parseAddress } from './far-port.ts'
import { type LineWish, plainLine } from './line-wish.ts'

interface HubPort {
  readonly driver: string
  readonly name: string
  readonly wish: LineWish
  readonly saysLine: boolean
}

const MAX_PORTS = 32

/** What a command says, as it stands there. */
interface Hub {
  readonly ports: HubPort[]
  readonly routes: [from: string, to: string][]
  readonly filters: Set<string>
}

/**
 * A hub4com command: ports in their order, and routes between them by number. Each way between a serial port and TCP becomes
 * a shared port (`*7000`, it listens) or a link (`HOST:7000`, it calls).
 */
export function readHub4com({ line, words, text }: CommandLine, draft: Draft): void {
  const place = { line, what: text }
  const { ports, routes, filters } = readWords(words, line, draft)
  for (const filter of filters)
    if (!FILTERS_OF_RFC2217.has(filter))
      draft.leaveOut({ line, what: `--create-filter=${filter}` }, 'farport has no such filter')
  const ways = waysOf(routes, ports.length)
  if (ways.length === 0) draft.leaveOut(place, 'has no way from one port to another')
  const shared = new Set<HubPort>()
  let isLocal = false
  for (const way of ways) {
    const ends = way.map((number) => ports[number])
    const serial = ends.find((port) => port?.driver === 'serial')
    const tcp = ends.find((port) => port?.driver === 'tcp')
    if (serial === undefined || tcp === undefined) isLocal = true
    else if (tcp.name.startsWith('*')) {
      // A second way to a port that is shared already is one more way to say its name.
      if (shared.has(serial)) continue
      shared.add(serial)
      const port = sharePort(draft, serial.name, place)
      if (port !== undefined) takeLine(port, serial.wish, serial.saysLine, place)
    } else {
      const address = parseAddress(tcp.name)
      if (address === undefined) draft.leaveOut({ line, what: tcp.name }, 'is neither *PORT nor HOST:PORT')
      else linkPort(draft, { device: serial.name, ...address, rfc2217: filters.has('telnet') }, place)
    }
  }
  if (isLocal)
    draft.leaveOut(
      { line, what: 'routes between ports of one kind' },
      'farport joins a serial port with another machine, not two of one machine',
    )
}

function readWords(words: readonly string[], line: number, draft: Draft): Hub {
  const hub: Hub = { ports: [], routes: [], filters: new Set() }
  let wish = plainLine()
  let saysLine = false
  let driver = 'serial'
  for (const word of words) {
    const [, name, said = ''] = /^--([a-z0-9-]+)(?:=([\s\S]*))?$/i.exec(word) ?? []
    const at = { line, what: word }
    if (name === undefined) {
      if (hub.ports.length < MAX_PORTS) hub.ports.push({ driver, name: word, wish, saysLine })
      else draft.leaveOut(at, `there are ${MAX_PORTS} ports already`)
    } else if (LINE_OPTIONS.has(name)) {
      // What stands before a port counts for all ports from there on.
      wish = { ...wish }
      takeLineOption(wish, name, said, at, draft)
      saysLine ||= LINE_FORMAT.has(name)
    } else if (name === 'use-driver') driver = said
    else if (name === 'route' || name === 'bi-route') {
      const [from = '', to = ''] = said.split(':')
      hub.routes.push([from, to])
    } else if (name === 'create-filter') hub.filters.add(said.split(/[,:]/)[0] as string)
    else if (!/^(add-filters|fc-route|bi-fc-route|no-default-fc-route)$/.test(name))
      draft.leaveOut(at, whyNot(name))
  }
  return hub
}

/** Which ports are joined, each two once. Without routes hub4com joins the first port with all the others. */
function waysOf(routes: Hub['routes'], count: number): [number, number][] {
  const ways = new Map<number, [number, number]>()
  for (const [from, to] of routes.length === 0 ? [['0', 'All'] as const] : routes)
    for (const a of numbersOf(from, count))
      for (const b of numbersOf(to, count)) {
        const [low, high] = [Math.min(a, b), Math.max(a, b)]
        if (low !== high) ways.set(low * MAX_PORTS + high, [low, high])
      }
  return [...ways.values()]
}

/** What com2tcp-rfc2217 sets up to speak RFC 2217, which a farport port does by itself. */
const FILTERS_OF_RFC2217 = new Set([
  'telnet',
  'lsrmap',
  'pinmap',
  'linectl',
  'purge',
  'escparse',
  'escinsert',
])

/** `0,2`, `All`: numbers of ports. */
function numbersOf(list: string, count: number): number[] {
  const numbers = list.split(',').slice(0, MAX_PORTS)
  if (numbers.some((number) => /^all$/i.test(number))) return [...Array(count).keys()]
  return numbers.filter((number) => /^\d{1,3}$/.test(number) && Number(number) < count).map(Number)
}

function whyNot(name: string): string {
  switch (name) {
    case 'reconnect':
      return 'farport connects again by itself'
    case 'echo-route':
      return 'farport sends nothing back to where it came from'
    case 'interface':
      return 'farport listens where listen: says'
    case 'trace-file':
    case 'log':
      return 'farport has its own log: --log-level debug'
    default:
      return 'farport has nothing like it'
  }
}
