import { FarportError } from '../errors.ts'

/** Farport's port, on every address of the machine. */
export const DEFAULT_LISTEN = ['/ip4/0.0.0.0/tcp/4001', '/ip6/::/tcp/4001']

/** What `--listen` says; `none` is for a machine that is only reached through relays. */
export function listenOn(flag: readonly string[] | undefined): readonly string[] {
  if (flag === undefined) return DEFAULT_LISTEN
  if (!flag.includes('none')) return flag
  if (flag.length > 1) throw new FarportError('ERR_USAGE', 'give --listen none, or addresses, not both')
  return []
}
