/**
 * A PeerID is the libp2p name of an Ed25519 public key: base58btc over 38 bytes, always 52 characters, always
 * beginning with 12D3KooW (libp2p peer-ids specification).
 *
 *   00 24         identity multihash, 36 bytes follow
 *   08 01         protobuf PublicKey, field 1: key type 1, Ed25519
 *   12 20         field 2: 32 bytes follow
 *   ..            the public key
 *
 * Written out here because loading @libp2p/crypto and @libp2p/peer-id costs more than all the rest of a short command;
 * the tests hold both against each other.
 */

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
const PREFIX = Buffer.from('002408011220', 'hex')
const PEER_ID_BYTES = PREFIX.length + 32
const PEER_ID_LENGTH = 52

/** The PeerID of a raw 32-byte Ed25519 public key. */
export function formatPeerId(publicKey: Uint8Array): string {
  if (publicKey.length !== 32)
    throw new RangeError(`an Ed25519 public key has 32 bytes, not ${publicKey.length}`)
  let rest = BigInt(`0x${Buffer.concat([PREFIX, publicKey]).toString('hex')}`)
  let digits = ''
  for (; rest > 0n; rest /= 58n) digits = ALPHABET.charAt(Number(rest % 58n)) + digits
  // Base58 writes each leading zero byte as a 1, and the prefix has exactly one.
  return `1${digits}`
}

/** The raw Ed25519 public key of a PeerID. @throws RangeError for what is no PeerID */
export function publicKeyOf(peerId: string): Uint8Array {
  const problem = peerIdProblem(peerId)
  if (problem !== undefined) throw new RangeError(`${peerId} ${problem}`)
  return bytesOf(peerId).subarray(PREFIX.length)
}

/**
 * Why `text`, as a person typed or pasted it, is not a PeerID: the end of a sentence that begins with what was typed.
 * `undefined` when it is one.
 */
export function peerIdProblem(text: string): string | undefined {
  if (text === '') return 'is empty where a PeerID (12D3KooW…) belongs'
  if (text.includes('/')) return 'is an address: give only the PeerID, the part behind the last /p2p/'
  if (/^Qm|^16Uiu2/.test(text))
    return 'is the PeerID of another kind of key: farport peers have Ed25519 keys, 12D3KooW…'
  if (/^(bafz|k51|k2k)/.test(text))
    return 'is a PeerID in its CID form: give the form that begins with 12D3KooW'
  const wrong = [...text].findIndex((c) => !ALPHABET.includes(c))
  if (wrong !== -1)
    return `has a character at position ${wrong + 1} that no PeerID has (they are letters and digits, without 0, O, I and l)`
  if (/^12d3koow/i.test(text) && !text.startsWith('12D3KooW'))
    return 'has lost its capital letters: they matter, and a PeerID begins with 12D3KooW'
  if (!text.startsWith('12D3KooW')) return 'is not a PeerID: those begin with 12D3KooW'
  if (text.length !== PEER_ID_LENGTH)
    return `has ${text.length} characters where a PeerID has ${PEER_ID_LENGTH}: was it copied whole?`
  return decodes(text) ? undefined : 'is mistyped: it does not decode to an Ed25519 key'
}

function decodes(text: string): boolean {
  const bytes = bytesOf(text)
  return bytes.length === PEER_ID_BYTES && bytes.subarray(0, PREFIX.length).equals(PREFIX)
}

function bytesOf(text: string): Buffer {
  let value = 0n
  for (const c of text) value = value * 58n + BigInt(ALPHABET.indexOf(c))
  return Buffer.from(value.toString(16).padStart(2 * PEER_ID_BYTES, '0'), 'hex')
}
