/**
 * The strictness of sshd's StrictModes: what decides who may use our ports is only believed where nobody but us (or
 * root) could have written it, and a private key only where nobody else could have read it. Looked up in the mode bits,
 * not by trying access, so that it also holds when we are root.
 */
import { constants, type Stats } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { FarportError } from '../errors.ts'

/** Which permissions of group and others make a file unusable. */
type Forbidden = 'writable by others' | 'accessible by others'

const FORBIDDEN_BITS: Record<Forbidden, number> = {
  'writable by others': 0o022,
  'accessible by others': 0o077,
}

/** @throws FarportError ERR_HOME unless `home` is a directory of ours into which nobody else can write */
export async function checkHome(home: string): Promise<void> {
  const stats = await stat(home).catch((cause) => {
    throw unusable(home, cause)
  })
  if (!stats.isDirectory())
    throw new FarportError('ERR_HOME', `${home} is not a directory: name another with --home`)
  checkModes(home, stats, 'writable by others')
}

/**
 * Reads a small file of the home, judging the very file that is read.
 * @throws FarportError ERR_HOME, with the system's error as its cause when the file is missing or can't be read
 */
export async function readStrictly(path: string, maxBytes: number, forbidden: Forbidden): Promise<Buffer> {
  // O_NONBLOCK: a FIFO in the file's place must not hang us before we see what it is.
  const file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)).catch((cause) => {
    throw unusable(path, cause)
  })
  try {
    const stats = await file.stat()
    if (!stats.isFile()) throw new FarportError('ERR_HOME', `${path} is not a regular file: move it away`)
    checkModes(path, stats, forbidden)
    const bytes = await readAtMost(file, maxBytes + 1)
    if (bytes.length > maxBytes)
      throw new FarportError('ERR_HOME', `${path} is larger than ${maxBytes} bytes: move it away`)
    return bytes
  } catch (error) {
    throw error instanceof FarportError ? error : unusable(path, error)
  } finally {
    await file.close()
  }
}

/** True for the error of a file that does not exist, also when it is the cause of ours. */
export function isMissing(error: unknown): boolean {
  const cause = error instanceof FarportError ? error.cause : error
  return (cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
}

/** @throws FarportError ERR_HOME unless the file or directory of these stats is ours, or root's, and closed to others */
export function checkModes(path: string, stats: Stats, forbidden: Forbidden): void {
  // Windows has neither owners nor modes in this sense: there, the user profile's access list is the guard.
  const us = process.geteuid?.()
  if (us === undefined) return
  if (stats.uid !== us && stats.uid !== 0)
    throw new FarportError(
      'ERR_HOME',
      `${path} belongs to another user: type  sudo chown ${us} ${quoted(path)}`,
    )
  const bits = FORBIDDEN_BITS[forbidden]
  if ((stats.mode & bits) === 0) return
  const chmod = `chmod ${forbidden === 'writable by others' ? 'go-w' : 'go='} ${quoted(path)}`
  throw new FarportError('ERR_HOME', `${path} is ${forbidden}, so it can't be trusted: type  ${chmod}`)
}

function unusable(path: string, cause: unknown): FarportError {
  const code = (cause as NodeJS.ErrnoException).code ?? String(cause)
  const sentence = code === 'ENOENT' ? `there is no ${path}` : `${path} can't be read (${code})`
  return new FarportError('ERR_HOME', sentence, { cause })
}

async function readAtMost(file: FileHandle, maxBytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(maxBytes)
  let length = 0
  while (length < maxBytes) {
    const { bytesRead } = await file.read(buffer, length, maxBytes - length)
    if (bytesRead === 0) break
    length += bytesRead
  }
  return buffer.subarray(0, length)
}

/** For a POSIX shell. */
function quoted(path: string): string {
  return /^[\w./:@%+-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
