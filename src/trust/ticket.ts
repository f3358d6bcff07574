/**
 * A ticket is an invitation as text, to be pasted or scanned: whoever holds it before it expires may pair.
 *
 *   FARPORT1 QYQ… ……
 *   |      | |    +- 6 characters of checksum
 *   |      | +------ the bytes below, five bits to a character
 *   +------+-------- the same in every version: bech32m's prefix and its separator
 *
 *   01              version
 *   ..              length of the items at the end
 *   .. .. .. ..     expiry, in seconds since 1970, big-endian
 *   ..  (32 bytes)  the inviter's Ed25519 public key: its PeerID
 *   ..  (8)         invite id
 *   ..  (16)        secret
 *   then items      kind (1), length (1), value:
 *     01  where the inviter listens: a binary multiaddr, host and tcp
 *     02  the relay where it can be met: Ed25519 public key (32), then a binary multiaddr, host and tcp
 *
 * Older readers and newer tickets: an item of unknown kind is skipped below 0x80 and refuses the ticket from 0x80 on;
 * an address of a form not known here is skipped; another version refuses the ticket, whatever is in it.
 *
 * The text is bech32m (BIP 350), in capitals so that a QR code takes 5.5 bits for each character, and beyond the 90
 * characters for which that was made. Up to 1023 its code still finds every error in up to three characters and every
 * run of errors within six, two that changed places among them; of other damage it misses one case in 2^30, and then
 * pairing fails. A hash of that length would promise none of this.
 */
import { multiaddr } from '@multiformats/multiaddr'
import { bech32m } from '@scure/base'
import { FarportError } from '../errors.ts'
import { formatPeerId, peerIdProblem, publicKeyOf } from './peer-id.ts'

export interface Ticket {
  /** Who invites. */
  readonly peerId: string
  /** Where it listens, at most 8: `/ip4/192.0.2.7/tcp/4001`, or with `ip6`, `dns`, `dns4`, `dns6`. */
  readonly addresses: readonly string[]
  /** Where else it can be met: `/dns4/relay.example.org/tcp/4001/p2p/12D3KooW…` */
  readonly relay?: string
  /** 8 bytes. */
  readonly inviteId: Uint8Array
  /** 16 bytes. Fill them with zeros after use; the text they came from stays in memory until it is collected. */
  readonly secret: Uint8Array
  /** Milliseconds since 1970, in whole seconds on the wire; from this instant on the ticket is worth nothing. */
  readonly expires: number
}

const PREFIX = 'farport'
/** What every ticket begins with. The characters behind it are never `1`, `B`, `I` or `O`. */
const START = 'FARPORT1'
const ALPHABET = 'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L'
const CHECKSUM_LENGTH = 6
/** Beyond this length two wrong characters can cancel each other out. */
const MAX_BECH32 = 1023
const MAX_TEXT = 1024

const VERSION = 1
const AT = {
  version: 0,
  itemsLength: 1,
  expires: 2,
  publicKey: 6,
  inviteId: 38,
  secret: 46,
  items: 62,
} as const
const KEY_BYTES = 32
const INVITE_ID_BYTES = 8
const SECRET_BYTES = 16
const MAX_ADDRESSES = 8
const HOST_AND_TCP = /^\/(ip4\/[\d.]+|ip6\/[\da-f:]+|dns[46]?\/[\w.-]+)\/tcp\/[1-9]\d*$/
const MAX_ITEMS_LENGTH = 255
const KIND = { address: 0x01, relay: 0x02 } as const
/** Kinds from here on must be understood, or the ticket not used. */
const FIRST_MANDATORY_KIND = 0x80

/**
 * Writes the ticket: one line of capitals and digits, 114 to 522 of them. An address may end in the inviter's own
 * `/p2p/…`, which is left out.
 * @throws FarportError ERR_USAGE when an address can't be in a ticket
 */
