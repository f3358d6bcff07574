import { constants, openSync } from 'node:fs'
import { createRequire } from 'node:module'

const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')

const TUNSETIFF = 0x400454ca
const IFF_TUN_NO_PI = 0x1001
const POLLIN = 1
const CLONE_NEWNET = 0x40000000
const LONGEST_PACKET = 65_536
const LONGEST_WAIT_MS = 60_000

const c = koffi.load(null)
const ioctl = c.func('ioctl', 'int', ['int', 'ulong', 'void *'])
const read = c.func('intptr_t read(int fd, void *bytes, size_t length)')
const write = c.func('intptr_t write(int fd, const void *bytes, size_t length)')
const ppoll = c.func('int ppoll(void *fds, unsigned long count, const void *timeout, const void *signals)')
const setns = c.func('int setns(int fd, int type)')

/** A TUN device: what the kernel sends to it is read here, and what is written here it gets. Both are IP packets. */
export class Tun {
  readonly fd: number
  readonly #incoming = Buffer.alloc(LONGEST_PACKET)

  /** Makes the device in the network namespace this process is in; it goes with the process. */
  constructor(name: string) {
    this.fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK)
    // struct ifreq: the name in 16 bytes, the flags in a short.
    const request = Buffer.alloc(40)
    request.write(name, 'latin1')
    request.writeUInt16LE(IFF_TUN_NO_PI, 16)
    if (ioctl(this.fd, TUNSETIFF, request) < 0) throw new Error(`TUNSETIFF: errno ${koffi.errno()}`)
  }

  /** The next packet, if there is one; overwritten by the one after it. */
  read(): Buffer | undefined {
    const length = Number(read(this.fd, this.#incoming, LONGEST_PACKET))
    return length > 0 ? this.#incoming.subarray(0, length) : undefined
  }

  write(packet: Buffer): void {
    write(this.fd, packet, packet.length)
  }
}

/** Goes into the network namespace of another process. Only what is opened afterwards is there. */
export function enterNetworkOf(pid: number): void {
  const fd = openSync(`/proc/${pid}/ns/net`, constants.O_RDONLY)
  if (setns(fd, CLONE_NEWNET) < 0) throw new Error(`setns: errno ${koffi.errno()}`)
}

/** Waits until one of the devices has a packet, standard input has ended, or so long. Exact to the timer of the kernel. */
export class TunPoll {
  readonly #tuns: readonly Tun[]
  readonly #polled: Buffer
  readonly #timeout = Buffer.alloc(16)

  constructor(...tuns: Tun[]) {
    this.#tuns = tuns
    // struct pollfd: int fd, short events, short revents.
    this.#polled = Buffer.alloc(8 * (tuns.length + 1))
    for (const [i, fd] of [0, ...tuns.map((tun) => tun.fd)].entries()) {
      this.#polled.writeInt32LE(fd, 8 * i)
      this.#polled.writeInt16LE(POLLIN, 8 * i + 4)
    }
  }

  /** Answers the devices that have packets, or undefined when standard input has ended. */
  wait(milliseconds: number): readonly Tun[] | undefined {
    // struct timespec: seconds, nanoseconds.
    const ns = BigInt(Math.ceil(Math.min(Math.max(0, milliseconds), LONGEST_WAIT_MS) * 1e6))
    this.#timeout.writeBigInt64LE(ns / 1_000_000_000n, 0)
    this.#timeout.writeBigInt64LE(ns % 1_000_000_000n, 8)
    if (ppoll(this.#polled, this.#tuns.length + 1, this.#timeout, null) < 0) return []
    if (this.#polled.readInt16LE(6) !== 0) return undefined
    return this.#tuns.filter((_, i) => this.#polled.readInt16LE(8 * (i + 1) + 6) !== 0)
  }
}
