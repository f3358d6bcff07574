import { isAbsolute, join, resolve } from 'node:path'
import { FarportError } from '../errors.ts'

/**
 * Where identity, trusted peers and configuration live, as an absolute path: `--home`, else FARPORT_HOME, else
 * `$XDG_CONFIG_HOME/farport`, else `~/.config/farport`. Nothing is opened or made.
 * @throws FarportError ERR_HOME when nothing says where
 */
export function resolveHome(flag?: string, env: NodeJS.ProcessEnv = process.env): string {
  // An empty --home is a script's unset variable: falling back to another home would act under another identity.
  if (flag !== undefined) return given('--home', flag)
  if (env.FARPORT_HOME) return given('FARPORT_HOME', env.FARPORT_HOME)
  // The XDG base directory specification: a relative path is to be ignored.
  if (env.XDG_CONFIG_HOME && isAbsolute(env.XDG_CONFIG_HOME)) return join(env.XDG_CONFIG_HOME, 'farport')
  const user = env.HOME || env.USERPROFILE
  if (user && isAbsolute(user)) return join(user, '.config', 'farport')
  throw new FarportError(
    'ERR_HOME',
    'HOME is not set, so farport has no place for its files: name one with --home',
  )
}

function given(source: string, path: string): string {
  if (path === '') throw new FarportError('ERR_HOME', `${source} is empty: it should name a directory`)
  // Shells leave the tilde alone in --home=~/x and in environment files; a directory named ~ is never what was meant.
  if (/^~(\/|$)/.test(path))
    throw new FarportError(
      'ERR_HOME',
      `${source} begins with a ~ that no shell has replaced: write the whole path`,
    )
  return resolve(path)
}
