import { readdir, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { type Identity, loadIdentity } from '../trust/identity.ts'
import { openTrustStore, type TrustStore } from '../trust/trust-store.ts'
import { TRUSTED_PEERS } from '../trust/trusted-peers.ts'
import { AUDIT_LOG } from './audit-log.ts'
import type { Finding } from './finding.ts'

/** File systems round times, and other machines may write to them. */
const CLOCK_TOLERANCE_MS = 60_000
/** The audit log with its predecessors, and room for a line of trusted_peers. */
const WANTED_FREE_BYTES = 64 * 1024 * 1024
const LEAST_FREE_BYTES = 1024 * 1024

type Tell = (finding: Finding) => void

export async function checkKey(home: string, tell: Tell): Promise<Identity | undefined> {
  try {
    const identity = await loadIdentity(home, { create: false })
    tell({ about: 'key', verdict: 'ok', text: `this machine is ${identity.peerId}` })
    return identity
  } catch (error) {
    tell({ about: 'key', verdict: 'bad', text: sentenceOf(error) })
    return undefined
  }
}

export async function checkTrust(home: string, tell: Tell, log: Logger): Promise<TrustStore | undefined> {
  try {
    // What it would log about the lines is told here.
    const trust = await openTrustStore(home, { log: log.child({}, { level: 'silent' }) })
    const count = trust.peers().length
    const text = `${TRUSTED_PEERS} is readable, ${count} ${count === 1 ? 'peer' : 'peers'}`
    tell({ about: 'trust', verdict: 'ok', text })
    for (const { line, sentence } of trust.problems())
      tell({ about: 'trust', verdict: 'bad', text: line === 0 ? sentence : `line ${line}: ${sentence}` })
    return trust
  } catch (error) {
    tell({ about: 'trust', verdict: 'bad', text: sentenceOf(error) })
    return undefined
  }
}

/**
 * Files that somebody else has left in the home, as root does after `sudo farport`. Silent where there is no home.
 * farport.yaml may be anybody's: it is only read, and administrators write it.
 */
export async function ownersFinding(home: string): Promise<Finding | undefined> {
  const owner = (await stat(home).catch(() => undefined))?.uid
  if (owner === undefined || process.geteuid === undefined) return undefined
  const names = (await readdir(home).catch(() => [])).filter((name) => name !== 'farport.yaml')
  const files = await Promise.all(
    names.map(async (name) => ({ name, uid: (await stat(join(home, name)).catch(() => undefined))?.uid })),
  )
  const foreign = files.filter(({ uid }) => uid !== undefined && uid !== owner).map(({ name }) => name)
  if (foreign.length === 0)
    return { about: 'home', verdict: 'ok', text: `all files in ${home} belong to its owner` }
  return {
    about: 'home',
    verdict: 'bad',
    text: `in ${home} there are files of another user: ${foreign.join(', ')}`,
    remedy: `type  sudo chown -R ${owner} ${home}`,
  }
}

/**
 * Whether what has to be written down can be. Silent where there is no home.
 * @param free bytes on the file system of a folder
 */
export async function diskFinding(home: string, free = freeBytes): Promise<Finding | undefined> {
  const bytes = await free(home).catch(() => undefined)
  if (bytes === undefined) return undefined
  const text = `${Math.floor(bytes / (1024 * 1024))} MiB are free for ${home}`
  if (bytes >= WANTED_FREE_BYTES) return { about: 'disk', verdict: 'ok', text }
  const verdict = bytes < LEAST_FREE_BYTES ? 'bad' : 'note'
  return { about: 'disk', verdict, text, remedy: `make room: ${AUDIT_LOG} and new peers are written there` }
}

async function freeBytes(home: string): Promise<number> {
  const { bavail, bsize } = await statfs(home)
  return bavail * bsize
}

/** Nobody out there tells us the time in a way that we could believe; but it can't be before what has already been. */
export async function clockFinding(home: string): Promise<Finding> {
  const now = Date.now()
  const shown = `${new Date(now).toISOString().slice(0, 19)}Z`
  const files = [
    import.meta.filename,
    ...['identity.key', TRUSTED_PEERS, AUDIT_LOG].map((f) => join(home, f)),
  ]
  for (const file of files) {
    const written = (await stat(file).catch(() => undefined))?.mtimeMs ?? 0
    if (written <= now + CLOCK_TOLERANCE_MS) continue
    return {
      about: 'clock',
      verdict: 'bad',
      text: `the clock says ${shown}, which is before ${file} was written`,
      remedy: 'set it, as by `timedatectl set-ntp true`: grants and invites end by it',
    }
  }
  return { about: 'clock', verdict: 'ok', text: shown }
}

function sentenceOf(error: unknown): string {
  if (error instanceof FarportError) return error.message
  throw error
}
