/** The values that pairing.ts derives from what was said. */
import { createHash, hkdfSync } from 'node:crypto'
import { lvCat } from './cpace.ts'

const PROTOCOL = Buffer.from('farport-pair-v1')
const SESSION = Buffer.from('farport-pair-v1 sid')
const SESSION_BYTES = 32
const PSK_BYTES = 32

/** The two ends, and what they are about to share. */
export interface Parties {
  readonly joiner: string
  readonly inviter: string
  readonly inviteId: Uint8Array
}

export function channelOf({ joiner, inviter, inviteId }: Parties): Uint8Array {
  return lvCat(PROTOCOL, Buffer.from(joiner), Buffer.from(inviter), inviteId)
}

export function sessionOf(joinerNonce: Uint8Array, inviterNonce: Uint8Array): Uint8Array {
  return blake2b(lvCat(SESSION, joinerNonce, inviterNonce)).subarray(0, SESSION_BYTES)
}

/** @param said the bodies of M0 to M3 */
export function prologueOf(channel: Uint8Array, said: readonly Uint8Array[]): Uint8Array {
  return blake2b(lvCat(PROTOCOL, channel, ...said))
}

export function pskOf(key: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync('sha512', key, '', 'farport psk v1', PSK_BYTES))
}

function blake2b(bytes: Uint8Array): Uint8Array {
  return createHash('blake2b512').update(bytes).digest()
}
