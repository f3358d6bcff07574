/**
 * `/farport/pair/1`: how two peers that share one secret, a ticket or a spoken code, come to trust each other.
 *
 * The inviter has the invite open; the joiner has got its secret from a person and dials. Messages go by turns, each as
 * u16 length (big-endian, 1 to 1024) | body, over a libp2p stream, on which both already know each other's PeerID:
 *
 *   M0  joiner → inviter   01 version | invite id, 8 | nonce, 16           25 bytes
 *       The inviter finds the invite and takes a try off it: before the guess, so that going away is no way to save one.
 *   M1  inviter → joiner   nonce, 16                                       16 bytes
 *   M2  joiner → inviter   CPace share Ya, 32 | static key, 32             64 bytes
 *   M3  inviter → joiner   CPace share Yb, 32 | static key, 32             64 bytes
 *   M4  joiner → inviter   Noise message 1, no payload                     48 bytes: the joiner has the secret
 *   M5  inviter → joiner   Noise message 2, the inviter's terms            96 bytes and the terms: so has the inviter
 *   M6  joiner → inviter   Noise message 3, the joiner's terms             64 bytes and the terms
 *       The inviter marks the invite used, forgets the secret, writes its line of trusted_peers, and only then says
 *   M7  inviter → joiner   00                                              1 byte: now the joiner writes its line
 *
 *   Instead of any message, and then the end of the stream: 01. What went wrong is for the screen at home: unknown,
 *   expired, used, busy and wrong all look alike from outside.
 *
 *   lv(x)    = LEB128 length of x | x                                      as in CPace
 *   session  = BLAKE2b-512( lv("farport-pair-v1 sid") | lv(joiner's nonce) | lv(inviter's nonce) ), its first 32 bytes
 *   channel  = lv("farport-pair-v1") | lv(joiner's PeerID) | lv(inviter's PeerID) | lv(invite id), PeerIDs as text
 *   key      = CPace(secret, channel, session), the joiner initiating, ADa and ADb the static keys of M2 and M3
 *   psk      = HKDF-SHA512(key, no salt, "farport psk v1"), 32 bytes
 *   prologue = BLAKE2b-512( lv("farport-pair-v1") | lv(channel) | lv(M0) | lv(M1) | lv(M2) | lv(M3) )
 *   Noise    = Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b, the joiner initiating, with the static keys of M2 and M3
 *
 * Why so. A code of three words could be guessed offline from the first message if it were the psk, so CPace stands in
 * front: each run lets either side test one guess, against the other and nobody else. Whoever sits between the two on
 * libp2p has another PeerID on each side, and then neither the generator nor the prologue are the same.
 *
 * The static keys live for one pairing. What lasts is the PeerID: libp2p's own Noise proves it on every connection, so a
 * second lasting key would be one more secret to keep and would prove nothing more.
 *
 * If M7 is lost the inviter trusts the joiner and not the other way round: harmless, and a new invite mends it.
 */
import type { Grant } from './grants.ts'
import type { TrustedPeer } from './trusted-peers.ts'

export const PAIR_PROTOCOL = '/farport/pair/1'
/** How long the whole exchange may take; then end('timeout'). */
export const PAIRING_TIMEOUT_MS = 15_000

export const VERSION = 1
export const INVITE_ID_BYTES = 8
export const NONCE_BYTES = 16
export const STATIC_BYTES = 32
export const DONE = Uint8Array.of(0)
export const FAILED = Uint8Array.of(1)

/** Why a pairing failed, for our own people only. */
export type PairingFailure =
  /** The other side has not proven that it has the secret: a wrong code, or words altered on the way. */
  | 'wrong-secret'
  /** The other side ended it and, as it should, did not say why. */
  | 'refused'
  | 'closed'
  | 'timeout'
  /** No message of this protocol, or not its turn. */
  | 'malformed'
  /** The other side speaks another version. */
  | 'version'
  /** What came is what we sent. */
  | 'reflected'
  /** The static key proven is not the one announced. */
  | 'static-key'
  /** The terms break the rules of trusted_peers. */
  | 'terms'
  /** The two ends have one PeerID: this very machine, or a copy of its key. */
  | 'self'
  /** The peer reached is not the one in the ticket. */
  | 'wrong-peer'
  /** The line could not be written, so the other side was told that it failed. */
  | 'not-recorded'
  /** The inviter's book let nobody try: see invites.ts. */
  | 'unknown-invite'
  | 'invite-over'
  | 'busy'
  | 'too-often'
  | 'shut'
  | 'revoked'

/** What may be thrown inside a pairing; outside it is an event. */
export class PairingError extends Error {
  override readonly name = 'PairingError'
  readonly reason: PairingFailure

  constructor(reason: PairingFailure, options?: { cause?: unknown }) {
    super(`pairing failed: ${reason}`, options)
    this.reason = reason
  }
}

/** What one side wants done, in this order. */
export type PairingEvent =
  | { type: 'send'; bytes: Uint8Array }
  /** Inviter only: the joiner has proven itself, call commit(). */
  | { type: 'commit' }
  /** `peer` is the line for our trusted_peers, `allows` what the peer lets us do. The joiner writes the line now. */
  | { type: 'paired'; peer: TrustedPeer; allows: Grant }
  /** Close the stream when what was to be sent is sent. */
  | { type: 'failed'; reason: PairingFailure; cause?: unknown }

/** The id of an invite that is known by a code's three digits, which are no secret. */
export function inviteIdOf(nameplate: string): Uint8Array {
  if (!/^\d{3}$/.test(nameplate)) throw new RangeError('a nameplate has three digits')
  return Buffer.from(`code-${nameplate}`, 'latin1')
}
