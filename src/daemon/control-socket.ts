/**
 * Where a home's control socket is, who may have it, and whether anyone is behind it. The socket is also what keeps two
 * farports from running with the same key: who holds the name runs, and a name whose holder died is free.
 *
 * The name follows from the home alone. A shorter one under XDG_RUNTIME_DIR would let a home's path have any length, but
 * services, cron and sudo run without that variable: they would look elsewhere, and start a second node.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { BigIntStats } from 'node:fs'
import { chmod, lstat, mkdtemp, readdir, rename, rm, unlink } from 'node:fs/promises'
import { connect, type Server, type Socket } from 'node:net'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import { checkHome } from '../trust/strict-modes.ts'

/** What fits into sun_path with its final NUL: 108 bytes on Linux (unix(7)), 104 on macOS and the BSDs. */
const MAX_PATH_BYTES = process.platform === 'linux' ? 107 : 103

/** Where a start prepares its socket: `.c-` and six random characters. No longer than `control.sock` with what is in it. */
const ASIDE = '.c-'

/** How long another start may take to come to its end, and how often we look. */
const START_MS = 2_000
const LOOK_MS = 10
/** What is older was left by a start that was killed. */
const ABANDONED_MS = 60 * 60 * 1000

/**
 * Makes `server` the one that listens for this home. Disposing gives up the name, not the server.
 * @throws FarportError ERR_IN_USE when another farport runs for the home, ERR_HOME when it can't hold a socket
 */
export async function claimSocket(home: string, server: Server): Promise<AsyncDisposable> {
  const path = socketPath(home)
  if (process.platform === 'win32') return await claimPipe(home, path, server)
  await checkHome(home)
  try {
    // In a directory only we can enter, so that nobody finds the socket before its mode is right, whatever the umask.
    const aside = await mkdtemp(join(home, ASIDE))
    try {
      const mine = join(aside, 's')
      await listen(server, mine)
      await chmod(mine, 0o600)
      const inode = await lstat(mine, { bigint: true })
      await outlastRivals(home, basename(aside))
      if (await isLive(path)) throw inUse(home)
      await rename(mine, path)
      await sweep(home)
      return nameOf(path, inode)
    } finally {
      await rm(aside, { recursive: true, force: true })
    }
  } catch (error) {
    server.close()
    throw error instanceof FarportError ? error : unusable(path, error)
  }
}

/**
 * A connection to the farport that runs for this home, or undefined when none does.
 * @throws FarportError ERR_HOME when what is there is not a socket of ours, ERR_IN_USE when it takes no more connections
 */
export async function connectSocket(home: string, signal: AbortSignal): Promise<Socket | undefined> {
  const path = socketPath(home)
  if (process.platform !== 'win32' && !(await isOurs(path))) return undefined
  try {
    return await connected(path, signal)
  } catch (error) {
    signal.throwIfAborted()
    switch (codeOf(error)) {
      case 'ENOENT':
      case 'ECONNREFUSED':
        return undefined
      case 'EAGAIN':
        throw tooMany()
      default:
        throw unusable(path, error)
    }
  }
}

export function tooMany(): FarportError {
  return new FarportError(
    'ERR_IN_USE',
    'the running farport has too many control connections: try again when other commands have ended',
  )
}

/** @throws FarportError ERR_HOME for a home whose path is too long */
function socketPath(home: string): string {
  // Node has no Unix sockets on Windows. A pipe goes with its process, so there it can't be stale.
  if (process.platform === 'win32')
    return `\\\\.\\pipe\\farport-${createHash('sha256').update(home.toLowerCase()).digest('hex')}`
  const path = join(home, 'control.sock')
  const excess = Buffer.byteLength(path) - MAX_PATH_BYTES
  if (excess > 0)
    throw new FarportError(
      'ERR_HOME',
      `the path of ${home} is ${excess} bytes too long for a socket in it: name a shorter one with --home`,
    )
  return path
}

async function claimPipe(home: string, path: string, server: Server): Promise<AsyncDisposable> {
  try {
    await listen(server, path)
  } catch (error) {
    throw codeOf(error) === 'EADDRINUSE' ? inUse(home) : unusable(path, error)
  }
  return { async [Symbol.asyncDispose]() {} }
}

