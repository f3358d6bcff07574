import { FdDuplex } from '../../src/device/fd-duplex.ts'
import { type Libc, loadLibc } from '../../src/device/libc.ts'
import { CC, CFLAG, type Termios2 } from '../../src/device/termios.ts'

/** A PTY for tests: programs under test open `slavePath`, the test plays what is at the other end. */
export interface PtyPair extends AsyncDisposable {
  readonly slavePath: string
  /** The other end of the line, raw: reads what the slave's programs write. Destroying it is pulling the cable. */
  readonly master: FdDuplex
  /** The termios of the slave as they are now. */
  termios(): Termios2
  /** Changes them as another program with the same tty would. */
  setTermios(change: (termios: Termios2) => void): void
}

/** A new raw PTY. The slave is held open, so that programs may come and go without a hang-up of the master. */
export function ptyPair({ libc = loadLibc(), hold = true }: { libc?: Libc; hold?: boolean } = {}): PtyPair {
  const { fd, slavePath } = libc.openPtyMaster()
  let slave = hold ? libc.openPtySlave(fd) : undefined
  const raw = libc.termios(fd)
  raw.iflag = 0
  raw.oflag = 0
  raw.lflag = 0
  raw.cflag = CFLAG.CS8 | CFLAG.CREAD | CFLAG.CLOCAL | CFLAG.HUPCL
  raw.setSpeed(9600)
  raw.cc[CC.VMIN] = 1
  raw.cc[CC.VTIME] = 0
  libc.setTermios(fd, raw)
  const master = new FdDuplex(libc, { fd })
  return {
    slavePath,
    master,
    termios: () => libc.termios(fd),
    setTermios(change) {
      const termios = libc.termios(fd)
      change(termios)
      libc.setTermios(fd, termios)
    },
    async [Symbol.asyncDispose]() {
      if (slave !== undefined) libc.close(slave)
      slave = undefined
      await master[Symbol.asyncDispose]()
    },
  }
}
