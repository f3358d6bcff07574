import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { FarportError } from '../errors.ts'
import { replaceFile } from './durable-file.ts'
import { hasExpired, withImplied } from './grants.ts'
import { peerIdProblem } from './peer-id.ts'
import { checkHome, isMissing, readStrictly } from './strict-modes.ts'
import {
  formatTrustedPeer,
  keysOf,
  MAX_FILE,
  nextIn,
  type Problem,
  parseTrustedPeers,
  TRUSTED_PEERS,
  type TrustedPeer,
} from './trusted-peers.ts'

/** Where the numbers of names that are taken begin: the first `anna` is number one. */
const SECOND = 2
const MAX_NAME = 64
/** The byte order mark of UTF-8, which Windows editors may begin a file with. */
const BOM = '\xef\xbb\xbf'

/**
 * Adds a line for `peer` to the home's `trusted_peers`, whose other bytes stay as they are. Not safe against another
 * writer at the same moment: `TrustStore.add` is, within a process.
 * @throws FarportError ERR_USAGE when the line could not be in force (a name that is taken, or not a name), ERR_HOME
 */
export async function appendPeer(home: string, peer: TrustedPeer): Promise<void> {
  const file = await readLines(home)
  await writeLine(file, file.lines.length, peer)
}

/**
 * Writes the line of a peer that has paired, and answers with it. For a PeerID without a line it comes at the end, and a
 * name that is taken gets a number: `anna-2`. For a PeerID that has one, in force or refused, that line is replaced where
 * it stands:
 * - The new grant counts as a whole, narrower or wider, and so does its expiry: a person has just decided on it. One that
 *   says nothing at all belongs to a pairing in the other direction, and leaves what the peer may do as it was.
 * - The new addresses count, unless there are none.
 * - The name, the comment, and the key that the peer has announced stay. They are the owner's own, and links go by the name.
 *
 * `now` is in milliseconds since 1970: what has expired is not kept. `TrustStore.record` is safe against others at the
 * same moment, within a process.
 * @throws FarportError ERR_USAGE when the line could not be in force, ERR_HOME
 */
export async function recordPeer(home: string, peer: TrustedPeer, now: number): Promise<TrustedPeer> {
  const file = await readLines(home)
  const index = file.lines.findIndex((line) => fieldsOf(line)[1] === peer.peerId)
  const old = peersIn(file).peers.find(({ peerId }) => peerId === peer.peerId)
  if (old !== undefined) return await writeLine(file, index, renewed(old, peer, now))
  if (index === -1)
    return await writeLine(file, file.lines.length, { ...peer, name: freeName(peer.name, file.lines) })
  const name = ownName(file.lines, index) ?? freeName(peer.name, file.lines.toSpliced(index, 1))
  return await writeLine(file, index, { ...peer, name })
}

/** What came of a key that a peer has announced in the place of its own. */
export type Announced =
  /** Its line has it now; `before` is another that it had announced and not used. */
  | { readonly answer: 'noted'; readonly before?: string }
  /** Its line had it already. */
  | { readonly answer: 'known' }
  /** It has no line in force by that key. */
  | { readonly answer: 'untrusted' }
  /** Another line is for that key, in force or refused. */
  | { readonly answer: 'taken' }

/**
 * Notes `next` in the line of a peer, in the place of one it announced before: from then on the line is for both keys.
 * `now` is in milliseconds since 1970. The rest is as for `recordPeer`.
 * @throws FarportError ERR_USAGE when the line has no room for it, ERR_HOME
 */
export async function announceKey(
  home: string,
  peerId: string,
  next: string,
  now: number,
): Promise<Announced> {
  const file = await readLines(home)
  const peer = peersIn(file).peers.find((one) => one.peerId === peerId)
  if (peer === undefined || hasExpired(peer, now)) return { answer: 'untrusted' }
  if (peer.next === next) return { answer: 'known' }
  if (file.lines.some((line) => keysIn(line).includes(next))) return { answer: 'taken' }
  const index = file.lines.findIndex((line) => fieldsOf(line)[1] === peerId)
  await writeLine(file, index, { ...peer, next })
  return { answer: 'noted', ...(peer.next !== undefined && { before: peer.next }) }
}

/**
 * Gives a peer's line over to the key that it has announced, and answers with the PeerID that had it before; undefined when
 * no line in force has announced that key. The name, the options and the comment stay, and where the peer is another's
 * relay, that one's address follows.
 * @throws FarportError ERR_USAGE, ERR_HOME
 */
