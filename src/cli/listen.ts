import { DEFAULT_LISTEN } from '../config/config.ts'
import { FarportError } from '../errors.ts'

/** What `--listen` says; `none` is for a machine that is only reached through relays. */
export function listenOn(flag: readonly string[] | undefined): readonly string[] {
  if (flag === undefined) return DEFAULT_LISTEN
  if (!flag.includes('none')) return flag
  if (flag.length > 1) throw new FarportError('ERR_USAGE', 'give --listen none, or addresses, not both')
  return []
}
