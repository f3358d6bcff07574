import { readFileSync } from 'node:fs'
import { FarportError } from '../errors.ts'

/**
 * The number of a group that is named by it or by its name in group(5). Groups that come over the network have to be named
 * by their number.
 * @throws FarportError ERR_USAGE when there is no such group
 */
export function groupId(group: string): number {
  if (/^\d{1,9}$/.test(group)) return Number(group)
  const entries = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
  const id = entries.find(([name]) => name === group)?.[2]
  if (id === undefined)
    throw new FarportError(
      'ERR_USAGE',
      `there is no group “${group}” in /etc/group: name another, or give its number`,
    )
  return Number(id)
}
