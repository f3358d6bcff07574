import { crc32 } from 'node:zlib'
import { ipBytes, ipText } from './ip-address.ts'

/**
 * STUN (RFC 8489) as far as a Binding needs it, with the three attributes by which RFC 5780 finds out what a NAT does.
 * Numbers are big-endian.
 *
 *   message     type u16 | length u16, of the attributes, a multiple of 4 | 21 12 a4 42 | transaction id, 12 bytes
 *               attribute …
 *   type        00 01 request, 01 01 success, 01 11 error; others are not for us
 *   attribute   type u16 | length u16, without the padding | value | zeros up to a multiple of 4
 *
 *   MAPPED-ADDRESS      00 01   00 | family 01 or 02 | port u16 | address, 4 or 16 bytes: read, never written
 *   XOR-MAPPED-ADDRESS  00 20   the same, port ⊕ 21 12, address ⊕ 21 12 a4 42 and the transaction id
 *   RESPONSE-ORIGIN     80 2b   as MAPPED-ADDRESS: where the answer was sent from
 *   OTHER-ADDRESS       80 2c   as MAPPED-ADDRESS: the server's other address and port
 *   CHANGE-REQUEST      00 03   u32, bit 2: answer from the other address, bit 1: from the other port
 *   ERROR-CODE          00 09   00 00 | hundreds 3 to 6 | rest 0 to 99 | reason, UTF-8
 *   UNKNOWN-ATTRIBUTES  00 0a   u16 …
 *   FINGERPRINT         80 28   CRC-32 of all before it ⊕ 53 54 55 4e; comes last, checked where it is there
 *
 * Attributes below 80 00 must be understood: an answer with another one is no answer, a request with one is refused (420).
 */

/** The longest message taken: what fits in one IPv4 packet of 576 bytes, which every path carries (RFC 8489 §6.1). */
export const MAX_MESSAGE_BYTES = 548
export const TRANSACTION_ID_BYTES = 12

const HEADER_BYTES = 20
const MAGIC = 0x2112a442
const FINGERPRINT_XOR = 0x5354554e

const TYPE = { request: 0x0001, success: 0x0101, error: 0x0111 } as const

const MAPPED_ADDRESS = 0x0001
const CHANGE_REQUEST = 0x0003
const ERROR_CODE = 0x0009
const UNKNOWN_ATTRIBUTES = 0x000a
const XOR_MAPPED_ADDRESS = 0x0020
const FINGERPRINT = 0x8028
const RESPONSE_ORIGIN = 0x802b
const OTHER_ADDRESS = 0x802c
/** USERNAME, MESSAGE-INTEGRITY, -SHA256, PASSWORD-ALGORITHM, USERHASH, REALM and NONCE: nobody logs in here. */
const CREDENTIALS = [0x0006, 0x0008, 0x001c, 0x001d, 0x001e, 0x0014, 0x0015]
/** From here on an attribute may be passed over. */
const OPTIONAL = 0x8000

/** An IP address, IPv6 without brackets, and a port of TCP or UDP. */
export interface IpEndpoint {
  readonly address: string
  readonly port: number
}

/** From where else the answer should come. */
export interface Change {
  readonly address: boolean
  readonly port: boolean
}

export interface StunRequest {
  type: 'request'
  transactionId: Buffer
  change?: Change
  /** Attributes that we had to understand and don't. Read only. */
  unknown?: readonly number[]
}

export interface StunSuccess {
  type: 'success'
  transactionId: Buffer
  /** Whom the server saw. */
  mapped: IpEndpoint
  origin?: IpEndpoint
  other?: IpEndpoint
}

interface StunFailure {
  type: 'error'
  transactionId: Buffer
  /** 300 to 699. */
  code: number
  unknown?: readonly number[]
}

export type StunMessage = StunRequest | StunSuccess | StunFailure

/** These bytes are no STUN message that we know. */
export class StunError extends Error {
  override readonly name = 'StunError'
}

/**
 * How long the message is that starts with these bytes; undefined as long as too few have come to tell.
 * @throws StunError where it is no message, or longer than MAX_MESSAGE_BYTES.
 */
export function messageBytes(start: Buffer): number | undefined {
  if (start.length < 8) return undefined
  const length = start.readUInt16BE(2)
  if (length % 4 !== 0 || start.readUInt32BE(4) !== MAGIC) throw new StunError('not STUN')
  if (HEADER_BYTES + length > MAX_MESSAGE_BYTES)
    throw new StunError(`message of ${HEADER_BYTES + length} bytes`)
  return HEADER_BYTES + length
}

export function encodeMessage(message: StunMessage): Buffer {
  const id = message.transactionId
  const attributes: Buffer[] = []
  switch (message.type) {
    case 'request':
      if (message.change !== undefined)
        attributes.push(attribute(CHANGE_REQUEST, encodeChange(message.change)))
      break
    case 'success':
      attributes.push(attribute(XOR_MAPPED_ADDRESS, masked(encodeAddress(message.mapped), id)))
      if (message.origin) attributes.push(attribute(RESPONSE_ORIGIN, encodeAddress(message.origin)))
      if (message.other) attributes.push(attribute(OTHER_ADDRESS, encodeAddress(message.other)))
      break
    case 'error':
      attributes.push(
        attribute(ERROR_CODE, Buffer.of(0, 0, Math.floor(message.code / 100), message.code % 100)),
      )
      if (message.unknown) attributes.push(attribute(UNKNOWN_ATTRIBUTES, encodeTypes(message.unknown)))
      break
  }
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt16BE(TYPE[message.type])
  header.writeUInt16BE(
    attributes.reduce((sum, { length }) => sum + length, 0),
    2,
  )
  header.writeUInt32BE(MAGIC, 4)
  id.copy(header, 8)
  return Buffer.concat([header, ...attributes])
}

