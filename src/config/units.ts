/** Lengths of time and amounts of bytes as people write them. */

const MILLISECONDS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

const BYTES: Readonly<Record<string, number>> = { '': 1, B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

/** `2ms`, `30s`, `10m`, `1h`, `7d`, in milliseconds. Undefined for what is none of these: a bare number could be anything. */
export function parseDuration(text: string): number | undefined {
  return parse(text, MILLISECONDS)
}

/** `4096`, `16KiB`, `8MiB`, in bytes; undefined for what is none of these. */
export function parseBytes(text: string): number | undefined {
  return parse(text, BYTES)
}

function parse(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const [, number, unit = ''] = /^(\d{1,12}(?:\.\d{1,3})?) ?([A-Za-z]*)$/.exec(text) ?? []
  const factor = Object.hasOwn(units, unit) ? units[unit] : undefined
  if (number === undefined || factor === undefined) return undefined
  const value = Number(number) * factor
  return Number.isSafeInteger(value) ? value : undefined
}
