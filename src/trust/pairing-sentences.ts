/** What a pairing came to, in a sentence for the person at either end. None has a secret in it. */
import { FarportError } from '../errors.ts'
import type { InviteEnd } from './invites.ts'
import type { PairingFailure } from './pairing.ts'
import type { TrustedPeer } from './trusted-peers.ts'

/** What Invites tells, each as its event does. */
type InviteNews =
  | { type: 'failed'; reason: PairingFailure; triesLeft: number }
  | { type: 'refused'; reason: PairingFailure; peerId: string }
  | { type: 'paired'; peer: TrustedPeer }
  | { type: 'unrecorded'; error: unknown }
  | { type: 'ended'; how: InviteEnd }

/** For the inviter's screen. */
export function inviteSentence(news: InviteNews): string {
  switch (news.type) {
    case 'failed':
      return `${failedTry(news.reason)}: ${triesLeft(news.triesLeft)}`
    case 'refused':
      return `${news.peerId} was turned away: ${refusedTry(news.reason)}`
    case 'paired':
      return pairedWith(news.peer)
    case 'unrecorded':
      return `a peer had the right secret, but ${wording(news.error)}, so neither of you trusts the other. Mend that and make a new invite`
    case 'ended':
      return ended(news.how)
  }
}

/**
 * For the joiner's screen. `sent` is how many messages of the pairing it had sent: the inviter gives no reasons, but what
 * it did not answer says something.
 */
export function joinSentence(reason: PairingFailure, sent: number): string {
  switch (reason) {
    case 'wrong-secret':
      return 'the code or ticket is not the one that the other side has, or what was said was altered on the way: check it, or ask for a new one'
    case 'refused':
      return refusedAfter(sent)
    case 'closed':
      return sent < MESSAGES_SENT_IN_ALL
        ? 'the connection was lost before the pairing was done: try again, unless the invite has no try left'
        : 'the connection was lost at the very end of the pairing, so the other side may trust this machine already: ask for a new invite and pair once more'
    case 'timeout':
      return 'the other side did not finish the pairing in time: try again, unless the invite has no try left'
    case 'self':
      return 'this invite is of this very machine, or of one with a copy of its key: open it on the other machine'
    case 'wrong-peer':
      return 'the peer that answered is not the one who made the ticket: ask for a new one'
    case 'version':
      return 'the other side speaks another version of the pairing: update the older farport'
    case 'malformed':
    case 'reflected':
    case 'static-key':
    case 'terms':
      return 'the other side broke the rules of the pairing, so it is not trusted: if it is your own machine, update farport on both'
    case 'not-recorded':
    case 'unknown-invite':
    case 'invite-over':
    case 'busy':
    case 'too-often':
    case 'shut':
    case 'revoked':
      return NO_SUCH_INVITE
  }
}

/** M0, M2, M4 and M6 of pairing.ts. */
const MESSAGES_SENT_IN_ALL = 4

const NO_SUCH_INVITE =
  'the other side has no such invite open for you: it is used up, has expired, or was never made, or it was tried a moment ago. Ask for a new one'

function refusedAfter(sent: number): string {
  switch (sent) {
    case 0:
    case 1:
      return NO_SUCH_INVITE
    case 3:
      return 'the code or ticket is wrong: check it, and mind that an invite ends after three wrong tries'
    case MESSAGES_SENT_IN_ALL:
      return 'the other side could not note down that it trusts this machine: its screen says why. Ask for a new invite'
    default:
      return 'the other side ended the pairing and does not say why: its screen does'
  }
}

function failedTry(reason: PairingFailure): string {
  switch (reason) {
    case 'wrong-secret':
      return 'someone tried a wrong code or ticket'
    case 'timeout':
      return 'someone began to pair and did not go on'
    case 'closed':
    case 'refused':
      return 'someone began to pair and went away'
    default:
      return `someone began to pair and broke its rules (${reason})`
  }
}

function triesLeft(tries: number): string {
  if (tries === 0) return 'that was the last try'
  return tries === 1 ? '1 try left' : `${tries} tries left`
}

function refusedTry(reason: PairingFailure): string {
  switch (reason) {
    case 'unknown-invite':
      return 'there is no invite of that number'
    case 'invite-over':
      return 'that invite is over'
    case 'busy':
      return 'someone else was just trying that invite'
    case 'too-often':
      return 'it tried too often'
    case 'shut':
      return 'pairing is shut after too many wrong tries'
    case 'revoked':
      return 'it was revoked: delete its line in revoked_peers to let it in again'
    default:
      return `the pairing failed (${reason})`
  }
}

function pairedWith({ name, peerId, ports, may, expires }: TrustedPeer): string {
  const none = may.includes('relay') ? 'this machine as its relay' : 'none of our ports'
  const what = ports.length === 0 ? none : `${ports.join(', ')} (${may.join(', ')})`
  const until = expires === undefined ? '' : ` until ${new Date(expires).toISOString()}`
  return `paired with ${name} (${peerId}): it may use ${what}${until}`
}

function ended(how: InviteEnd): string {
  switch (how) {
    case 'used':
      return 'the invite has been used'
    case 'expired':
      return 'the invite has expired: make a new one'
    case 'burnt':
      return 'three tries failed, so the invite is over. If that was not you, someone is guessing'
    case 'cancelled':
      return 'the invite was cancelled'
    case 'shut':
      return 'too many tries failed within an hour, so the invite is over and pairing is shut: someone may be guessing'
  }
}

/** Only our own errors are sentences for people. */
function wording(error: unknown): string {
  return error instanceof FarportError ? error.message : 'its line of trusted_peers could not be written'
}