export function encodeTicket({ peerId, addresses, relay, inviteId, secret, expires }: Ticket): string {
  if (inviteId.length !== INVITE_ID_BYTES || secret.length !== SECRET_BYTES)
    throw new RangeError(`a ticket takes an invite id of 8 bytes and a secret of 16`)
  const seconds = Math.floor(expires / 1000)
  if (!(seconds >= 0 && seconds < 2 ** 32)) throw new RangeError(`a ticket can't expire at ${expires}`)
  if (addresses.length > MAX_ADDRESSES)
    throw new FarportError('ERR_USAGE', `a ticket has room for ${MAX_ADDRESSES} addresses: name fewer`)

  const items = [
    ...(relay === undefined ? [] : [item(KIND.relay, relayToBytes(relay))]),
    ...addresses.map((address) => item(KIND.address, ownAddressToBytes(address, peerId))),
  ]
  const itemsLength = items.reduce((sum, { length }) => sum + length, 0)
  if (itemsLength > MAX_ITEMS_LENGTH)
    throw new FarportError('ERR_USAGE', 'these addresses are too long for a ticket: name fewer')

  const bytes = new Uint8Array(AT.items + itemsLength)
  bytes[AT.version] = VERSION
  bytes[AT.itemsLength] = itemsLength
  new DataView(bytes.buffer).setUint32(AT.expires, seconds)
  bytes.set(publicKeyOf(peerId), AT.publicKey)
  bytes.set(inviteId, AT.inviteId)
  bytes.set(secret, AT.secret)
  let at: number = AT.items
  for (const one of items) {
    bytes.set(one, at)
    at += one.length
  }
  const text = bech32m.encode(PREFIX, bech32m.toWords(bytes), MAX_BECH32).toUpperCase()
  bytes.fill(0)
  return text
}

/**
 * Reads a ticket as it comes out of chat programs: in capitals or not, with spaces, line breaks, dashes, quotes and
 * whatever else is neither letter nor digit in it, and behind other words. `now` is in milliseconds since 1970.
 * @throws FarportError ERR_USAGE when there is none in force; the sentence quotes nothing of the text
 */
export function decodeTicket(text: string, now: number): Ticket {
  if (text.length > MAX_TEXT)
    throw refusal(
      'this is too long for a ticket: paste the ticket alone, from FARPORT1 to its last character',
    )
  const plain = text
    .normalize('NFKC')
    .replace(/[^\p{L}\p{N}]/gu, '')
    .toUpperCase()
  // The last one: behind it these characters can't follow each other, while before it anything may stand.
  const start = plain.lastIndexOf(START)
  if (start === -1) throw refusal(whatElse(text.trim(), plain))
  const bytes = bytesOf(plain.slice(start))

  if (bytes[AT.version] !== VERSION)
    throw refusal('this ticket was made by another version of farport: update the older one of the two')
  if (bytes.length < AT.items || bytes.length !== AT.items + (bytes[AT.itemsLength] ?? 0)) throw nonsense()
  const expires = new DataView(bytes.buffer, bytes.byteOffset).getUint32(AT.expires) * 1000
  if (now >= expires)
    throw refusal(
      `this ticket was good until ${minute(expires)}, and the clock here says ${minute(now)}: ask for a new one, or set the clock`,
    )
  return {
    peerId: formatPeerId(bytes.subarray(AT.publicKey, AT.inviteId)),
    ...readItems(bytes.subarray(AT.items)),
    inviteId: bytes.slice(AT.inviteId, AT.secret),
    secret: bytes.slice(AT.secret, AT.items),
    expires,
  }
}

/** The bytes of a text that begins with FARPORT1. The library's own errors quote the text, so that none may get out. */
function bytesOf(ticket: string): Uint8Array {
  const missing = announcedLength(ticket) - ticket.length
  if (missing > 0) throw refusal('this ticket was cut off at its end: copy it whole')
  if (missing < 0) throw refusal('something is stuck to the end of this ticket: copy it alone')
  const decoded = bech32m.decodeUnsafe(ticket, MAX_BECH32)
  if (!decoded)
    throw refusal(
      'this ticket is mistyped or damaged, its checksum is wrong: copy it again, and copy it whole',
    )
  const bytes = decoded.prefix === PREFIX ? bech32m.fromWordsUnsafe(decoded.words) : undefined
  if (!bytes) throw nonsense()
  return bytes
}

/**
 * How many characters the ticket should have by its second byte. As many as it has where that can't be known, in
 * another version's or one damaged right there: then the checksum tells.
 */
function announcedLength(ticket: string): number {
  const digits = [...ticket.slice(START.length, START.length + 4)].map((c) => ALPHABET.indexOf(c))
  if (digits.includes(-1)) return ticket.length
  // A ticket that ends this early has to be cut off, whatever it says.
  if (digits.length < 4) return START.length + 4
  const bits = digits.reduce((sum, digit) => sum * 32 + digit, 0)
  if (bits >> 12 !== VERSION) return ticket.length
  const bytes = AT.items + ((bits >> 4) & 0xff)
  return START.length + Math.ceil((bytes * 8) / 5) + CHECKSUM_LENGTH
}

