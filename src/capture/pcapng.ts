/**
 * A capture that Wireshark opens: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html, little-endian, one
 * interface of link type 250, RTAC_SERIAL, whose packets begin with 12 bytes of their own:
 *
 *   u32 seconds | u32 microseconds | u8 event | u8 lines | u16 0          big-endian
 *   events: 1 what the device is sent, 2 what it sends, 5 data was lost
 *
 * The direction stands in each packet's flags, too: 1 inbound, 2 outbound.
 */
import {
  CaptureError,
  type CaptureReader,
  type CaptureWriter,
  MAX_PIECE_BYTES,
  type Piece,
} from './format.ts'

const SECTION_HEADER = 0x0a0d0d0a
const INTERFACE = 1
const ENHANCED_PACKET = 6
const BYTE_ORDER = 0x1a2b3c4d
const RTAC_SERIAL = 250
const RTAC_HEADER_BYTES = 12
const EVENTS = { toDevice: 1, fromDevice: 2 } as const
const LOST = 5
const FLAGS = { fromDevice: 1, toDevice: 2, lost: 0 } as const

const OPTION = { end: 0, interfaceName: 2, packetFlags: 2, application: 4, comment: 1 } as const
/** No block of ours is longer; others skip theirs by length, and a length can be a lie. */
const MAX_BLOCK_BYTES = 1024 * 1024

export function pcapngWriter(port: string): CaptureWriter {
  return {
    start: () =>
      Buffer.concat([
        block(SECTION_HEADER, [
          u32(BYTE_ORDER),
          // Version 1.0, of unknown length.
          Buffer.from([1, 0, 0, 0, ...Array(8).fill(0xff)]),
          option(OPTION.application, Buffer.from('farport')),
          option(OPTION.end),
        ]),
        block(INTERFACE, [
          u32(RTAC_SERIAL),
          u32(0),
          option(OPTION.interfaceName, Buffer.from(port)),
          option(OPTION.end),
        ]),
      ]),
    piece: ({ atMs, direction, bytes }) => {
      const packets: Buffer[] = []
      for (let at = 0; at < bytes.length; at += MAX_PIECE_BYTES)
        packets.push(packet(atMs, direction, bytes.subarray(at, at + MAX_PIECE_BYTES)))
      return Buffer.concat(packets)
    },
    lost: (atMs, bytes) => packet(atMs, 'lost', Buffer.alloc(0), `lost ${bytes} bytes`),
    end: () => Buffer.alloc(0),
  }
}

function packet(atMs: number, kind: keyof typeof FLAGS, bytes: Uint8Array, comment?: string): Buffer {
  const micros = BigInt(Math.round(atMs * 1000))
  const rtac = Buffer.alloc(RTAC_HEADER_BYTES)
  rtac.writeUInt32BE(Number(micros / 1_000_000n), 0)
  rtac.writeUInt32BE(Number(micros % 1_000_000n), 4)
  rtac[8] = kind === 'lost' ? LOST : EVENTS[kind]
  const length = RTAC_HEADER_BYTES + bytes.length
  return block(ENHANCED_PACKET, [
    u32(0),
    u32(Number(micros >> 32n)),
    u32(Number(micros & 0xffff_ffffn)),
    u32(length),
    u32(length),
    padded(Buffer.concat([rtac, bytes])),
    ...(comment === undefined ? [] : [option(OPTION.comment, Buffer.from(comment))]),
    option(OPTION.packetFlags, u32(FLAGS[kind])),
    option(OPTION.end),
  ])
}

function block(type: number, parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const length = u32(body.length + 12)
  return Buffer.concat([u32(type), length, body, length])
}

function option(code: number, value: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(4)
  head.writeUInt16LE(code, 0)
  head.writeUInt16LE(value.length, 2)
  return Buffer.concat([head, padded(value)])
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)])
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/** Reads captures of link type 250 in little-endian, as farport writes them. */
export class PcapngReader implements CaptureReader {
  #rest = Buffer.alloc(0)
  #interfaces: 'none' | 'one' = 'none';

  *push(bytes: Uint8Array): Generator<Piece, void> {
    let left = Buffer.concat([this.#rest, bytes])
    while (left.length >= 12) {
      const length = left.readUInt32LE(4)
      const type = left.readUInt32LE(0)
      if (type === SECTION_HEADER && left.readUInt32LE(8) !== BYTE_ORDER)
        throw new CaptureError('it is a big-endian pcapng, which farport does not write')
      if (length < 12 || length % 4 !== 0 || length > MAX_BLOCK_BYTES)
        throw new CaptureError(`a block of ${length} bytes`)
      if (left.length < length) break
      if (left.readUInt32LE(length - 4) !== length) throw new CaptureError('a block whose two lengths differ')
      const piece = this.#read(type, left.subarray(8, length - 4))
      left = left.subarray(length)
      if (piece !== undefined) yield piece
    }
    this.#rest = Buffer.from(left)
  }

  end(): void {
    if (this.#rest.length > 0) throw new CaptureError('its last block is cut')
    if (this.#interfaces === 'none') throw new CaptureError('there is no interface in it')
  }

  #read(type: number, body: Buffer): Piece | undefined {
    if (type === SECTION_HEADER) this.#interfaces = 'none'
    if (type === INTERFACE) {
      if (body.length < 8 || body.readUInt16LE(0) !== RTAC_SERIAL)
        throw new CaptureError('its packets are of another kind than farport’s (link type 250)')
      this.#interfaces = 'one'
    }
    return type === ENHANCED_PACKET ? this.#packet(body) : undefined
  }

  #packet(body: Buffer): Piece | undefined {
    if (this.#interfaces === 'none' || body.length < 20) throw new CaptureError('a packet of no interface')
    const length = body.readUInt32LE(12)
    if (length < RTAC_HEADER_BYTES || length > body.length - 20)
      throw new CaptureError('a packet that is cut')
    const event = body[20 + 8]
    if (event !== EVENTS.fromDevice && event !== EVENTS.toDevice) return undefined
    const micros = (BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8))
    return {
      atMs: Number(micros) / 1000,
      direction: event === EVENTS.fromDevice ? 'fromDevice' : 'toDevice',
      bytes: Buffer.from(body.subarray(20 + RTAC_HEADER_BYTES, 20 + length)),
    }
  }
}
