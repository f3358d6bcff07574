import { closeSync, constants, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import { getSystemErrorMessage, getSystemErrorName } from 'node:util'
import { FarportError } from '../errors.ts'
import { OpenWatch } from './open-watch.ts'
import { Round } from './round.ts'
import { Termios2 } from './termios.ts'

/**
 * The few calls of the C library that Node does not offer and serial ports need: tty ioctls, file locks, inotify.
 *
 * Synchronous calls only. koffi's `.async()` does not keep Buffer arguments alive while the call runs, so the kernel
 * writes into freed memory; and every such call holds a thread of libuv's pool. Every descriptor here is therefore
 * non-blocking, and no call here waits for a device.
 *
 * Numbers and layouts are Linux's asm-generic ones (include/uapi/asm-generic/ioctls.h, termbits.h), which x64, arm64, arm,
 * ia32, riscv64 and loong64 share. ppc, mips, sparc and alpha have their own.
 */
const ASM_GENERIC = ['x64', 'arm64', 'arm', 'ia32', 'riscv64', 'loong64']

const TCFLSH = 0x540b
const TIOCEXCL = 0x540c
const TIOCNXCL = 0x540d
const TIOCOUTQ = 0x5411
const TIOCMGET = 0x5415
const TIOCMBIS = 0x5416
const TIOCMBIC = 0x5417
const TIOCMSET = 0x5418
const TIOCINQ = 0x541b
const TIOCGSERIAL = 0x541e
const TIOCSSERIAL = 0x541f
const TIOCPKT = 0x5420
const TIOCSBRK = 0x5427
const TIOCCBRK = 0x5428
const TCGETS2 = 0x802c542a
const TCSETS2 = 0x402c542b
const TIOCGPTN = 0x80045430
const TIOCSPTLCK = 0x40045431
const TIOCVHANGUP = 0x5437
const TIOCGEXCL = 0x80045440
const TIOCGPTPEER = 0x5441
const TIOCSLCKTRMIOS = 0x5457
const TIOCSERGETLSR = 0x5459
const TIOCGICOUNT = 0x545d

/** The bits of TIOCMGET and its relatives. */
export const TIOCM = { DTR: 0x002, RTS: 0x004, CTS: 0x020, CAR: 0x040, RNG: 0x080, DSR: 0x100 } as const

/** The first byte of each read from a PTY master in packet mode (TIOCPKT): 0 for data, else these bits. */
export const TIOCPKT_EVENT = {
  FLUSHREAD: 0x01,
  FLUSHWRITE: 0x02,
  STOP: 0x04,
  START: 0x08,
  NOSTOP: 0x10,
  DOSTOP: 0x20,
  IOCTL: 0x40,
} as const

/** Event bits of inotify. */
export const IN = {
  ATTRIB: 0x004,
  CLOSE_WRITE: 0x008,
  CLOSE_NOWRITE: 0x010,
  OPEN: 0x020,
  MOVED_TO: 0x080,
  CREATE: 0x100,
  DELETE_SELF: 0x400,
} as const

const IN_FLAGS = constants.O_NONBLOCK | 0o2000000 // IN_NONBLOCK and IN_CLOEXEC have the values of their O_ namesakes.
const LOCK_EX_NB = 2 | 4
const FLUSH = { rx: 0, tx: 1, both: 2 } as const
const POLLHUP = 0x10
/** `flags` of struct serial_struct, and in it ASYNC_LOW_LATENCY. The struct has 60 or 72 bytes. */
const SERIAL_STRUCT_FLAGS = 16
const ASYNC_LOW_LATENCY = 1 << 13

/** What TIOCGICOUNT counts since the driver was loaded: edges of each input line, and errors on the line. */
export interface SerialCounters {
  cts: number
  dsr: number
  ri: number
  dcd: number
  framing: number
  overrun: number
  parity: number
  break: number
  /** Bytes lost in the driver's own buffer. */
  bufferOverrun: number
}

/** A call that failed, in the shape of Node's own: `code` is `'EIO'`, `syscall` the call's name, `errno` negative. */
export class SyscallError extends Error {
  override readonly name = 'SyscallError'
  readonly code: string
  readonly errno: number
  readonly syscall: string

  /** @param errno positive, as C has it. */
  constructor(syscall: string, errno: number) {
    const code = getSystemErrorName(-errno)
    super(`${code}: ${getSystemErrorMessage(-errno)}, ${syscall}`)
    this.code = code
    this.errno = -errno
    this.syscall = syscall
  }
}

/** True for an error of the system with one of these codes, whether Node or we threw it. */
export function isSystemError(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(error.code as string)
}

/** What {@link FdPoll} waits for. `disconnect` is a hang-up alone, for whoever wants neither bytes nor room. */
export type PollFor = 'read' | 'write' | 'read or write' | 'disconnect' | 'nothing'

/** What has come. After an error of the descriptor everything has: the next read or write tells which it was. */
export interface Ready {
  readable: boolean
  writable: boolean
  disconnect: boolean
}

const INTEREST: Record<Exclude<PollFor, 'nothing'>, Ready> = {
  read: { readable: true, writable: false, disconnect: false },
  write: { readable: false, writable: true, disconnect: false },
  'read or write': { readable: true, writable: true, disconnect: false },
  disconnect: { readable: false, writable: false, disconnect: true },
}
const EVERYTHING: Ready = { readable: true, writable: true, disconnect: true }

type PollCallback = (status: number, ready: Ready) => void

/** What koffi.node.poll() answers; its own types and documentation do not describe it. */
interface PollHandle {
  start(interest: Ready, callback: PollCallback): void
  stop(): void
  close(): void
}

type Native = {
  uvPoll(fd: number, interest: Ready, callback: PollCallback): PollHandle
  read(fd: number, bytes: Uint8Array, length: number): number
  write(fd: number, bytes: Uint8Array, length: number): number
  flock(fd: number, operation: number): number
  inotifyInit(flags: number): number
  inotifyAddWatch(fd: number, path: string, mask: number): number
  inotifyRmWatch(fd: number, watch: number): number
  poll(fds: Uint8Array, count: number, timeoutMs: number): number
  ioctlValue(fd: number, request: number, value: number): number
  ioctlBuffer(fd: number, request: number, buffer: Uint8Array): number
  errno(): number
}

/**
 * libuv's uv_poll on one descriptor, level-triggered: it calls back in every round of the event loop for as long as what it
 * waits for is there. One per descriptor; close it before the descriptor.
 *
 * The callback comes straight from libuv, outside of Node's own frame: promises and ticks made in it wait for the
 * next event, and what it throws is lost. So do nothing in it but `setImmediate()`, which runs in the same round.
 */
export class FdPoll {
  readonly #native: Native
  readonly #fd: number
  readonly #callback: PollCallback
  #handle: PollHandle | undefined
  #waitingFor: PollFor = 'nothing'

  constructor(native: Native, fd: number, onReady: (ready: Ready) => void) {
    this.#native = native
    this.#fd = fd
    this.#callback = (status, ready) => {
      // libuv stops by itself after an error.
      if (status < 0) this.#waitingFor = 'nothing'
      onReady(status < 0 ? EVERYTHING : ready)
    }
  }

  waitFor(what: PollFor): void {
    if (what === this.#waitingFor) return
    this.#waitingFor = what
    if (what === 'nothing') this.#handle?.stop()
    else if (this.#handle === undefined)
      this.#handle = this.#native.uvPoll(this.#fd, INTEREST[what], this.#callback)
    else this.#handle.start(INTEREST[what], this.#callback)
  }

  close(): void {
    this.#waitingFor = 'nothing'
    this.#handle?.close()
    this.#handle = undefined
  }
}

/** One instance per process: see {@link loadLibc}. All methods throw {@link SyscallError} unless they say otherwise. */
export class Libc {
  /** For what its descriptors have to do. */
  readonly round = new Round()
  readonly opens = new OpenWatch(this)
  readonly #c: Native
  readonly #int = Buffer.alloc(4)
  readonly #pollfd = Buffer.alloc(8)
  readonly #icounter = Buffer.alloc(80)
  readonly #serialStruct = Buffer.alloc(128)

  constructor(native: Native) {
    this.#c = native
  }

  /** Reads into all of `into`. Answers the count, or the negative errno: the hot path throws nothing. */
  read(fd: number, into: Uint8Array): number {
    const n = this.#c.read(fd, into, into.byteLength)
    return n < 0 ? -this.#c.errno() : n
  }

  /** Writes what the descriptor takes of `bytes`. Answers the count, or the negative errno. */
  write(fd: number, bytes: Uint8Array): number {
    const n = this.#c.write(fd, bytes, bytes.byteLength)
    return n < 0 ? -this.#c.errno() : n
  }

  /** Opens a tty or another device without waiting for it and without making it our controlling terminal. */
  open(path: string): number {
    return openSync(path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK)
  }

  close(fd: number): void {
    closeSync(fd)
  }

  poll(fd: number, onReady: (ready: Ready) => void): FdPoll {
    return new FdPoll(this.#c, fd, onReady)
  }

  termios(fd: number, into = new Termios2()): Termios2 {
    this.#ioctlBuffer('TCGETS2', fd, TCGETS2, into.bytes)
    return into
  }

  /** Takes effect at once. Neither direction loses a byte. */
  setTermios(fd: number, termios: Termios2): void {
    this.#ioctlBuffer('TCSETS2', fd, TCSETS2, termios.bytes)
  }

  /** Bits set in `mask` can no longer be changed by anyone, until unlocked. Needs CAP_SYS_ADMIN. */
  lockTermios(fd: number, mask: Termios2): void {
    this.#ioctlBuffer('TIOCSLCKTRMIOS', fd, TIOCSLCKTRMIOS, mask.bytes)
  }

  /** Throws away what was received and not read (`rx`), or written and not sent (`tx`). */
  flush(fd: number, what: 'rx' | 'tx' | 'both'): void {
    this.#ioctlValue('TCFLSH', fd, TCFLSH, FLUSH[what])
  }

  /** Bytes written and not yet sent. A PTY says 0. */
  outputQueue(fd: number): number {
    return this.#ioctlInt('TIOCOUTQ', fd, TIOCOUTQ)
  }

  /** Whether the last bit is out, beyond the driver's queue. Few drivers can tell; the others throw ENOTTY. */
  transmitterEmpty(fd: number): boolean {
    return this.#ioctlInt('TIOCSERGETLSR', fd, TIOCSERGETLSR) !== 0
  }

  /** Bytes received and not yet read. */
  inputQueue(fd: number): number {
    return this.#ioctlInt('TIOCINQ', fd, TIOCINQ)
  }

  /** The modem lines, as bits of {@link TIOCM}. A PTY has none: ENOTTY. */
  modemLines(fd: number): number {
    return this.#ioctlInt('TIOCMGET', fd, TIOCMGET)
  }

  /** All output lines at once: those in `bits` on, the others off. */
  setModemLines(fd: number, bits: number): void {
    this.#ioctlInt('TIOCMSET', fd, TIOCMSET, bits)
  }

  /** The lines in `bits` on or off, in one step; the others stay as they are. */
  switchModemLines(fd: number, bits: number, on: boolean): void {
    this.#ioctlInt(on ? 'TIOCMBIS' : 'TIOCMBIC', fd, on ? TIOCMBIS : TIOCMBIC, bits)
  }

  setBreak(fd: number, on: boolean): void {
    this.#ioctlValue(on ? 'TIOCSBRK' : 'TIOCCBRK', fd, on ? TIOCSBRK : TIOCCBRK, 0)
  }

  /** struct serial_icounter_struct: eleven ints (cts dsr rng dcd rx tx frame overrun parity brk buf_overrun), nine reserved. */
  counters(fd: number): SerialCounters {
    const c = this.#icounter
    this.#ioctlBuffer('TIOCGICOUNT', fd, TIOCGICOUNT, c)
    return {
      cts: c.readInt32LE(0),
      dsr: c.readInt32LE(4),
      ri: c.readInt32LE(8),
      dcd: c.readInt32LE(12),
      framing: c.readInt32LE(24),
      overrun: c.readInt32LE(28),
      parity: c.readInt32LE(32),
      break: c.readInt32LE(36),
      bufferOverrun: c.readInt32LE(40),
    }
  }

  /** Whether the driver hands up every byte at once instead of collecting them. */
  lowLatency(fd: number): boolean {
    this.#ioctlBuffer('TIOCGSERIAL', fd, TIOCGSERIAL, this.#serialStruct)
    return (this.#serialStruct.readInt32LE(SERIAL_STRUCT_FLAGS) & ASYNC_LOW_LATENCY) !== 0
  }

  setLowLatency(fd: number, on: boolean): void {
    const s = this.#serialStruct
    this.#ioctlBuffer('TIOCGSERIAL', fd, TIOCGSERIAL, s)
    const flags = s.readInt32LE(SERIAL_STRUCT_FLAGS)
    s.writeInt32LE(on ? flags | ASYNC_LOW_LATENCY : flags & ~ASYNC_LOW_LATENCY, SERIAL_STRUCT_FLAGS)
    this.#ioctlBuffer('TIOCSSERIAL', fd, TIOCSSERIAL, s)
  }

  /**
   * While on, the next `open` by anyone but root fails with EBUSY. On a PTY the mark outlives our `close`, so take it off.
   */
  setExclusive(fd: number, on: boolean): void {
    this.#ioctlValue(on ? 'TIOCEXCL' : 'TIOCNXCL', fd, on ? TIOCEXCL : TIOCNXCL, 0)
  }

  isExclusive(fd: number): boolean {
    return this.#ioctlInt('TIOCGEXCL', fd, TIOCGEXCL) !== 0
  }

  /** The advisory lock most serial programs take: false when another open file holds it. Freed by `close`. */
  tryLock(fd: number): boolean {
    if (this.#c.flock(fd, LOCK_EX_NB) === 0) return true
    const error = new SyscallError('flock', this.#c.errno())
    if (error.code === 'EAGAIN') return false
    throw error
  }

  /** Hangs up as a pulled cable does: every descriptor of the tty is dead from now on. Needs CAP_SYS_ADMIN. */
  hangUp(fd: number): void {
    this.#ioctlValue('TIOCVHANGUP', fd, TIOCVHANGUP, 0)
  }

  /** A new PTY: the master's descriptor, non-blocking, and the path of its slave, unlocked. */
  openPtyMaster(): { fd: number; slavePath: string } {
    const fd = this.open('/dev/ptmx')
    try {
      this.#ioctlInt('TIOCSPTLCK', fd, TIOCSPTLCK, 0)
      return { fd, slavePath: `/dev/pts/${this.#ioctlInt('TIOCGPTN', fd, TIOCGPTN)}` }
    } catch (error) {
      this.close(fd)
      throw error
    }
  }

  /** The slave of a PTY master, opened without its path, which another mount namespace may hide. Non-blocking. */
  openPtySlave(master: number): number {
    const flags = constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK | 0o2000000
    return this.#check('TIOCGPTPEER', this.#c.ioctlValue(master, TIOCGPTPEER, flags))
  }

  /** Packet mode on a PTY master: see {@link TIOCPKT_EVENT}. */
  setPacketMode(master: number, on: boolean): void {
    this.#ioctlInt('TIOCPKT', master, TIOCPKT, on ? 1 : 0)
  }

  /**
   * Whether the far side is gone: of a PTY master, nobody has the slave open; of a tty, the device was unplugged. Bytes
   * from before may still be unread.
   */
  isHungUp(fd: number): boolean {
    // struct pollfd: int fd, short events, short revents. POLLHUP needs no asking for.
    this.#pollfd.writeInt32LE(fd, 0)
    this.#pollfd.writeInt32LE(0, 4)
    this.#check('poll', this.#c.poll(this.#pollfd, 1, 0))
    return (this.#pollfd.readInt16LE(6) & POLLHUP) !== 0
  }

  /** A new inotify descriptor, non-blocking. */
  inotify(): number {
    return this.#check('inotify_init1', this.#c.inotifyInit(IN_FLAGS))
  }

  /** Watches `path` for the events in `mask` ({@link IN}). Answers the watch's number. */
  inotifyWatch(fd: number, path: string, mask: number): number {
    return this.#check('inotify_add_watch', this.#c.inotifyAddWatch(fd, path, mask))
  }

  /** The watch may have gone with its file. */
  inotifyUnwatch(fd: number, watch: number): void {
    this.#c.inotifyRmWatch(fd, watch)
  }

  #ioctlInt(name: string, fd: number, request: number, value = 0): number {
    this.#int.writeInt32LE(value)
    this.#ioctlBuffer(name, fd, request, this.#int)
    return this.#int.readInt32LE()
  }

  #ioctlValue(name: string, fd: number, request: number, value: number): void {
    this.#check(name, this.#c.ioctlValue(fd, request, value))
  }

  #ioctlBuffer(name: string, fd: number, request: number, buffer: Uint8Array): void {
    this.#check(name, this.#c.ioctlBuffer(fd, request, buffer))
  }

  #check(name: string, result: number): number {
    if (result < 0) throw new SyscallError(name, this.#c.errno())
    return result
  }
}

let loaded: Libc | undefined

/**
 * The C library of this process. Loads koffi at the first call, so that importing this module costs nothing.
 * @throws FarportError ERR_UNFIT where these calls don't exist or have other numbers.
 */
export function loadLibc(): Libc {
  loaded ??= new Libc(bind())
  return loaded
}

function bind(): Native {
  if (process.platform !== 'linux' || !ASM_GENERIC.includes(process.arch)) {
    throw new FarportError(
      'ERR_UNFIT',
      `farport's own serial and PTY layer needs Linux on ${ASM_GENERIC.join(', ')}; this is ${process.platform} on ${process.arch}.`,
    )
  }
  let koffi: typeof import('koffi')
  try {
    koffi = createRequire(import.meta.url)('koffi')
  } catch (cause) {
    throw new FarportError('ERR_UNFIT', 'The package koffi can not be loaded here; reinstall farport.', {
      cause,
    })
  }
  // The process itself rather than a file name: glibc and musl name their library differently.
  const c = koffi.load(null)
  // ioctl is variadic in C. By the ABIs above a fixed signature passes its argument the same way, and twice as fast; on
  // Apple's arm64 it would not.
  return {
    uvPoll: koffi.node.poll as unknown as Native['uvPoll'],
    read: c.func('intptr_t read(int fd, void *bytes, size_t length)'),
    write: c.func('intptr_t write(int fd, const void *bytes, size_t length)'),
    flock: c.func('int flock(int fd, int operation)'),
    inotifyInit: c.func('int inotify_init1(int flags)'),
    inotifyAddWatch: c.func('int inotify_add_watch(int fd, const char *path, uint32_t mask)'),
    inotifyRmWatch: c.func('int inotify_rm_watch(int fd, int watch)'),
    poll: c.func('int poll(void *fds, unsigned long count, int timeout)'),
    ioctlValue: c.func('ioctl', 'int', ['int', 'ulong', 'uintptr_t']),
    ioctlBuffer: c.func('ioctl', 'int', ['int', 'ulong', 'void *']),
    errno: () => koffi.errno(),
  }
}
