/**
 * The file `trusted_peers`: one line per peer, in the spirit of authorized_keys. Who has no line gets nothing.
 *
 *   # name      peer id           options
 *   anna        12D3KooW…         ports=gps,plc-*  may=use,configure  expires=2027-06-30
 *   wall        12D3KooW…         ports=*  may=watch
 *   workshop    12D3KooW…         addr=/dns4/relay.example.org/tcp/4001/p2p/12D3KooW…/p2p-circuit
 *
 *   file    = lines ended by LF or CR LF
 *   line    = [name peer-id *option] [comment], separated by spaces or tabs
 *   comment = a field that begins with #, and all behind it
 *   name    = letters, digits, - _ . (1 to 64, first a letter, digit or _)
 *   option  = ports=  names or patterns with * and ?, between commas. Without it: none, a peer whose ports we use
 *           | may=    watch, use, configure, lines, steal, relay, between commas. With ports= but without may=:
 *                     use,configure,lines. use and steal imply watch
 *           | expires=YYYY-MM-DD (to the end of that day, UTC), or a time with its zone: 2027-06-30T12:00:00Z
 *           | addr=   multiaddrs where the peer can be reached, between commas
 *           | next=   the PeerID of the key that the peer has announced in its place. Written by farport; until the peer
 *                     first uses it, both keys have the rights of the line
 *
 * A line with anything else in it is refused whole and reported: what can't be understood must not widen a grant. A
 * refused line still owns its name and its PeerIDs, so that a typo in a narrow line can't put a wider one below in force.
 */
import { type Component, multiaddr } from '@multiformats/multiaddr'
import { type Grant, RIGHTS, type Right, withImplied } from './grants.ts'
import { peerIdProblem } from './peer-id.ts'

/** One line that is in force. */
export interface TrustedPeer extends Grant {
  readonly name: string
  readonly peerId: string
  readonly addrs: readonly string[]
  /** The PeerID that is to take the place of `peerId`. */
  readonly next?: string
}

/** A line that is not. */
export interface Problem {
  /** Counted from 1; 0 stands for the whole file. */
  readonly line: number
  /** What is wrong with it, safe to show on a terminal. */
  readonly sentence: string
}

export const TRUSTED_PEERS = 'trusted_peers'

/** The caps, in characters and lines: more than 10,000 peers on one agent is a mistake, not a use. */
export const MAX_FILE = 1024 * 1024
const MAX_LINES = 10_000
const MAX_LINE = 4096

const DEFAULT_MAY: readonly Right[] = withImplied(['use', 'configure', 'lines'])
/** Expiries stay within four-digit years: what is beyond can't be written as a date. */
const MAX_EXPIRES = Date.UTC(9999, 11, 31) + 24 * 60 * 60 * 1000

/**
 * Reads the file's text. Never throws: whatever is wrong with a line is a problem, and that line grants nothing.
 * `whyRefused` has the last word on each PeerID, with a sentence for the problem.
 */
export function parseTrustedPeers(
  text: string,
  whyRefused: (peerId: string) => string | undefined = () => undefined,
): { peers: TrustedPeer[]; problems: Problem[] } {
  const peers: TrustedPeer[] = []
  const problems: Problem[] = []
  if (text.length > MAX_FILE)
    return {
      peers,
      problems: [
        { line: 0, sentence: `the file has more than ${MAX_FILE} characters; none of it is in force` },
      ],
    }

  const owners = new Map<string, number>()
  // Windows editors may begin a file with a byte order mark.
  const lines = text.replace(/^\uFEFF|\n$/g, '').split('\n', MAX_LINES + 1)
  for (const [index, raw] of lines.entries()) {
    const line = index + 1
    try {
      if (line > MAX_LINES)
        throw new Refusal(`the file has more than ${MAX_LINES} lines; from here on none is in force`)
      const peer = parseLine(raw.replace(/\r$/, ''), line, owners)
      const refused =
        peer &&
        keysOf(peer)
          .map(whyRefused)
          .find((sentence) => sentence !== undefined)
      if (refused !== undefined) throw new Refusal(refused)
      if (peer !== undefined) peers.push(peer)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      problems.push({ line, sentence: error.message })
    }
  }
  return { peers, problems }
}

