import { hostname } from 'node:os'

/** What this machine calls itself to others: the host's name, as far as a name in trusted_peers may go. */
export function machineName(): string {
  const name = hostname()
    .replace(/[^A-Za-z0-9_.-]/g, '-')
    .replace(/^[^A-Za-z0-9_]+/, '')
  return name.slice(0, 64) || 'farport'
}