/**
 * A stale name can't be taken in one step, since unlink and rename act on whatever has the name by then. So each start first
 * listens under a name of its own and then looks for others that do: of two at least the later one sees the other, and the
 * one with the greater name gives way. Who sees no other, and nobody behind the home's name, is alone.
 * @throws FarportError ERR_IN_USE when another start goes first
 */
async function outlastRivals(home: string, own: string): Promise<void> {
  const deadline = performance.now() + START_MS
  for (;;) {
    const rivals = await liveStarts(home, own)
    if (rivals.length === 0) return
    // The others either see us and give way, or looked before we were there: then they soon have the home's name.
    if (rivals.some((rival) => rival < own) || performance.now() > deadline) throw inUse(home)
    await sleep(LOOK_MS)
  }
}

async function liveStarts(home: string, own: string): Promise<string[]> {
  const live: string[] = []
  for (const name of await readdir(home))
    if (name.startsWith(ASIDE) && name !== own && (await isLive(join(home, name, 's')))) live.push(name)
  return live
}

/** Removes what starts that were killed have left. One that may still be under way is let alone. */
async function sweep(home: string): Promise<void> {
  const names = await readdir(home).catch((): string[] => [])
  for (const name of names) {
    const aside = join(home, name)
    const stats = name.startsWith(ASIDE) ? await lstat(aside).catch(() => undefined) : undefined
    if (stats?.isDirectory() && Date.now() - stats.mtimeMs > ABANDONED_MS)
      await rm(aside, { recursive: true, force: true }).catch(() => {})
  }
}

/** The name, for as long as it is ours: one that somebody else has put in its place stays. */
function nameOf(path: string, held: BigIntStats): AsyncDisposable {
  return {
    async [Symbol.asyncDispose]() {
      const now = await lstat(path, { bigint: true }).catch(() => undefined)
      if (now?.ino === held.ino && now.dev === held.dev)
        // What stays, as on a disk that has become read-only, is free for the next one all the same.
        await unlink(path).catch(() => {})
    },
  }
}

/** Whether a process listens there: the kernel refuses connections to a socket whose process is gone. */
async function isLive(path: string): Promise<boolean> {
  if (!(await isOurs(path))) return false
  try {
    const socket = await connected(path)
    socket.destroy()
    return true
  } catch (error) {
    switch (codeOf(error)) {
      case 'ENOENT':
      case 'ECONNREFUSED':
        return false
      // Its backlog is full.
      case 'EAGAIN':
        return true
      default:
        throw error
    }
  }
}

/** False when there is nothing. @throws FarportError ERR_HOME for what farport never put there */
async function isOurs(path: string): Promise<boolean> {
  const stats = await lstat(path).catch((error) => {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined
    throw unusable(path, error)
  })
  if (stats === undefined) return false
  // connect(2) refuses a regular file as it does a dead socket, and we would throw that file away.
  if (!stats.isSocket()) throw new FarportError('ERR_HOME', `${path} is not a socket: move it away`)
  const us = process.geteuid?.()
  // Root may look after anybody's farport.
  if (us !== 0 && stats.uid !== us)
    throw new FarportError('ERR_HOME', `${path} belongs to another user: run this command as that user`)
  return true
}

async function connected(path: string, signal?: AbortSignal): Promise<Socket> {
  const socket = connect({ path, ...(signal && { signal }) })
  await once(socket, 'connect')
  // Whoever reads it learns of its end. An error in between, as from an abort, must not become an uncaught one.
  socket.on('error', () => {})
  return socket
}

async function listen(server: Server, path: string): Promise<void> {
  server.listen(path)
  await once(server, 'listening')
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code
}

function inUse(home: string): FarportError {
  return new FarportError(
    'ERR_IN_USE',
    `another farport already runs for ${home}: end it first, or give this one another home with --home`,
  )
}

function unusable(path: string, cause: unknown): FarportError {
  return new FarportError('ERR_HOME', `${path} can't be used (${codeOf(cause) ?? cause})`, { cause })
}