/** The line for a peer, without its end. Only what differs from the defaults is written. */
export function formatTrustedPeer({ name, peerId, ports, may, expires, addrs, next }: TrustedPeer): string {
  const fields = [name, peerId]
  if (ports.length > 0) fields.push(`ports=${ports.join(',')}`)
  const defaults = ports.length > 0 ? DEFAULT_MAY : []
  const rights = may.filter((right) => right !== 'watch' || !(may.includes('use') || may.includes('steal')))
  if (may.join() !== defaults.join()) fields.push(`may=${rights.join(',')}`)
  if (expires !== undefined) fields.push(`expires=${formatExpires(expires)}`)
  if (addrs.length > 0) fields.push(`addr=${addrs.join(',')}`)
  if (next !== undefined) fields.push(`next=${next}`)
  return fields.join(' ')
}

/** The PeerIDs a line is for: the one it has, and the one that is to come. */
export function keysOf({ peerId, next }: TrustedPeer): string[] {
  return next === undefined ? [peerId] : [peerId, next]
}

/** What a field of a line announces as the peer's next PeerID, whether or not it is one. */
export function nextIn(field: string): string | undefined {
  return field.startsWith(NEXT) ? field.slice(NEXT.length) : undefined
}

const NEXT = 'next='

/** Why a line is not in force; does not leave this file. */
class Refusal extends Error {}

function parseLine(text: string, line: number, owners: Map<string, number>): TrustedPeer | undefined {
  const all = text
    .slice(0, MAX_LINE)
    .split(/[ \t]+/)
    .filter((field) => field !== '')
  const comment = all.findIndex((field) => field.startsWith('#'))
  const [name, peerId = '', ...options] = comment === -1 ? all : all.slice(0, comment)
  if (name === undefined) return undefined

  const wrongName = nameProblem(name)
  const wrongPeerId = peerIdProblem(peerId)
  const ownerOfName = wrongName === undefined ? claim(owners, name, line) : undefined
  const ownerOfPeerId = wrongPeerId === undefined ? claim(owners, peerId, line) : undefined
  const ownerOfNext = options
    .map((option) => nextIn(option))
    .filter((next) => next !== undefined && peerIdProblem(next) === undefined)
    .map((next) => claim(owners, next as string, line))
    .find((owner) => owner !== undefined)
  if (wrongName !== undefined) throw new Refusal(`the name ${shown(name)} ${wrongName}`)
  if (ownerOfName !== undefined)
    throw new Refusal(`the name ${shown(name)} is already in line ${ownerOfName}`)
  if (peerId === '') throw new Refusal(`there is no PeerID behind the name ${shown(name)}`)
  if (wrongPeerId !== undefined) throw new Refusal(`${shown(peerId)} ${wrongPeerId}`)
  if (ownerOfPeerId !== undefined)
    throw new Refusal(`the PeerID of ${shown(name)} is already in line ${ownerOfPeerId}`)
  if (ownerOfNext !== undefined)
    throw new Refusal(`the next PeerID of ${shown(name)} is already in line ${ownerOfNext}`)
  if (text.length > MAX_LINE) throw new Refusal(`the line has more than ${MAX_LINE} characters`)
  return { name, peerId, ...parseOptions(options, peerId) }
}

/** Answers with the line that was first, if there was one. */
function claim(owners: Map<string, number>, value: string, line: number): number | undefined {
  const owner = owners.get(value)
  if (owner === undefined) owners.set(value, line)
  return owner
}

function nameProblem(name: string): string | undefined {
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/.test(name))
    return 'can\'t be used: up to 64 letters, digits, "-", "_" and ".", beginning with a letter, a digit or "_"'
  // Commands take a name or a PeerID in the same place: one must never pass for the other.
  if (name.startsWith('12D3KooW')) return 'looks like a PeerID: a line begins with a name of your own choice'
  return undefined
}

function parseOptions(options: string[], peerId: string): Omit<TrustedPeer, 'name' | 'peerId'> {
  const values = new Map<string, string>()
  for (const option of options) {
    const equals = option.indexOf('=')
    const key = equals === -1 ? option : option.slice(0, equals)
    if (equals === -1)
      throw new Refusal(
        `${shown(option)} is not an option: those are key=value, with no spaces around "=" and ","`,
      )
    if (values.has(key)) throw new Refusal(`the option ${shown(key)} is there twice`)
    values.set(key, option.slice(equals + 1))
  }

  let ports: string[] = []
  let may: Right[] | undefined
  let expires: number | undefined
  let addrs: string[] = []
  let next: string | undefined
  for (const [key, value] of values) {
    switch (key) {
      case 'ports':
        ports = value.split(',').map(parsePattern)
        break
      case 'may':
        may = withImplied(value.split(',').map(parseRight))
        break
      case 'expires':
        expires = parseExpires(value)
        break
      case 'addr':
        addrs = value.split(',').map((addr) => parseAddr(addr, peerId))
        break
      case 'next':
        next = parseNext(value)
        break
      default:
        throw new Refusal(`the option ${shown(key)} is unknown: there are ports, may, expires, addr and next`)
    }
  }
  return {
    ports,
    may: may ?? (ports.length > 0 ? [...DEFAULT_MAY] : []),
    addrs,
    ...(expires !== undefined && { expires }),
    ...(next !== undefined && { next }),
  }
}

