/** Yamux frames as a peer that keeps to no rule may write them. */
export const DATA = 0
export const WINDOW_UPDATE = 1
export const PING = 2
export const GO_AWAY = 3
export const SYN = 1

export interface Frame {
  type: number
  flags?: number
  stream: number
  /** What the header announces, whatever `data` is. */
  length: number
  data?: Uint8Array
}

export function frame({ type, flags = 0, stream, length, data = new Uint8Array() }: Frame): Buffer {
  const header = Buffer.alloc(12)
  header.writeUInt8(type, 1)
  header.writeUInt16BE(flags, 2)
  header.writeUInt32BE(stream, 4)
  header.writeUInt32BE(length, 8)
  return Buffer.concat([header, data])
}