function readItems(bytes: Uint8Array): Pick<Ticket, 'addresses' | 'relay'> {
  const addresses: string[] = []
  const relays: string[] = []
  for (let at = 0; at < bytes.length; ) {
    const [kind = 0, length] = bytes.subarray(at, at + 2)
    const value = bytes.subarray(at + 2, at + 2 + (length ?? 0))
    if (length === undefined || value.length !== length) throw nonsense()
    at += 2 + length
    switch (kind) {
      case KIND.address: {
        const address = addressToText(value)
        if (address !== undefined) addresses.push(address)
        break
      }
      case KIND.relay: {
        if (length < KEY_BYTES) throw nonsense()
        const address = addressToText(value.subarray(KEY_BYTES))
        const relay = formatPeerId(value.subarray(0, KEY_BYTES))
        if (address !== undefined) relays.push(`${address}/p2p/${relay}`)
        break
      }
      default:
        if (kind >= FIRST_MANDATORY_KIND)
          throw refusal('this ticket asks for something that this farport does not know: update it')
    }
  }
  const [relay, ...moreRelays] = relays
  if (addresses.length > MAX_ADDRESSES || moreRelays.length > 0) throw nonsense()
  return { addresses, ...(relay !== undefined && { relay }) }
}

function item(kind: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(kind, value.length), value])
}

function ownAddressToBytes(text: string, peerId: string): Uint8Array {
  const [address, owner = peerId] = splitPeer(text)
  if (owner !== peerId)
    throw new FarportError('ERR_USAGE', `the address ${text} leads to another peer than the one that invites`)
  return addressToBytes(address)
}

function relayToBytes(text: string): Uint8Array {
  const [address, relay = ''] = splitPeer(text)
  if (peerIdProblem(relay) !== undefined)
    throw new FarportError(
      'ERR_USAGE',
      `the address ${text} does not name the relay: /p2p/12D3KooW… belongs at its end`,
    )
  return Buffer.concat([publicKeyOf(relay), addressToBytes(address)])
}

function splitPeer(text: string): [address: string, peerId?: string] {
  const at = text.lastIndexOf('/p2p/')
  return at === -1 ? [text] : [text.slice(0, at), text.slice(at + '/p2p/'.length)]
}

function addressToBytes(text: string): Uint8Array {
  const bytes = parse(text)
  // A name that does not come back as it went in, such as one with "/" or "%" in it, is none.
  if (bytes !== undefined && addressToText(bytes) !== undefined) return bytes
  throw new FarportError('ERR_USAGE', `${text} can't be in a ticket: write it as /ip4/192.0.2.7/tcp/4001`)
}

function parse(text: string): Uint8Array | undefined {
  try {
    return multiaddr(text).bytes
  } catch {
    return undefined
  }
}

/**
 * `undefined` for what this farport can't dial. The library takes fields that end early (and reads on in the buffer
 * around them) and names of any characters, so only what its own text gives back byte for byte is used.
 */
function addressToText(bytes: Uint8Array): string | undefined {
  try {
    const address = multiaddr(Uint8Array.from(bytes))
    const text = address.toString()
    const dialable = HOST_AND_TCP.test(text) && address.getComponents().length === 2
    return dialable && Buffer.from(bytes).equals(multiaddr(text).bytes) ? text : undefined
  } catch {
    return undefined
  }
}

function whatElse(text: string, plain: string): string {
  if (plain === '') return `there is no ticket: paste the text that begins with ${START}`
  if (text.startsWith('12D3KooW')) return `this is a PeerID, not a ticket: a ticket begins with ${START}`
  if (text.startsWith('/')) return `this is an address, not a ticket: a ticket begins with ${START}`
  if (START.startsWith(plain)) return 'this ticket was cut off at its end: copy it whole'
  return `this is not a ticket, or its beginning is missing: a ticket begins with ${START}`
}

function minute(time: number): string {
  return `${new Date(time).toISOString().slice(0, 16).replace('T', ' ')} UTC`
}

/** The checksum is right, so that nobody mistyped it: whoever made it did so wrongly, or for a reader yet to come. */
function nonsense(): FarportError {
  return refusal(
    'this ticket is whole but makes no sense to this farport: update it, or ask for a new ticket',
  )
}

function refusal(sentence: string): FarportError {
  return new FarportError('ERR_USAGE', sentence)
}
