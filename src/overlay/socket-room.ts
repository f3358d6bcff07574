import type { Socket } from 'node:net'
import { PathLimit } from './path-limit.ts'
import { TcpOptions } from './tcp-options.ts'

/** What the kernel may hold that it could not send yet: that goes out in its order, not in ours. */
const MAX_UNSENT_BYTES = 4096
/** The path is looked at after so much, and while more would be too much this often. */
const LOOK_EVERY_BYTES = 8 * 1024
const LOOK_EVERY_MS = 2

/**
 * Writes to a socket, and answers whether it has room for more: none while the kernel has not taken all, and none while
 * enough is under way. So what waits, waits where streams take turns.
 * @param onRoom called when there is room again
 */
export function writerOf(socket: Socket, onRoom: () => void): (bytes: Uint8Array) => boolean {
  const tcp = TcpOptions.of(socket)
  tcp?.limitUnsent(MAX_UNSENT_BYTES)
  const limit = new PathLimit()
  let lookedAt = 0
  let waitsFor: 'nothing' | 'kernel' | 'path' = 'nothing'

  const isPathFull = (): boolean => {
    const sent = socket.bytesWritten
    if (limit.bytes === Number.POSITIVE_INFINITY && sent - lookedAt < LOOK_EVERY_BYTES) return false
    lookedAt = sent
    const state = tcp?.state()
    if (state === undefined) return false
    const underWayBytes = sent - state.bytesAcked
    limit.learn(state, underWayBytes, performance.now())
    return underWayBytes >= limit.bytes
  }
  const lookAgain = () => {
    if (!socket.destroyed && isPathFull()) {
      setTimeout(lookAgain, LOOK_EVERY_MS).unref()
      return
    }
    waitsFor = 'nothing'
    onRoom()
  }
  const written = () => {
    if (waitsFor === 'kernel' && socket.writableLength === 0) lookAgain()
  }
  return (bytes) => {
    socket.write(bytes, written)
    if (waitsFor === 'path') return false
    if (socket.writableLength > 0) waitsFor = 'kernel'
    else if (isPathFull()) {
      waitsFor = 'path'
      setTimeout(lookAgain, LOOK_EVERY_MS).unref()
    }
    return waitsFor === 'nothing'
  }
}
