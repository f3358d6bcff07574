import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { FarportError } from '../errors.ts'
import { replaceFile } from './durable-file.ts'
import { withImplied } from './grants.ts'
import { checkHome, isMissing, readStrictly } from './strict-modes.ts'
import {
  formatTrustedPeer,
  MAX_FILE,
  type Problem,
  parseTrustedPeers,
  TRUSTED_PEERS,
  type TrustedPeer,
} from './trusted-peers.ts'

/**
 * Adds a line for `peer` to the home's `trusted_peers`, whose other bytes stay as they are. Not safe against another
 * writer at the same moment: `TrustStore.add` is, within a process.
 * @throws FarportError ERR_USAGE when the line could not be in force (a name that is taken, or not a name), ERR_HOME
 */
export async function appendPeer(home: string, peer: TrustedPeer): Promise<void> {
  const line = formatTrustedPeer(peer)
  // The name may come from the peer: only what reads back as this one grant is written.
  const alone = parseTrustedPeers(line)
  const wanted = { ...peer, may: withImplied(peer.may) }
  if (!isDeepStrictEqual(alone.peers, [wanted])) throw refusal(alone.problems.at(-1))

  await checkHome(home)
  // A link stays a link: its target is replaced.
  const path = await realpath(join(home, TRUSTED_PEERS)).catch(() => join(home, TRUSTED_PEERS))
  const old = await readStrictly(path, MAX_FILE, 'writable by others').catch((error) => {
    if (isMissing(error)) return Buffer.alloc(0)
    throw error
  })
  const separator = old.length === 0 || old.at(-1) === 0x0a ? '' : '\n'
  const whole = Buffer.concat([old, Buffer.from(`${separator}${line}\n`)])
  const after = parseTrustedPeers(whole.toString('utf8'))
  if (after.peers.at(-1)?.peerId !== peer.peerId) throw refusal(after.problems.at(-1))
  await replaceFile(path, whole)
}

function refusal(problem: Problem | undefined): FarportError {
  const sentence = problem?.sentence ?? 'this is more than a line of trusted_peers can say'
  return new FarportError('ERR_USAGE', sentence)
}
