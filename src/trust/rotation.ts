/**
 * A peer announces the key that is to take the place of its own, over a stream on which Noise has proven the key it has
 * now. The announcement also proves that it holds the new one, and is good for one receiver only.
 *
 *   announcer → receiver   offset  size
 *                               0    32   the new public key, Ed25519
 *                              32    64   signature of the statement by the new key (RFC 8032)
 *                              96    64   signature of the statement by the old key
 *   receiver → announcer        0     1   answer: a number of ANSWERS; then the end of the stream
 *
 *   statement = "/farport/rotate/1" 00 | old PeerID | new PeerID | receiver's PeerID, each in its 52 letters
 *
 * The old key's signature says nothing that Noise has not said. It is what makes the statement whole by itself: whatever
 * carries it, nobody who lacks one of the two keys can make it.
 */
import { createPublicKey, sign, verify } from 'node:crypto'
import { FarportError } from '../errors.ts'
import { type Identity, privateKeyOf } from './identity.ts'
import { formatPeerId, publicKeyOf } from './peer-id.ts'

export const ROTATE_PROTOCOL = '/farport/rotate/1'

const KEY_BYTES = 32
const SIGNATURE_BYTES = 64
export const ANNOUNCEMENT_BYTES = KEY_BYTES + 2 * SIGNATURE_BYTES

/** What a receiver may answer; the place in the list is the number on the wire. */
const ANSWERS = [
  /** The line is for both keys now. */
  'accepted',
  /** The signatures don't prove the new key, or not to this receiver. */
  'unproven',
  /** The old key has no line, or one that has expired. */
  'untrusted',
  /** The new key is the receiver's own, or another line is for it. */
  'taken',
  /** The receiver has revoked the new key. */
  'revoked',
  /** Too many announcements for now. */
  'later',
  /** The receiver can't write it down. */
  'unwritable',
] as const

export type RotationAnswer = (typeof ANSWERS)[number]

/** The announcement of `next` by who holds both keys, for one receiver. */
export function announcementOf(identity: Identity, next: Identity, receiver: string): Uint8Array {
  const statement = statementOf(identity.peerId, next.peerId, receiver)
  const signatures = [next, identity].map(({ seed }) => sign(null, statement, privateKeyOf(seed)))
  return Buffer.concat([publicKeyOf(next.peerId), ...signatures])
}

/**
 * Who the announcer will be: the PeerID of the new key, once both signatures are found right; undefined when they are not.
 * @param announcer the PeerID that Noise has proven
 * @throws FarportError ERR_PROTOCOL when it has not the length of an announcement
 */
export function verifyAnnouncement(
  bytes: Uint8Array,
  { announcer, receiver }: { announcer: string; receiver: string },
): string | undefined {
  if (bytes.length !== ANNOUNCEMENT_BYTES)
    throw new FarportError('ERR_PROTOCOL', `an announcement of a key has ${ANNOUNCEMENT_BYTES} bytes`)
  const next = formatPeerId(bytes.subarray(0, KEY_BYTES))
  if (next === announcer) return undefined
  const statement = statementOf(announcer, next, receiver)
  const byNext = bytes.subarray(KEY_BYTES, KEY_BYTES + SIGNATURE_BYTES)
  const byOld = bytes.subarray(KEY_BYTES + SIGNATURE_BYTES)
  return signed(statement, byNext, next) && signed(statement, byOld, announcer) ? next : undefined
}

export function formatAnswer(answer: RotationAnswer): Uint8Array {
  return Uint8Array.of(ANSWERS.indexOf(answer))
}

/** @throws FarportError ERR_PROTOCOL for a number that is none of ours */
export function parseAnswer(bytes: Uint8Array): RotationAnswer {
  const answer = bytes.length === 1 ? ANSWERS[bytes[0] as number] : undefined
  if (answer !== undefined) return answer
  throw new FarportError('ERR_PROTOCOL', 'it gave an answer that this farport does not know')
}

function statementOf(announcer: string, next: string, receiver: string): Buffer {
  return Buffer.from(`${ROTATE_PROTOCOL}\0${announcer}${next}${receiver}`, 'latin1')
}

/** False also for bytes that are no key: there are some that OpenSSL refuses. */
function signed(statement: Uint8Array, signature: Uint8Array, peerId: string): boolean {
  const x = Buffer.from(publicKeyOf(peerId)).toString('base64url')
  try {
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
    return verify(null, statement, key, signature)
  } catch {
    return false
  }
}