export async function promoteKey(home: string, next: string): Promise<string | undefined> {
  const file = await readLines(home)
  const peer = peersIn(file).peers.find((one) => one.next === next)
  if (peer === undefined) return undefined
  const { next: _, peerId: before, ...rest } = peer
  const index = file.lines.findIndex((line) => fieldsOf(line)[1] === before)
  const lines = file.lines.map((line) => {
    const end = line.length - commentOf(line).length
    return end <= 0 ? line : line.slice(0, end).replaceAll(asRelay(before), asRelay(next)) + line.slice(end)
  })
  const addrs = rest.addrs.map((addr) => addr.replace(new RegExp(`/p2p/${before}$`), ''))
  await writeLine({ ...file, lines }, index, { ...rest, addrs, peerId: next })
  return before
}

function asRelay(peerId: string): string {
  return `/p2p/${peerId}/p2p-circuit`
}

/** Whose line bears this name, or is for this PeerID: in force or refused. Undefined when none is. */
interface Named {
  readonly peerId: string
  /** PeerIDs that the line announces; one, unless it is refused. */
  readonly next: readonly string[]
  /** Unless the line has none that could be in force. */
  readonly name?: string
}

/** @throws FarportError ERR_HOME; ERR_USAGE when the name's line has no PeerID */
export async function findPeer(home: string, nameOrPeerId: string): Promise<Named | undefined> {
  const { lines } = await readLines(home)
  // What is a PeerID is never looked for among the names: a refused line may have it for one, before another PeerID.
  const isPeerId = peerIdProblem(nameOrPeerId) === undefined
  const index = lines.findIndex((line) =>
    isPeerId
      ? peerIdProblem(fieldsOf(line)[1] ?? '') === undefined && keysIn(line).includes(nameOrPeerId)
      : fieldsOf(line)[0] === nameOrPeerId,
  )
  if (index === -1) return undefined
  const peerId = fieldsOf(lines[index] ?? '')[1] ?? ''
  if (peerIdProblem(peerId) !== undefined)
    throw new FarportError(
      'ERR_USAGE',
      `line ${index + 1} of trusted_peers has no PeerID: it lets nobody in, and can be deleted`,
    )
  const name = ownName(lines, index)
  const [, ...next] = keysIn(lines[index] ?? '')
  return { peerId, next, ...(name !== undefined && { name }) }
}

/**
 * Deletes the lines of these PeerIDs, in force or refused; the file's other bytes stay as they are. A line stays when
 * another of the same name would come into force without it: taking trust back must not give any. Answers with the PeerIDs
 * that have no line now.
 * @throws FarportError ERR_HOME
 */
export async function removePeers(home: string, peerIds: readonly string[]): Promise<string[]> {
  const whole = await readLines(home)
  let file = whole
  const removed: string[] = []
  for (const peerId of peerIds) {
    const after = { ...file, lines: file.lines.filter((line) => fieldsOf(line)[1] !== peerId) }
    const known = new Set([...peersIn(file).peers.flatMap(keysOf), ...peerIds])
    if (peersIn(after).peers.some((peer) => !known.has(peer.peerId))) continue
    removed.push(peerId)
    if (after.lines.length < file.lines.length) file = after
  }
  if (file !== whole) await writeFile(file)
  return removed
}

/** The file's bytes, one to a character, so that what is not touched stays as it is whatever it may be. */
interface TrustFile {
  readonly path: string
  /** A byte order mark, or nothing. */
  readonly mark: string
  readonly lines: readonly string[]
}

async function readLines(home: string): Promise<TrustFile> {
  await checkHome(home)
  // A link stays a link: its target is replaced.
  const path = await realpath(join(home, TRUSTED_PEERS)).catch(() => join(home, TRUSTED_PEERS))
  const bytes = await readStrictly(path, MAX_FILE, 'writable by others').catch((error) => {
    if (isMissing(error)) return Buffer.alloc(0)
    throw error
  })
  const whole = bytes.toString('latin1')
  const mark = whole.startsWith(BOM) ? BOM : ''
  const text = whole.slice(mark.length).replace(/\n$/, '')
  return { path, mark, lines: text === '' && mark.length === whole.length ? [] : text.split('\n') }
}

