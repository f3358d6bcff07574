const CHARACTERS: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
  '?': '?',
  "'": "'",
  '"': '"',
}

/**
 * A string as ser2net writes it: C's escapes, and its own such as `\d` for the device.
 * @param known what its own escapes stand for, by letter
 * @returns the text, or the first escape that has no fixed meaning, such as the time of day
 */
export function cString(
  text: string,
  known: Readonly<Record<string, string>>,
): { readonly text: string } | { readonly unknown: string } {
  let unknown: string | undefined
  const read = text.replace(
    /\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|([\s\S]?))/g,
    (written: string, hex?: string, octal?: string, letter = '') => {
      if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16))
      if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8) & 0xff)
      if (Object.hasOwn(CHARACTERS, letter)) return CHARACTERS[letter] as string
      if (Object.hasOwn(known, letter)) return known[letter] as string
      unknown ??= written
      return written
    },
  )
  return unknown === undefined ? { text: read } : { unknown }
}