function parsePattern(text: string): string {
  if (/^[A-Za-z0-9._*?-]{1,64}$/.test(text)) return text
  throw new Refusal(
    `the port ${shown(text)} can't be used: up to 64 letters, digits, "-", "_", ".", and "*" and "?" as patterns`,
  )
}

function parseRight(text: string): Right {
  const right = RIGHTS.find((known) => known === text)
  if (right !== undefined) return right
  throw new Refusal(`the right ${shown(text)} is unknown: there are ${RIGHTS.join(', ')}`)
}

function parseExpires(text: string): number {
  const [, date, time] =
    /^(\d{4}-\d{2}-\d{2})(T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?:Z|[+-]\d{2}:\d{2}))?$/.exec(text) ?? []
  // Date.parse turns the 30th of February into the 2nd of March, so the day must come back as it went in.
  const day = date === undefined ? Number.NaN : Date.parse(date)
  if (date === undefined || Number.isNaN(day) || new Date(day).toISOString().slice(0, 10) !== date)
    throw new Refusal(
      `${shown(text)} is not a date: write expires=2027-06-30, or a time with its zone, expires=2027-06-30T12:00:00Z`,
    )
  const expires = time === undefined ? day + 24 * 60 * 60 * 1000 : Date.parse(date + time)
  if (expires >= 0 && expires <= MAX_EXPIRES) return expires
  throw new Refusal(`${shown(text)} is not a time farport can use`)
}

function parseNext(text: string): string {
  const problem = peerIdProblem(text)
  if (problem === undefined) return text
  throw new Refusal(`the next PeerID ${shown(text)} ${problem}`)
}

/** As it is written in a line. */
export function formatExpires(expires: number): string {
  const iso = new Date(expires).toISOString()
  if (!iso.endsWith('T00:00:00.000Z')) return iso
  return new Date(expires - 24 * 60 * 60 * 1000).toISOString().slice(0, 10)
}

/** An address starts at a host, and any PeerID in it is one; it must lead to the peer of its line. */
function parseAddr(text: string, peerId: string): string {
  const parts = componentsOf(text)
  if (!HOSTS.includes(parts[0]?.name ?? ''))
    throw new Refusal(`the address ${shown(text)} does not begin with a host: /ip4, /ip6 or /dns4`)
  for (const { name, value = '' } of parts) {
    const problem = name === 'p2p' ? peerIdProblem(value) : undefined
    if (problem !== undefined) throw new Refusal(`in the address ${shown(text)}, ${shown(value)} ${problem}`)
  }
  if (parts.some(({ name }, i) => name === 'p2p-circuit' && parts[i - 1]?.name !== 'p2p'))
    throw new Refusal(
      `the address ${shown(text)} does not name its relay: /p2p/12D3KooW… belongs before /p2p-circuit`,
    )
  // Before the last p2p-circuit are relays; behind it, or where there is none, the peer itself.
  const end = parts.slice(parts.findLastIndex(({ name }) => name === 'p2p-circuit') + 1)
  if (end.some(({ name, value }) => name === 'p2p' && value !== peerId))
    throw new Refusal(`the address ${shown(text)} leads to another peer than this line's`)
  return text
}

const HOSTS = ['ip4', 'ip6', 'ip6zone', 'dns', 'dns4', 'dns6', 'dnsaddr']

function componentsOf(text: string): Component[] {
  try {
    // The library takes any text for a host name, also one with control characters in it.
    if (/^[\x21-\x7e]+$/.test(text)) return multiaddr(text).getComponents()
  } catch {
    // Its errors are of several classes, and their words may quote the text.
  }
  throw new Refusal(`the address ${shown(text)} is not a multiaddr, such as /dns4/relay.example.org/tcp/4001`)
}

/**
 * The beginning of a field, quoted, in plain ASCII: a terminal must not act on it, and a look-alike letter should show.
 * Short, because what was pasted here by mistake may be a key.
 */
function shown(field: string): string {
  const short = field.length > 24 ? `${field.slice(0, 24)}…` : field
  return JSON.stringify(short).replace(/[^\x20-\x7e…]/gu, (c) => `\\u{${c.codePointAt(0)?.toString(16)}}`)
}
