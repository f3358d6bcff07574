/**
 * UUCP lock files, by which serial programs have told each other for forty years that a line is taken: minicom, cu, pppd,
 * ser2net, mgetty. Those that know nothing else open a port beside whoever only holds flock(2) or TIOCEXCL.
 *
 *   /var/lock/LCK..ttyUSB0    the device's name below /dev, each slash an underscore
 *   "      4711\n"            the process that holds it, ten columns (Filesystem Hierarchy Standard 3.0, section 5.9)
 *
 * The file is written under another name and linked, so that nobody reads half of one. A file of a process that is no more
 * counts for nothing.
 */
import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { link, open, realpath, rename, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { isSystemError } from './libc.ts'

export interface DeviceLock {
  /** Never rejects. */
  release(): Promise<void>
  /** Undoes what was done, for a device that then could not be opened. */
  undo(): Promise<void>
}

type Taken =
  | { state: 'locked'; lock: DeviceLock }
  /** By another process; undefined where the file does not say by which. */
  | { state: 'held'; file: string; pid: number | undefined }
  /** There is no folder to lock in, or we may not write there. */
  | { state: 'unavailable'; reason: Error }

const LOCK_FOLDER = '/var/lock'
const MODE = 0o644
/** Ten columns and a newline, and what other programs write behind them. */
const MAX_LOCK_BYTES = 64
/** Dead files that come back as often as they are taken away are somebody's doing. */
const MAX_ATTEMPTS = 3

/**
 * Locks the device at `path` for this process. A lock that this process has already is taken over: flock(2) is what keeps
 * two openings in one process apart, and after a restart in a container the new process may have the number of the old.
 * @param path leads to the device
 */
export async function lockDevice(path: string, folder = LOCK_FOLDER): Promise<Taken> {
  const device = await realpath(path).catch(() => path)
  const file = join(folder, nameOf(device))
  try {
    // A program that was given the link may have locked the link's name.
    for (const other of new Set([file, join(folder, nameOf(path))])) {
      const holder = await holderOf(other)
      if (holder.state === 'held') return { ...holder, file: other }
    }
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      if (await create(file, folder)) return { state: 'locked', lock: lockAt(file, { isNew: true }) }
      const holder = await holderOf(file)
      if (holder.state === 'held') return { ...holder, file }
      if (holder.state === 'ours') return { state: 'locked', lock: lockAt(file, { isNew: false }) }
      if (holder.state === 'dead') await removeDead(file, holder.pid, folder)
    }
    return { state: 'held', file, pid: undefined }
  } catch (reason) {
    if (!isSystemError(reason, 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'EROFS', 'ENOSPC', 'EDQUOT', 'ELOOP'))
      throw reason
    return { state: 'unavailable', reason: reason as Error }
  }
}

function nameOf(device: string): string {
  return `LCK..${device.replace(/^\/dev\//, '').replaceAll('/', '_')}`
}

function lockAt(file: string, { isNew }: { isNew: boolean }): DeviceLock {
  const release = async () => {
    // Another may have taken it for dead meanwhile, as one does that sees other process numbers than we.
    const holder = await holderOf(file).catch(() => undefined)
    if (holder?.state === 'ours') await unlink(file).catch(() => {})
  }
  return {
    release,
    undo: async () => {
      if (isNew) await release()
    },
  }
}

/** False where the name is taken. */
async function create(file: string, folder: string): Promise<boolean> {
  const draft = join(folder, `LTMP.${randomUUID()}`)
  try {
    await using handle = await open(draft, 'wx', MODE)
    await handle.writeFile(`${String(process.pid).padStart(10)}\n`)
    // A service has a umask under which nobody else could read it.
    await handle.chmod(MODE)
    await link(draft, file)
    return true
  } catch (error) {
    if (isSystemError(error, 'EEXIST')) return false
    throw error
  } finally {
    await unlink(draft).catch(() => {})
  }
}

type Holder = { state: 'none' } | { state: 'ours' } | { state: 'dead'; pid: number } | Held
type Held = { state: 'held'; pid: number | undefined }

async function holderOf(file: string): Promise<Holder> {
  const text = await readLock(file)
  if (text === undefined) return { state: 'none' }
  const [, digits] = /^\s*(\d{1,10})(?:\s|$)/.exec(text) ?? []
  // What no number stands in is none of ours to take away.
  if (digits === undefined || Number(digits) === 0) return { state: 'held', pid: undefined }
  const pid = Number(digits)
  if (pid === process.pid) return { state: 'ours' }
  return isAlive(pid) ? { state: 'held', pid } : { state: 'dead', pid }
}

/** Anybody may make files in that folder: it may be a link, or a pipe that never says anything. */
async function readLock(file: string): Promise<string | undefined> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  try {
    await using handle = await open(file, flags)
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAX_LOCK_BYTES), 0, MAX_LOCK_BYTES, null)
    return buffer.toString('latin1', 0, bytesRead)
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return undefined
    // Something is there that we can't read: then it holds.
    if ((await stat(file).catch(() => undefined)) !== undefined || isSystemError(error, 'ELOOP')) return ''
    throw error
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // EPERM is somebody else's, and alive.
    return !isSystemError(error, 'ESRCH')
  }
}

/** Another may do the same, and have locked anew by now: so what is taken away is looked at again. */
async function removeDead(file: string, pid: number, folder: string): Promise<void> {
  const aside = join(folder, `LTMP.${randomUUID()}`)
  await rename(file, aside).catch((error) => {
    if (!isSystemError(error, 'ENOENT')) throw error
  })
  const taken = await readLock(aside)
  if (taken !== undefined && Number.parseInt(taken, 10) !== pid)
    await link(aside, file).catch((error) => {
      if (!isSystemError(error, 'EEXIST')) throw error
    })
  await unlink(aside).catch(() => {})
}
