/**
 * The messages of circuit relay v2, as much of them as relays and those who reserve say. Protocol buffers; on a stream
 * each has its length in front as a varint.
 *
 *   hop   1 type: 0 RESERVE, 1 CONNECT, 2 STATUS | 2 peer | 3 reservation | 4 limit | 5 status
 *   stop  1 type: 0 CONNECT, 1 STATUS            | 2 peer | 3 limit               | 4 status
 *   peer  1 id: the PeerID's multihash | 2 addresses
 *   reservation  1 expires: seconds since 1970 | 2 addresses of the relay | 3 voucher
 *
 * See https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md. Of limits we send none; vouchers are optional and
 * nobody asks for them.
 */

export const HOP_PROTOCOL = '/libp2p/circuit/relay/0.2.0/hop'
export const STOP_PROTOCOL = '/libp2p/circuit/relay/0.2.0/stop'

/** Longest message: a reservation names at most some tens of addresses. */
export const MAX_CIRCUIT_MESSAGE = 4096
/** Longest PeerID: the multihash of an RSA key's hash is shorter, that of an Ed25519 key has 38 bytes. */
const MAX_PEER_ID_BYTES = 64

export const STATUS = {
  OK: 100,
  RESERVATION_REFUSED: 200,
  RESOURCE_LIMIT_EXCEEDED: 201,
  PERMISSION_DENIED: 202,
  CONNECTION_FAILED: 203,
  NO_RESERVATION: 204,
  MALFORMED_MESSAGE: 400,
  UNEXPECTED_MESSAGE: 401,
} as const

export type HopRequest = { type: 'reserve' } | { type: 'connect'; peer: Uint8Array }

/** `expires` is in seconds since 1970, as the relay's clock has it. */
export type HopStatus = { status: number; expires?: number }

export class CircuitMessageError extends Error {
  override readonly name = 'CircuitMessageError'
}

export function encodeReserve(): Uint8Array {
  return varintField(1, 0)
}

/** Asks the peer to take a connection from `peer`, a PeerID's multihash. */
export function encodeStopConnect(peer: Uint8Array): Uint8Array {
  return Buffer.concat([varintField(1, 0), bytesField(2, bytesField(1, peer))])
}

export function encodeHopStatus(
  status: number,
  reservation?: { expires: number; addresses: readonly Uint8Array[] },
): Uint8Array {
  const parts = [varintField(1, 2)]
  if (reservation !== undefined) {
    const { expires, addresses } = reservation
    const body = [varintField(1, expires), ...addresses.map((address) => bytesField(2, address))]
    parts.push(bytesField(3, Buffer.concat(body)))
  }
  return Buffer.concat([...parts, varintField(5, status)])
}

/** @throws CircuitMessageError */
export function decodeHopRequest(bytes: Uint8Array): HopRequest {
  const fields = new Fields(bytes)
  switch (fields.number(1)) {
    case 0:
      return { type: 'reserve' }
    case 1: {
      const peer = new Fields(fields.bytes(2) ?? fail('it names no peer')).bytes(1)
      if (peer === undefined || peer.length === 0 || peer.length > MAX_PEER_ID_BYTES)
        throw new CircuitMessageError('it names no peer')
      return { type: 'connect', peer }
    }
    default:
      throw new CircuitMessageError('it is not a request')
  }
}

/** A relay's answer. @throws CircuitMessageError */
export function decodeHopStatus(bytes: Uint8Array): HopStatus {
  const fields = new Fields(bytes)
  if (fields.number(1) !== 2) throw new CircuitMessageError('it is not an answer')
  const reservation = fields.bytes(3)
  const expires = reservation === undefined ? undefined : new Fields(reservation).number(1)
  return { status: fields.number(5) ?? 0, ...(expires !== undefined && { expires }) }
}

/** The answer of whom a connection was offered to. @throws CircuitMessageError */
export function decodeStopStatus(bytes: Uint8Array): number {
  const fields = new Fields(bytes)
  if (fields.number(1) !== 1) throw new CircuitMessageError('it is not an answer')
  return fields.number(4) ?? 0
}

/** The fields of one protobuf message; of a field that is there more than once the last one, as protobuf has it. */
class Fields {
  readonly #values = new Map<number, number | Uint8Array>()

  constructor(bytes: Uint8Array) {
    let at = 0
    const varint = (): number => {
      const read = readVarint(bytes, at) ?? fail('it ends in the middle')
      at += read.length
      return read.value
    }
    while (at < bytes.length) {
      const tag = varint()
      const field = Math.floor(tag / 8)
      switch (tag % 8) {
        case 0:
          this.#values.set(field, varint())
          break
        case 2: {
          const length = varint()
          if (length > bytes.length - at) throw new CircuitMessageError('it ends in the middle')
          this.#values.set(field, bytes.subarray(at, at + length))
          at += length
          break
        }
        default:
          throw new CircuitMessageError('it has a field of a kind that none has')
      }
    }
  }

  number(field: number): number | undefined {
    const value = this.#values.get(field)
    return typeof value === 'number' ? value : undefined
  }

  bytes(field: number): Uint8Array | undefined {
    const value = this.#values.get(field)
    return typeof value === 'object' ? value : undefined
  }
}

function fail(why: string): never {
  throw new CircuitMessageError(why)
}

/**
 * The varint at `at`, or undefined when it is not whole yet.
 * @throws CircuitMessageError beyond 2^53, which no honest field reaches
 */
export function readVarint(bytes: Uint8Array, at = 0): { value: number; length: number } | undefined {
  let value = 0
  for (let length = 1; at + length <= bytes.length; length++) {
    const byte = bytes[at + length - 1] as number
    value += (byte & 0x7f) * 2 ** (7 * (length - 1))
    if (!Number.isSafeInteger(value) || length > 8) throw new CircuitMessageError('a number is too large')
    if (byte < 0x80) return { value, length }
  }
  return undefined
}

export function encodeVarint(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = value
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  return Uint8Array.from([...bytes, rest])
}

function varintField(field: number, value: number): Uint8Array {
  return Buffer.concat([encodeVarint(field * 8), encodeVarint(value)])
}

function bytesField(field: number, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([encodeVarint(field * 8 + 2), encodeVarint(bytes.length), bytes])
}
