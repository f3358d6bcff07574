import { createRequire } from 'node:module'
import type { Socket } from 'node:net'

/** tcp(7) and include/uapi/linux/tcp.h */
const IPPROTO_TCP = 6
const TCP_NOTSENT_LOWAT = 25
/** What the kernel may hold that it could not send yet. By itself it takes megabytes, and a keystroke goes behind them. */
const MAX_UNSENT_BYTES = 4096

/**
 * Writes to a socket, and answers whether it has room for more: none while the kernel has not taken all. Where streams take
 * turns, what is with the kernel already has had its turn.
 * @param onRoom called when there is room again
 */
export function writerOf(socket: Socket, onRoom: () => void): (bytes: Uint8Array) => boolean {
  limitUnsent(socket)
  let isFull = false
  const written = () => {
    if (!isFull || socket.writableLength > 0) return
    isFull = false
    onRoom()
  }
  return (bytes) => {
    socket.write(bytes, written)
    isFull = socket.writableLength > 0
    return !isFull
  }
}

type SetSockOpt = (fd: number, level: number, name: number, value: Uint8Array, length: number) => number

let setSockOpt: SetSockOpt | undefined

/** Without it everything works, and a transfer is felt on other ports where the path is slow. */
function limitUnsent(socket: Socket): void {
  const { fd = -1 } = (socket as unknown as { _handle?: { fd?: number } })._handle ?? {}
  if (process.platform !== 'linux' || fd < 0) return
  try {
    setSockOpt ??= (createRequire(import.meta.url)('koffi') as typeof import('koffi'))
      .load(null)
      .func('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)') as SetSockOpt
  } catch {
    // doctor tells of a koffi that can't be loaded.
    return
  }
  const value = Buffer.alloc(4)
  value.writeUInt32LE(MAX_UNSENT_BYTES)
  setSockOpt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value, value.length)
}
