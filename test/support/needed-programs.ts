import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** What Debian's packages call the programs that others wrote, where the two names differ. */
const PACKAGES: { readonly [program: string]: string } = { gensiot: 'gensio-bin', 'apt-get': 'apt' }

/** Where an administrator's PATH has them and a user's often not. */
const MORE_FOLDERS = ['/usr/sbin', '/usr/local/sbin']

/** Why tests that use these programs can't run here, with the remedy; undefined where all of them are there. */
function missingPrograms(programs: readonly string[]): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...MORE_FOLDERS]
  const missing = programs.filter((program) => !folders.some((folder) => runs(join(folder, program))))
  if (missing.length === 0) return undefined
  const packages = missing.map((program) => PACKAGES[program] ?? program)
  return `${missing.join(' and ')} missing: apt-get install ${packages.join(' ')}`
}

function runs(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** For a test's `skip`: the sentence that says what is missing. In CI that is a failure of the file, so that nothing goes unseen. */
export function unlessThere(...programs: string[]): string | false {
  const reason = missingPrograms(programs)
  if (reason !== undefined && process.env.CI) throw new Error(reason)
  return reason ?? false
}
