import { formatPeerId } from '../../src/trust/peer-id.ts'

/** A PeerID of a key nobody has. */
export function peer(n: number): string {
  const key = Buffer.alloc(32, 7)
  key.writeUInt32BE(n)
  return formatPeerId(key)
}
