/** What a peer may do with a port. `use` is read and write, `configure` settings, `lines` DTR, RTS and break. */
const PORT_RIGHTS = ['watch', 'use', 'configure', 'lines', 'steal'] as const
/** `relay` is about no port: on a relay, whether the peer may reserve and vouch for others. */
export const RIGHTS = [...PORT_RIGHTS, 'relay'] as const

export type Right = (typeof RIGHTS)[number]

/** What one line of `trusted_peers` allows. */
export interface Grant {
  /** Port names, or patterns with `*` and `?`. */
  readonly ports: readonly string[]
  /** In the order of RIGHTS, with everything that is implied. */
  readonly may: readonly Right[]
  /** Milliseconds since 1970; from this instant on nothing is granted. */
  readonly expires?: number
}

const NOTHING: ReadonlySet<Right> = new Set()

/** What the grant allows on this port at this time (milliseconds since 1970). */
export function rightsOn(grant: Grant, port: string, now: number): ReadonlySet<Right> {
  if (hasExpired(grant, now) || !grant.ports.some((pattern) => matches(pattern, port))) return NOTHING
  return new Set(PORT_RIGHTS.filter((right) => grant.may.includes(right)))
}

export function hasExpired({ expires }: Grant, now: number): boolean {
  return expires !== undefined && now >= expires
}

/** Adds what the named rights imply: who may write or take over may also read. In the order of RIGHTS. */
export function withImplied(rights: Iterable<Right>): Right[] {
  const all = new Set(rights)
  if (all.has('use') || all.has('steal')) all.add('watch')
  return RIGHTS.filter((right) => all.has(right))
}

/**
 * Whether `before` may have allowed something that `now` does not. Patterns are compared as text, so this may say true
 * when nothing was lost, but never false when something was.
 */
export function isNarrower(now: Grant, before: Grant): boolean {
  const keepsPorts = now.ports.includes('*') || before.ports.every((pattern) => now.ports.includes(pattern))
  return !keepsPorts || before.may.some((right) => !now.may.includes(right))
}

/**
 * Whole-name match; `*` is any run of characters, `?` any one. Goes back to the last star only, so a pattern full of
 * stars costs at most pattern × name steps, where a regular expression would take for ever.
 */
function matches(pattern: string, name: string): boolean {
  let p = 0
  let n = 0
  let star = -1
  let resume = 0
  while (n < name.length) {
    if (pattern[p] === '*') {
      star = p++
      resume = n
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === name[n])) {
      p++
      n++
    } else if (star !== -1) {
      p = star + 1
      n = ++resume
    } else return false
  }
  while (pattern[p] === '*') p++
  return p === pattern.length
}
