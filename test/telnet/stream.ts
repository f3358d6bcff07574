import fc from 'fast-check'

/** Bytes from their hexadecimal digits; blanks are for the reader. */
export function hex(digits: string): Uint8Array {
  return Uint8Array.from(digits.replaceAll(' ', '').match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
}

/** The hexadecimal digits of bytes, so that a failing comparison can be read. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ')
}

/** The bytes in pieces, cut at the places named; a place beyond the end counts from the start again. */
export function cutAt(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const points = [...new Set([0, ...places.map((place) => place % (bytes.length + 1)), bytes.length])]
  points.sort((a, b) => a - b)
  return points.slice(1).map((end, k) => bytes.subarray(points[k], end))
}

/** Places to cut at. */
export const cuts = fc.array(fc.nat(10_000), { maxLength: 30 })

const IAC = 255

/** Bytes among which those that mean something to telnet are frequent. */
const telnetBytes = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(IAC, 240, 243, 250, 251, 252, 253, 254) },
    { weight: 1, arbitrary: fc.constantFrom(0, 1, 3, 44) },
    { weight: 1, arbitrary: fc.nat(255) },
  ),
  { maxLength: 20 },
)

/** RFC 2217 messages: well-formed, cut short, or with their 0xff not doubled. */
const comPortBytes = fc
  .tuple(
    fc.oneof(fc.nat(13), fc.integer({ min: 99, max: 113 })),
    fc.array(fc.oneof(fc.nat(20), fc.constantFrom(IAC, 0x80)), { maxLength: 6 }),
    fc.constantFrom([IAC, 240], [IAC, 240], [IAC, 240], []),
  )
  .map(([code, value, end]) => [IAC, 250, 44, code, ...value, ...end])

/** What a peer might send that is broken, mad or hostile, with sense in between. */
export const hostileBytes = fc
  .array(fc.oneof(telnetBytes, comPortBytes), { maxLength: 30 })
  .map((pieces) => Uint8Array.from(pieces.flat()))
