/**
 * Linux's struct termios2 (include/uapi/asm-generic/termbits.h), 44 bytes, little endian:
 *
 *     0  u32 c_iflag    4  u32 c_oflag    8  u32 c_cflag    12  u32 c_lflag
 *    16  u8  c_line    17  u8  c_cc[19]  36  u32 c_ispeed   40  u32 c_ospeed
 *
 * The kernel's own struct rather than the C library's: it takes any speed (BOTHER), and Debian's tcsetattr() refuses
 * a parity that a PTY then does not keep. Its first 36 bytes are struct termios, as TIOCSLCKTRMIOS takes it.
 */
export class Termios2 {
  readonly bytes: Buffer

  constructor(bytes = Buffer.alloc(44)) {
    this.bytes = bytes
  }

  get iflag(): number {
    return this.bytes.readUInt32LE(0)
  }
  set iflag(flags: number) {
    this.bytes.writeUInt32LE(flags >>> 0, 0)
  }

  get oflag(): number {
    return this.bytes.readUInt32LE(4)
  }
  set oflag(flags: number) {
    this.bytes.writeUInt32LE(flags >>> 0, 4)
  }

  get cflag(): number {
    return this.bytes.readUInt32LE(8)
  }
  set cflag(flags: number) {
    this.bytes.writeUInt32LE(flags >>> 0, 8)
  }

  get lflag(): number {
    return this.bytes.readUInt32LE(12)
  }
  set lflag(flags: number) {
    this.bytes.writeUInt32LE(flags >>> 0, 12)
  }

  /** The control characters, indexed by {@link CC}. A view: writing to it changes this termios. */
  get cc(): Uint8Array {
    return this.bytes.subarray(17, 36)
  }

  get ispeed(): number {
    return this.bytes.readUInt32LE(36)
  }

  /** Bits per second. 0 is a hang-up, B0. */
  get ospeed(): number {
    return this.bytes.readUInt32LE(40)
  }

  /** One speed for both directions, exactly as asked. */
  setSpeed(bitsPerSecond: number): void {
    this.cflag = (this.cflag & ~(CFLAG.CBAUD | CFLAG.CIBAUD)) | CFLAG.BOTHER
    this.bytes.writeUInt32LE(bitsPerSecond, 36)
    this.bytes.writeUInt32LE(bitsPerSecond, 40)
  }

  copy(): Termios2 {
    return new Termios2(Buffer.from(this.bytes))
  }

  equals(other: Termios2): boolean {
    return this.bytes.equals(other.bytes)
  }
}

export const IFLAG = {
  IGNBRK: 0o1,
  BRKINT: 0o2,
  IGNPAR: 0o4,
  PARMRK: 0o10,
  INPCK: 0o20,
  ISTRIP: 0o40,
  INLCR: 0o100,
  IGNCR: 0o200,
  ICRNL: 0o400,
  IUCLC: 0o1000,
  IXON: 0o2000,
  IXANY: 0o4000,
  IXOFF: 0o10000,
} as const

export const CFLAG = {
  CSIZE: 0o60,
  CS5: 0o0,
  CS6: 0o20,
  CS7: 0o40,
  CS8: 0o60,
  CSTOPB: 0o100,
  CREAD: 0o200,
  PARENB: 0o400,
  PARODD: 0o1000,
  HUPCL: 0o2000,
  CLOCAL: 0o4000,
  /** The speed is the number in ispeed and ospeed. */
  BOTHER: 0o10000,
  CBAUD: 0o10017,
  CIBAUD: 0o2003600000,
  /** With PARENB: mark (PARODD) or space instead of odd or even. */
  CMSPAR: 0o10000000000,
  CRTSCTS: 0o20000000000,
} as const

export const LFLAG = {
  ISIG: 0o1,
  ICANON: 0o2,
  ECHO: 0o10,
  ECHONL: 0o100,
  NOFLSH: 0o200,
  IEXTEN: 0o100000,
  /** The far side of a PTY does the line editing; with it the master is told of changes to termios. */
  EXTPROC: 0o200000,
} as const

/** Where each control character sits in `cc`. */
export const CC = { VTIME: 5, VMIN: 6, VSTART: 8, VSTOP: 9 } as const
