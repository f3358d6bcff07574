import { statSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { FarportError } from '../errors.ts'

/** Where the Debian package's service has its home, and what it runs. */
const SERVICE_HOME = '/var/lib/farport'
const SERVICE_CONFIG = '/etc/farport/farport.yaml'

/** Whose process this is, and who owns a file. */
export interface Owners {
  /** The effective user; undefined where users have no numbers. */
  readonly us: number | undefined
  /** Undefined for a file that is not there. */
  readonly ownerOf: (path: string) => number | undefined
}

/**
 * Where identity, trusted peers and configuration live, as an absolute path: `--home`, else FARPORT_HOME, else the service's
 * home for the service's own user, else `$XDG_CONFIG_HOME/farport`, else `~/.config/farport`. Nothing is opened or made.
 * @throws FarportError ERR_HOME when nothing says where, and for root, who would leave root's files in the service's home
 */
export function resolveHome(
  flag?: string,
  env: NodeJS.ProcessEnv = process.env,
  owners: Owners = systemOwners(),
): string {
  // An empty --home is a script's unset variable: falling back to another home would act under another identity.
  if (flag !== undefined) return given('--home', flag)
  if (env.FARPORT_HOME) return given('FARPORT_HOME', env.FARPORT_HOME)
  const service = owners.us === undefined ? undefined : owners.ownerOf(SERVICE_HOME)
  if (service !== undefined && service === owners.us) return SERVICE_HOME
  const own = ownHome(env)
  if (owners.us === 0 && service !== undefined && (own === undefined || owners.ownerOf(own) === undefined))
    throw new FarportError(
      'ERR_HOME',
      `on this machine farport is a service with its home in ${SERVICE_HOME}: type  sudo -u farport farport …  ` +
        'to talk to it, or name another home with --home',
    )
  if (own !== undefined) return own
  throw new FarportError(
    'ERR_HOME',
    'HOME is not set, so farport has no place for its files: name one with --home',
  )
}

/** Whether this is where the Debian package's service has its files. */
export function isServiceHome(home: string): boolean {
  return home === SERVICE_HOME
}

/** The farport.yaml that belongs to a home. */
export function configPath(home: string): string {
  return isServiceHome(home) ? SERVICE_CONFIG : join(home, 'farport.yaml')
}

function ownHome(env: NodeJS.ProcessEnv): string | undefined {
  // The XDG base directory specification: a relative path is to be ignored.
  if (env.XDG_CONFIG_HOME && isAbsolute(env.XDG_CONFIG_HOME)) return join(env.XDG_CONFIG_HOME, 'farport')
  const user = env.HOME || env.USERPROFILE
  return user && isAbsolute(user) ? join(user, '.config', 'farport') : undefined
}

function systemOwners(): Owners {
  return {
    us: process.geteuid?.(),
    ownerOf: (path) => {
      try {
        return statSync(path).uid
      } catch {
        return undefined
      }
    },
  }
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
