import { constants } from 'node:fs'
import { access, readdir, readFile, stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { isServiceHome } from '../config/home.ts'

/** What `farport doctor` asks of the machine it runs on, so that tests can make machines up. */
export interface Machine {
  readonly node: { readonly version: string; readonly path: string }
  /** Undefined where users have no numbers. */
  readonly user?: { readonly name: string; readonly uid: number; readonly gids: readonly number[] }
  readonly inContainer: boolean
  /** As in group(5). */
  readonly groups: string
  /** The unit that runs for this home, with what administrators have added to it; empty where none does. */
  readonly unit: string
  /** The code of the error that opening for reading and writing would end with. Opens nothing: that would raise DTR. */
  readonly mayOpen: (path: string) => Promise<string | undefined>
  /** Undefined for what is not there. */
  readonly device: (path: string) => Promise<{ gid: number; mode: number; major: number } | undefined>
}

/** Those of Debian and of administrators, the later above the earlier. */
const UNIT_FOLDERS = ['/lib/systemd/system', '/etc/systemd/system', '/run/systemd/system']

export async function thisMachine(home: string): Promise<Machine> {
  const uid = process.geteuid?.()
  const gids = process.getgroups?.() ?? []
  const [groups, unit, ...marks] = await Promise.all([
    readFile('/etc/group', 'utf8').catch(() => ''),
    isServiceHome(home) ? readUnit() : '',
    // Docker and podman leave these.
    ...['/.dockerenv', '/run/.containerenv'].map(exists),
  ])
  return {
    node: { version: process.versions.node, path: process.execPath },
    ...(uid !== undefined && { user: { name: nameOfUser(uid), uid, gids } }),
    inContainer: marks.includes(true) || process.env.container !== undefined,
    groups,
    unit,
    mayOpen: (path) =>
      access(path, constants.R_OK | constants.W_OK).then(
        () => undefined,
        (error: NodeJS.ErrnoException) => error.code ?? 'EIO',
      ),
    device: (path) =>
      stat(path).then(
        // makedev(3) of Linux; the upper bits of a major are not in use.
        ({ gid, mode, rdev }) => ({ gid, mode, major: (rdev >> 8) & 0xfff }),
        () => undefined,
      ),
  }
}

async function readUnit(): Promise<string> {
  const texts = await Promise.all(
    UNIT_FOLDERS.map(async (folder) => {
      const dropIns = join(folder, 'farport.service.d')
      const names = (await readdir(dropIns).catch(() => [])).sort().map((name) => join(dropIns, name))
      const files = [join(folder, 'farport.service'), ...names]
      return Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')))
    }),
  )
  return texts.flat().join('\n')
}

/** A container may run as a number that has no name. */
function nameOfUser(uid: number): string {
  try {
    return userInfo().username
  } catch {
    return String(uid)
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
