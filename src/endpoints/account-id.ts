import { readFileSync } from 'node:fs'
import { FarportError } from '../errors.ts'

/** Where names have numbers, and what such a name is called. */
const FILES = { user: '/etc/passwd', group: '/etc/group' } as const

/**
 * The number of a user or a group that is named by it or by its name in passwd(5) or group(5). Those that come over the
 * network have to be named by their number.
 * @throws FarportError ERR_USAGE when there is no such one
 */
export function accountId(kind: keyof typeof FILES, name: string): number {
  if (/^\d{1,9}$/.test(name)) return Number(name)
  const file = FILES[kind]
  const entries = readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
  const id = entries.find(([known]) => known === name)?.[2]
  if (id === undefined)
    throw new FarportError(
      'ERR_USAGE',
      `there is no ${kind} “${name}” in ${file}: name another, or give its number`,
    )
  return Number(id)
}