/** Puts the peer's line in the place of the one there, or at the end, and answers with what is now in force of it. */
async function writeLine(file: TrustFile, index: number, peer: TrustedPeer): Promise<TrustedPeer> {
  const line = formatTrustedPeer(peer)
  // The name may come from the peer: only what reads back as this one grant is written.
  const alone = parseTrustedPeers(line)
  const wanted = { ...peer, may: withImplied(peer.may) }
  if (!isDeepStrictEqual(alone.peers, [wanted])) throw refusal(alone.problems.at(-1))

  const lines = [...file.lines]
  lines[index] = `${line}${commentOf(file.lines[index] ?? '')}`
  const after = { ...file, lines }
  const { peers, problems } = peersIn(after)
  const problem = problems.find((one) => one.line === index + 1) ?? problems.at(-1)
  const inForce = peers.find(({ peerId }) => peerId === peer.peerId)
  if (problem?.line === index + 1 || !isDeepStrictEqual(inForce, wanted)) throw refusal(problem)
  await writeFile(after)
  return wanted
}

async function writeFile(file: TrustFile): Promise<void> {
  await replaceFile(file.path, bytesOf(file)).catch((cause) => {
    throw unwritable(file.path, cause)
  })
}

function bytesOf({ mark, lines }: TrustFile): Buffer {
  return Buffer.from(mark + lines.map((line) => `${line}\n`).join(''), 'latin1')
}

function peersIn(file: TrustFile): ReturnType<typeof parseTrustedPeers> {
  return parseTrustedPeers(bytesOf(file).toString('utf8'))
}

/** Name, PeerID and options, also of a line that is refused: it owns them all the same. */
function fieldsOf(line: string): string[] {
  const fields = line
    .replace(/\r$/, '')
    .split(/[ \t]+/)
    .filter((field) => field !== '')
  const comment = fields.findIndex((field) => field.startsWith('#'))
  return comment === -1 ? fields : fields.slice(0, comment)
}

/** The PeerID a line is for, as it is written, and those it announces, also when it is refused. */
function keysIn(line: string): string[] {
  const [, peerId = '', ...options] = fieldsOf(line)
  const announced = options.map((option) => nextIn(option))
  return [
    peerId,
    ...announced.filter((next) => next !== undefined && peerIdProblem(next) === undefined),
  ] as string[]
}

/** With the space before it and the CR behind it, where there is one. */
function commentOf(line: string): string {
  const at = line.search(/(?:^|[ \t])#/)
  if (at === -1) return line.endsWith('\r') ? '\r' : ''
  return line[at] === '#' ? ` ${line}` : line.slice(at)
}

/** The name that the line at this place owns, though it may be refused. Given up, it could put another line in force. */
function ownName(lines: readonly string[], index: number): string | undefined {
  const [name, peerId] = fieldsOf(lines[index] ?? '')
  const above = lines.slice(0, index).some((line) => fieldsOf(line)[0] === name)
  return above ? undefined : parseTrustedPeers(`${name} ${peerId}`).peers[0]?.name
}

function freeName(name: string, lines: readonly string[]): string {
  const taken = new Set(lines.map((line) => fieldsOf(line)[0]))
  let free = name
  for (let number = SECOND; taken.has(free); number++)
    free = `${name.slice(0, MAX_NAME - `-${number}`.length)}-${number}`
  return free
}

function renewed(old: TrustedPeer, peer: TrustedPeer, now: number): TrustedPeer {
  const { ports, may, expires } = peer
  const saysNothing = ports.length === 0 && may.length === 0 && expires === undefined
  const addrs = peer.addrs.length > 0 ? peer.addrs : old.addrs
  const { name, next } = old
  return saysNothing && !hasExpired(old, now)
    ? { ...old, addrs }
    : { ...peer, name, addrs, ...(next !== undefined && { next }) }
}

function refusal(problem: Problem | undefined): FarportError {
  const sentence = problem?.sentence ?? 'this is more than a line of trusted_peers can say'
  return new FarportError('ERR_USAGE', sentence)
}

function unwritable(path: string, cause: unknown): FarportError {
  const code = (cause as NodeJS.ErrnoException).code ?? String(cause)
  const why = code === 'ENOSPC' || code === 'EDQUOT' ? 'the disk is full' : code
  return new FarportError('ERR_HOME', `${path} can't be written (${why})`, { cause })
}