/**
 * Reads one whole message.
 * @throws StunError, and nothing else, whatever the bytes are.
 */
export function decodeMessage(bytes: Buffer): StunMessage {
  if (bytes.length < HEADER_BYTES || messageBytes(bytes) !== bytes.length) throw new StunError('not STUN')
  const transactionId = bytes.subarray(8, HEADER_BYTES)
  const found = readAttributes(bytes)
  const unknown = [...found.keys()].filter((type) => type < OPTIONAL && !isKnown(type))
  switch (bytes.readUInt16BE(0)) {
    case TYPE.request: {
      const change = found.get(CHANGE_REQUEST)
      return {
        type: 'request',
        transactionId,
        ...(change && { change: decodeChange(change) }),
        ...(unknown.length > 0 && { unknown }),
      }
    }
    case TYPE.success: {
      if (unknown.length > 0) throw new StunError(`attribute ${unknown[0]} is not understood`)
      const xored = found.get(XOR_MAPPED_ADDRESS)
      // Servers of before RFC 5389 know only the plain form.
      const plain = xored ? masked(xored, transactionId) : found.get(MAPPED_ADDRESS)
      if (plain === undefined) throw new StunError('success without an address')
      const origin = found.get(RESPONSE_ORIGIN)
      const other = found.get(OTHER_ADDRESS)
      return {
        type: 'success',
        transactionId,
        mapped: decodeAddress(plain),
        ...(origin && { origin: decodeAddress(origin) }),
        ...(other && { other: decodeAddress(other) }),
      }
    }
    case TYPE.error: {
      const code = found.get(ERROR_CODE)
      const refused = found.get(UNKNOWN_ATTRIBUTES)
      return {
        type: 'error',
        transactionId,
        code: decodeCode(code),
        ...(refused && { unknown: decodeTypes(refused) }),
      }
    }
    default:
      throw new StunError('neither a Binding request nor an answer to one')
  }
}

/** The attributes by type; of several of one type the first counts (RFC 8489 §14). */
function readAttributes(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>()
  let at = HEADER_BYTES
  while (at < bytes.length) {
    const type = bytes.readUInt16BE(at)
    const length = bytes.readUInt16BE(at + 2)
    const value = bytes.subarray(at + 4, at + 4 + length)
    const next = at + 4 + Math.ceil(length / 4) * 4
    if (next > bytes.length) throw new StunError('attribute longer than its message')
    if (type === FINGERPRINT) {
      const sum = (crc32(bytes.subarray(0, at)) ^ FINGERPRINT_XOR) >>> 0
      if (length !== 4 || next !== bytes.length || value.readUInt32BE() !== sum)
        throw new StunError('wrong FINGERPRINT')
    }
    if (!found.has(type)) found.set(type, value)
    at = next
  }
  return found
}

function isKnown(type: number): boolean {
  switch (type) {
    case MAPPED_ADDRESS:
    case CHANGE_REQUEST:
    case ERROR_CODE:
    case UNKNOWN_ATTRIBUTES:
    case XOR_MAPPED_ADDRESS:
      return true
    default:
      return CREDENTIALS.includes(type)
  }
}

function attribute(type: number, value: Buffer): Buffer {
  const out = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4)
  out.writeUInt16BE(type)
  out.writeUInt16BE(value.length, 2)
  value.copy(out, 4)
  return out
}

function encodeAddress({ address, port }: IpEndpoint): Buffer {
  const ip = ipBytes(address)
  const value = Buffer.alloc(4 + ip.length)
  value[1] = ip.length === 4 ? 1 : 2
  value.writeUInt16BE(port, 2)
  ip.copy(value, 4)
  return value
}

function decodeAddress(value: Buffer): IpEndpoint {
  const family = value[1]
  if (!(value.length === 8 && family === 1) && !(value.length === 20 && family === 2))
    throw new StunError('neither an IPv4 nor an IPv6 address')
  return { address: ipText(value.subarray(4)), port: value.readUInt16BE(2) }
}

/** An address as XOR-MAPPED-ADDRESS has it, made from the plain form or turned back into it. */
function masked(value: Buffer, transactionId: Buffer): Buffer {
  const mask = Buffer.alloc(4 + TRANSACTION_ID_BYTES)
  mask.writeUInt32BE(MAGIC)
  transactionId.copy(mask, 4)
  return Buffer.from(
    value.map((byte, k) => (k < 2 ? byte : byte ^ ((k < 4 ? mask[k - 2] : mask[k - 4]) as number))),
  )
}

function encodeChange({ address, port }: Change): Buffer {
  return Buffer.of(0, 0, 0, (address ? 4 : 0) | (port ? 2 : 0))
}

function decodeChange(value: Buffer): Change {
  if (value.length !== 4) throw new StunError('CHANGE-REQUEST is not 4 bytes long')
  const bits = value[3] as number
  return { address: (bits & 4) !== 0, port: (bits & 2) !== 0 }
}

function decodeCode(value: Buffer | undefined): number {
  const hundreds = (value?.[2] ?? 0) & 7
  const rest = value?.[3] ?? 100
  if (hundreds < 3 || hundreds > 6 || rest > 99) throw new StunError('error without a code')
  return hundreds * 100 + rest
}

function encodeTypes(types: readonly number[]): Buffer {
  const value = Buffer.alloc(2 * types.length)
  types.forEach((type, k) => {
    value.writeUInt16BE(type, 2 * k)
  })
  return value
}

function decodeTypes(value: Buffer): number[] {
  return Array.from({ length: value.length >> 1 }, (_, k) => value.readUInt16BE(2 * k))
}
