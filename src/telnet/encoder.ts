import { IAC, SB, SE, type Verb } from './bytes.ts'

/** Doubles every IAC so that data survives the telnet stream. Bytes without one come back as they are, not copied. */
export function escapeIac(bytes: Uint8Array): Uint8Array {
  const first = bytes.indexOf(IAC)
  if (first === -1) return bytes

  let iacs = 1
  for (let i = first + 1; i < bytes.length; i++) if (bytes[i] === IAC) iacs++

  const escaped = new Uint8Array(bytes.length + iacs)
  escaped.set(bytes.subarray(0, first))
  let length = first
  for (let i = first; i < bytes.length; i++) {
    const byte = bytes[i] as number
    escaped[length++] = byte
    if (byte === IAC) escaped[length++] = IAC
  }
  return escaped
}

export function negotiate(verb: Verb, option: number): Uint8Array {
  return Uint8Array.of(IAC, verb, option)
}

export function command(code: number): Uint8Array {
  return Uint8Array.of(IAC, code)
}

/** The payload as it is meant; doubling its IACs is done here. */
export function subnegotiation(option: number, payload: Uint8Array): Uint8Array {
  return concat([
    Uint8Array.of(IAC, SB),
    escapeIac(Uint8Array.of(option)),
    escapeIac(payload),
    Uint8Array.of(IAC, SE),
  ])
}

/** Several pieces of the stream as one, so that they leave in one write. */
export function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const only = pieces[0]
  if (pieces.length === 1 && only) return only
  let length = 0
  for (const piece of pieces) length += piece.length
  const whole = new Uint8Array(length)
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}
