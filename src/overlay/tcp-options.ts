import { createRequire } from 'node:module'
import type { Socket } from 'node:net'

/** tcp(7) and include/uapi/linux/tcp.h */
const IPPROTO_TCP = 6
const TCP_INFO = 11
const TCP_NOTSENT_LOWAT = 25
/** struct tcp_info as of Linux 4.9, which has all that is read here; a newer kernel gives as much of its own. */
const INFO_BYTES = 168
const OFFSET = { roundTripUs: 68, variationUs: 72, bytesAcked: 120, minRoundTripUs: 148 }

/** What the kernel knows of a connection. */
export interface TcpState {
  /** Smoothed, */
  readonly roundTripMs: number
  /** and how much single ones differ from it. */
  readonly variationMs: number
  /** The shortest of the last minutes. */
  readonly minRoundTripMs: number
  readonly bytesAcked: number
}

interface Native {
  set(fd: number, level: number, name: number, value: Uint8Array, length: number): number
  get(fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array): number
}

/** The options of a TCP socket that Node has no call for. */
export class TcpOptions {
  readonly #native: Native
  readonly #socket: Socket
  readonly #info = Buffer.alloc(INFO_BYTES)
  readonly #length = Buffer.alloc(4)

  private constructor(native: Native, socket: Socket) {
    this.#native = native
    this.#socket = socket
  }

  /** Undefined where they can't be reached: everything works there, and transfers are felt on other ports. */
  static of(socket: Socket): TcpOptions | undefined {
    const native = process.platform === 'linux' ? load() : undefined
    return native && new TcpOptions(native, socket)
  }

  /** How much the kernel takes of what it can't send yet. By itself that is megabytes. */
  limitUnsent(bytes: number): void {
    const value = Buffer.alloc(4)
    value.writeUInt32LE(bytes)
    this.#native.set(this.#fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value, value.length)
  }

  state(): TcpState | undefined {
    this.#length.writeUInt32LE(INFO_BYTES)
    const failed = this.#native.get(this.#fd, IPPROTO_TCP, TCP_INFO, this.#info, this.#length) !== 0
    if (failed || this.#length.readUInt32LE() < INFO_BYTES) return undefined
    return {
      roundTripMs: this.#info.readUInt32LE(OFFSET.roundTripUs) / 1000,
      variationMs: this.#info.readUInt32LE(OFFSET.variationUs) / 1000,
      minRoundTripMs: this.#info.readUInt32LE(OFFSET.minRoundTripUs) / 1000,
      bytesAcked: Number(this.#info.readBigUInt64LE(OFFSET.bytesAcked)),
    }
  }

  get #fd(): number {
    return (this.#socket as unknown as { _handle?: { fd?: number } })._handle?.fd ?? -1
  }
}

let loaded: Native | 'missing' | undefined

function load(): Native | undefined {
  loaded ??= bind()
  return loaded === 'missing' ? undefined : loaded
}

function bind(): Native | 'missing' {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const c = koffi.load(null)
    return {
      set: c.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)'),
      get: c.func('int getsockopt(int fd, int level, int name, void *value, void *length)'),
    }
  } catch {
    // doctor tells of a koffi that can't be loaded.
    return 'missing'
  }
}
