/** Files that are there whole or not at all, whatever happens in between: written aside, synced, then given their name. */
import { randomBytes } from 'node:crypto'
import { chmod, chown, link, lstat, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** What was written aside has its name within a second; an hour leaves room for a machine that slept meanwhile. */
const ABANDONED_MS = 60 * 60 * 1000

/**
 * Creates `path` with mode 0600 unless it exists; answers whether it did. Of several processes at once exactly one
 * succeeds, and nobody ever sees part of the file: link(2) is atomic and never replaces.
 */
export async function createFile(path: string, content: string | Uint8Array): Promise<boolean> {
  const aside = await writeAside(path, content)
  try {
    await link(aside, path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  } finally {
    await rm(aside, { force: true })
  }
  await syncDirectory(path)
  return true
}

/** Replaces `path`, which keeps its owner and mode; a new file gets 0600. */
export async function replaceFile(path: string, content: string | Uint8Array): Promise<void> {
  const old = await stat(path).catch(() => undefined)
  const aside = await writeAside(path, content)
  try {
    if (old !== undefined) {
      await chmod(aside, old.mode & 0o777)
      if (process.geteuid?.() === 0) await chown(aside, old.uid, old.gid)
    }
    await rename(aside, path)
  } catch (error) {
    await rm(aside, { force: true })
    throw error
  }
  await syncDirectory(path)
}

/** In the same directory, since neither link nor rename crosses file systems. */
async function writeAside(path: string, content: string | Uint8Array): Promise<string> {
  // First, since a full disk may be full of these.
  await sweep(dirname(path), basename(path))
  const aside = `${path}.${randomBytes(6).toString('hex')}.tmp`
  const file = await open(aside, 'wx', 0o600)
  try {
    await file.writeFile(content)
    await file.sync()
  } catch (error) {
    await rm(aside, { force: true })
    throw error
  } finally {
    await file.close()
  }
  return aside
}

/** A name is only safe from a power cut once its directory is written too. */
async function syncDirectory(path: string): Promise<void> {
  // Windows opens no directories, and its rename is journaled.
  if (process.platform === 'win32') return
  const directory = await open(dirname(path), 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/**
 * Removes what writers that were killed have left aside: of the file of this name, or of another that is there, such as
 * a private key that never got its name. Another process may be writing at this moment, so only what is long abandoned
 * goes; should its writer wake up after all, it fails and its file stays as it was.
 */
async function sweep(directory: string, name: string): Promise<void> {
  // Nobody's write fails because of what others have left.
  const names = await readdir(directory).catch((): string[] => [])
  for (const aside of names) {
    const [, of = ''] = /^(.+)\.[0-9a-f]{12}\.tmp$/.exec(aside) ?? []
    if (of !== name && !names.includes(of)) continue
    const path = join(directory, aside)
    const stats = await lstat(path).catch(() => undefined)
    if (stats === undefined || !stats.isFile() || !isOurs(stats.uid)) continue
    if (Date.now() - stats.mtimeMs > ABANDONED_MS) await rm(path, { force: true }).catch(() => {})
  }
}

/** Windows has no owners in this sense. */
function isOurs(uid: number): boolean {
  const us = process.geteuid?.()
  return us === undefined || uid === us
}
