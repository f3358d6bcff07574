/**
 * The file `identity.next.peers`: who has accepted the key in `identity.next`, so that peers that are never there at the
 * same time can be told one after the other.
 *
 *   file = the PeerID of the next key, then those of the peers, one a line
 *
 * It only spares work. Whatever is in it that is not as it should be counts for nothing: then a peer is told again, which
 * changes nothing there.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { FarportError } from '../errors.ts'
import { replaceFile } from './durable-file.ts'
import { peerIdProblem } from './peer-id.ts'
import { isMissing, readStrictly } from './strict-modes.ts'

const PROGRESS = 'identity.next.peers'

/** 10,000 peers, as many as trusted_peers may have. */
const MAX_FILE = 1024 * 1024

/** The peers that have accepted this next key. */
export async function readRotationProgress(home: string, next: string): Promise<Set<string>> {
  try {
    const text = (await readStrictly(join(home, PROGRESS), MAX_FILE, 'writable by others')).toString('latin1')
    const [of, ...peers] = text.split('\n')
    return new Set(of === next ? peers.filter((line) => peerIdProblem(line) === undefined) : [])
  } catch (error) {
    if (isMissing(error)) return new Set()
    throw error
  }
}

/** @throws FarportError ERR_HOME when it can't be written */
export async function writeRotationProgress(
  home: string,
  next: string,
  peers: Iterable<string>,
): Promise<void> {
  const path = join(home, PROGRESS)
  await replaceFile(path, [next, ...peers, ''].join('\n')).catch((cause) => {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause)
    throw new FarportError('ERR_HOME', `${path} can't be written (${code})`, { cause })
  })
}

export async function forgetRotationProgress(home: string): Promise<void> {
  await rm(join(home, PROGRESS), { force: true })
}
