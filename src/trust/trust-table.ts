/** What `trusted_peers` and `revoked_peers` of a home say together, and how they look from outside. */
import type { BigIntStats } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { FarportError } from '../errors.ts'
import { REVOKED_PEERS, type Revocation, readRevokedPeers, revokedSentence } from './revoked-peers.ts'
import { checkHome, isMissing, readStrictly } from './strict-modes.ts'
import {
  keysOf,
  MAX_FILE,
  type Problem,
  parseTrustedPeers,
  TRUSTED_PEERS,
  type TrustedPeer,
} from './trusted-peers.ts'

/** What the files said, or why nothing of it is in force. */
export interface TrustTable {
  /** By both keys, where a peer has announced another. */
  readonly byId: ReadonlyMap<string, TrustedPeer>
  /** In the order of the file. */
  readonly byName: ReadonlyMap<string, TrustedPeer>
  readonly revoked: ReadonlyMap<string, Revocation>
  readonly problems: readonly Problem[]
  readonly refused?: FarportError
}

/** Never rejects for what is wrong with the files: then nobody is trusted. */
export async function readTrustTable(home: string): Promise<TrustTable> {
  try {
    await checkHome(home)
    // In this order: a peer that is revoked meanwhile is refused, and never seen as its line was without its revocation.
    const text = await readTrustedPeers(home)
    const { revoked, problems } = await readRevokedPeers(home)
    const trusted = parseTrustedPeers(text, (peerId) => {
      const revocation = revoked.get(peerId)
      return revocation && revokedSentence(revocation)
    })
    return tableOf(trusted.peers, [...trusted.problems, ...problems], revoked)
  } catch (error) {
    if (isMissing(error)) return tableOf([], [])
    if (!(error instanceof FarportError)) throw error
    return { ...tableOf([], [{ line: 0, sentence: error.message }]), refused: error }
  }
}

async function readTrustedPeers(home: string): Promise<string> {
  try {
    return (await readStrictly(join(home, TRUSTED_PEERS), MAX_FILE, 'writable by others')).toString('utf8')
  } catch (error) {
    if (isMissing(error)) return ''
    throw error
  }
}

function tableOf(
  peers: readonly TrustedPeer[],
  problems: readonly Problem[],
  revoked: ReadonlyMap<string, Revocation> = new Map(),
): TrustTable {
  return {
    revoked,
    byId: new Map(peers.flatMap((peer) => keysOf(peer).map((peerId) => [peerId, peer] as const))),
    byName: new Map(peers.map((peer) => [peer.name, peer])),
    problems,
  }
}

/** All that tells one state of the file from another without reading it: contents, modes, which file it is. */
export async function lookAt(home: string): Promise<string> {
  const directory = await look(home, (s) => [s.mode, s.uid])
  const files = await Promise.all([TRUSTED_PEERS, REVOKED_PEERS].map((file) => look(join(home, file), all)))
  return `${directory} ${files.join(' ')}`
}

const all = (s: BigIntStats) => [s.mode, s.uid, s.dev, s.ino, s.size, s.mtimeNs, s.ctimeNs]

async function look(path: string, of: (stats: BigIntStats) => bigint[]): Promise<string> {
  try {
    return of(await stat(path, { bigint: true })).join()
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code)
  }
}
