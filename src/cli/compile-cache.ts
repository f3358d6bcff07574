import { mkdirSync, statSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { isAbsolute, join } from 'node:path'

const MINE_ALONE = 0o700

/**
 * Lets Node keep compiled code in the user's own cache, which takes half off each start. Code is run from there, so it must
 * be ours alone: Node's own choice is a folder of /tmp. Without a good place farport starts as it would have.
 */
export function useCompileCache(env: NodeJS.ProcessEnv = process.env): void {
  // NODE_COMPILE_CACHE is the user's word, and Node has heard it already.
  if (env.NODE_COMPILE_CACHE || env.NODE_DISABLE_COMPILE_CACHE) return
  const place = cachePlace(env)
  if (place === undefined) return
  try {
    const directory = join(place, 'farport')
    // One level at a time: below /proc a recursive mkdir never returns.
    for (const level of [place, directory]) makeDirectory(level)
    const { uid, mode } = statSync(directory)
    if (uid === process.getuid?.() && (mode & 0o777) === MINE_ALONE) enableCompileCache(directory)
  } catch {
    // A full disk, a home that can't be written: not worth a word.
  }
}

/** systemd's CacheDirectory= of the service, else the XDG base directory specification's place for a user's cache. */
function cachePlace({ CACHE_DIRECTORY, XDG_CACHE_HOME, HOME }: NodeJS.ProcessEnv): string | undefined {
  if (CACHE_DIRECTORY && isAbsolute(CACHE_DIRECTORY)) return CACHE_DIRECTORY
  if (XDG_CACHE_HOME && isAbsolute(XDG_CACHE_HOME)) return XDG_CACHE_HOME
  return HOME && isAbsolute(HOME) ? join(HOME, '.cache') : undefined
}

function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { mode: MINE_ALONE })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}
