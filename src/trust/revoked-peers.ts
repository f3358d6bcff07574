/**
 * The file `revoked_peers`: whom `farport revoke` has cut off for good. A line of `trusted_peers` can come back with a
 * restored backup or a second machine's copy; who is named here stays out all the same.
 *
 *   12D3KooW…  # anna, revoked 2027-03-01T09:30:00Z
 *
 *   file    = lines ended by LF, CR LF or CR
 *   line    = [peer-id] [comment], separated by spaces or tabs
 *   comment = #, and all behind it. The name and the time in it are for people, and for the sentence they are told
 *
 * Read the other way round from `trusted_peers`: there, what is not understood grants nothing; here, it revokes what it can.
 * A PeerID anywhere in a line is revoked, in a comment too, and the line is reported. To let a peer in again, its line is
 * deleted.
 */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { FarportError } from '../errors.ts'
import { createFile } from './durable-file.ts'
import { peerIdProblem } from './peer-id.ts'
import { checkHome, isMissing, readStrictly } from './strict-modes.ts'
import type { Problem } from './trusted-peers.ts'

export const REVOKED_PEERS = 'revoked_peers'

/** In bytes: some 10,000 revocations. A larger file is refused, and with it everybody. */
const MAX_FILE = 1024 * 1024
/** How many lines are complained about; those behind them revoke all the same. */
const MAX_PROBLEMS = 20

const HEADER =
  '# Revoked by farport: never let in, whatever trusted_peers says. Delete a line to let its peer in again.\n'
/** Looks ahead only, so that PeerIDs which overlap are found too. */
const ANY_PEER_ID = /(?=(12D3KooW[1-9A-HJ-NP-Za-km-z]{44}))/g

/** One PeerID that is revoked, with what its line says of it. */
export interface Revocation {
  readonly peerId: string
  /** What it was called in `trusted_peers`. */
  readonly name?: string
  /** ISO 8601, in UTC. */
  readonly revokedAt?: string
}

interface RevokedPeers {
  readonly revoked: ReadonlyMap<string, Revocation>
  /** Numbered 0, since a number stands for a line of `trusted_peers`: the sentences name theirs. */
  readonly problems: readonly Problem[]
}

/** Reads the file's text. Never throws: a line that is not as it should be is a problem, and revokes what it names. */
export function parseRevokedPeers(text: string): RevokedPeers {
  const revoked = new Map<string, Revocation>()
  const problems: Problem[] = []
  // Some Windows editors save UTF-16: without its zero bytes the ASCII in it can be read.
  const lines = text.replace(/^\uFEFF|\0/g, '').split(/\r\n|\n|\r/)
  for (const [index, line] of lines.entries()) {
    const found = [...line.matchAll(ANY_PEER_ID)].map((match) => match[1] as string)
    const entry = parseLine(line)
    for (const peerId of found)
      if (!revoked.has(peerId)) revoked.set(peerId, entry?.peerId === peerId ? entry : { peerId })
    const problem = problemOf(line, found, entry)
    if (problem !== undefined && problems.length < MAX_PROBLEMS)
      problems.push({ line: 0, sentence: `line ${index + 1} of ${REVOKED_PEERS} ${problem}` })
  }
  return { revoked, problems }
}

/**
 * Reads the home's file; a missing one revokes nobody.
 * @throws FarportError ERR_HOME when others could have written it, or it can't be read
 */
export async function readRevokedPeers(home: string): Promise<RevokedPeers> {
  return parseRevokedPeers((await readText(join(home, REVOKED_PEERS))) ?? '')
}

/**
 * Writes down that these peers are revoked, on the disk when this resolves. Appended in one write: of two processes that
 * revoke at once, neither undoes what the other wrote.
 * @throws FarportError ERR_HOME
 */
export async function rememberRevoked(home: string, peers: readonly Revocation[]): Promise<void> {
  if (peers.length === 0) return
  await checkHome(home)
  const path = join(home, REVOKED_PEERS)
  const before = await readText(path)
  const torn = before !== undefined && before !== '' && !before.endsWith('\n')
  const text = (torn ? '\n' : '') + peers.map((peer) => `${formatLine(peer)}\n`).join('')
  if (Buffer.byteLength(before ?? HEADER) + Buffer.byteLength(text) > MAX_FILE)
    throw new FarportError(
      'ERR_HOME',
      `${path} would be larger than ${MAX_FILE} bytes: delete its oldest lines`,
    )
  try {
    if (before === undefined) await createFile(path, HEADER)
    const file = await open(path, 'a', 0o600)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause)
    throw new FarportError('ERR_HOME', `${path} can't be written (${code})`, { cause })
  }
}

/** What is said wherever a revoked peer would otherwise be let in; begins with who it is. */
export function revokedSentence({ peerId, name, revokedAt }: Revocation): string {
  const when = revokedAt === undefined ? '' : ` on ${revokedAt.slice(0, 10)}`
  return `${name ?? peerId} was revoked${when}: delete its line in ${REVOKED_PEERS} to let it in again`
}

function formatLine({ peerId, name, revokedAt }: Revocation): string {
  return `${peerId}  # ${name ?? 'a peer'}, revoked ${revokedAt ?? ''}`.trimEnd()
}

/** The line as we write it, or with another comment or none. */
function parseLine(line: string): Revocation | undefined {
  const [, peerId = '', comment = ''] = /^[ \t]*([^\s#]+)[ \t]*(?:[ \t]#(.*))?$/.exec(line) ?? []
  if (peerIdProblem(peerId) !== undefined) return undefined
  const written =
    /^ ([A-Za-z0-9_][A-Za-z0-9._-]{0,63}|a peer), revoked (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$/.exec(comment)
  if (written === null) return { peerId }
  const [, name = '', revokedAt = ''] = written
  return { peerId, revokedAt, ...(name !== 'a peer' && { name }) }
}

function problemOf(
  line: string,
  found: readonly string[],
  entry: Revocation | undefined,
): string | undefined {
  if (found.length > 1) return 'holds several PeerIDs: all of them are revoked'
  if (entry !== undefined) return undefined
  if (found.length === 1) return `is not as it should be, but revokes ${found[0]} all the same`
  return /^[ \t]*(#|$)/.test(line) ? undefined : 'holds no PeerID, so it revokes nobody'
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return (await readStrictly(path, MAX_FILE, 'writable by others')).toString('utf8')
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}
