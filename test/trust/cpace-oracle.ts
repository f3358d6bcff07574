import { createHash } from 'node:crypto'
import { ristretto255, ristretto255_hasher } from '@noble/curves/ed25519.js'
import type { CpaceInput } from '../../src/trust/cpace.ts'

/** Elements of ristretto255, as @noble/curves has them. */
export type Point = InstanceType<typeof ristretto255.Point>

export const pointOf = (encoded: Uint8Array): Point => ristretto255.Point.fromBytes(encoded)

/** lv_cat of the draft, written a second time. */
export function lvs(...parts: Uint8Array[]): Buffer {
  return Buffer.concat(parts.flatMap((part) => [leb128(part.length), part]))
}

/** CPace once more, on another library and from the draft's text alone. */
export function oracleGenerator(input: CpaceInput): Point {
  return ristretto255_hasher.deriveToCurve?.(generatorHash(input)) as Point
}

/** What the generator is derived from: SHA-512 of the draft's generator string. */
export function generatorHash({ password, channel, session }: CpaceInput): Buffer {
  const zeros = Buffer.alloc(Math.max(0, 128 - 1 - lvs(password).length - lvs(DOMAIN).length))
  return createHash('sha512')
    .update(lvs(DOMAIN, password, zeros, channel, session))
    .digest()
}

/** ISK of the draft, in the initiator-responder form. */
export function oracleKey(session: Uint8Array, product: Uint8Array, said: Uint8Array[]): Buffer {
  return createHash('sha512')
    .update(lvs(Buffer.from('CPaceRistretto255_ISK'), session, product, ...said))
    .digest()
}

const DOMAIN = Buffer.from('CPaceRistretto255')

function leb128(length: number): Buffer {
  const out: number[] = []
  for (let rest = length; ; rest >>= 7) {
    if (rest < 128) return Buffer.from([...out, rest])
    out.push((rest & 127) | 128)
  }
}
