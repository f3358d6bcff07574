import { CFLAG, LFLAG, type Termios2 } from '../device/termios.ts'
import { applySettings, makeRaw, readSettings } from '../device/termios-settings.ts'
import type { Parity, SerialSettings } from '../serial/settings.ts'

/**
 * What the termios of a PTY tell its master. Linux clears PARENB and forces CS8 (drivers/tty/pty.c, pty_set_termios), so
 * data bits and even parity never show. PARODD and CMSPAR stay, and tell of odd, mark and space parity.
 */
export interface ProgramLine {
  /** What a program asks for. `parity` only where it shows; never `dataBits`. */
  readonly settings: Readonly<Partial<SerialSettings>>
  /** Speed B0: the modem lines are to be dropped until there is a speed again. */
  readonly hungUp: boolean
  /** HUPCL: the modem lines are to be dropped at the last close. */
  readonly hangUpOnClose: boolean
}

export function programLine(termios: Termios2): ProgramLine {
  const { baudRate, stopBits, outputFlow, inputFlow } = readSettings(termios)
  const parity = visibleParity(termios.cflag)
  const asked = !isNew(termios)
  return {
    settings: {
      ...(baudRate > 0 && asked && { baudRate }),
      ...(parity && { parity }),
      ...((stopBits !== 1 || asked) && { stopBits }),
      ...((outputFlow !== 'none' || asked) && { outputFlow }),
      ...((inputFlow !== 'none' || asked) && { inputFlow }),
    },
    hungUp: baudRate === 0,
    hangUpOnClose: (termios.cflag & CFLAG.HUPCL) !== 0,
  }
}

/** Shows programs `settings` as far as a PTY can, so that one which only looks sees the truth. */
export function showSettings(termios: Termios2, settings: Readonly<SerialSettings>): void {
  applySettings(termios, settings, settings)
  showSpeed(termios, settings.baudRate)
  // As the kernel will: what we set is compared with what it says afterwards.
  termios.cflag = (termios.cflag & ~(CFLAG.CSIZE | CFLAG.PARENB)) | CFLAG.CS8
}

/**
 * The speed of a PTY before the port behind it has ever been open: B134, which nobody sets. Programs that only want raw
 * mode write back the line they found; so it is told apart from a line that was asked for.
 */
const SPEED_NOT_KNOWN = 134

export function isNew(termios: Termios2): boolean {
  return termios.ospeed === SPEED_NOT_KNOWN
}

/** The state of a new PTY. */
export function makeNew(termios: Termios2): void {
  makeRaw(termios)
  termios.cflag |= CFLAG.HUPCL
  showSpeed(termios, SPEED_NOT_KNOWN)
  setIdle(termios)
}

/**
 * How the next program is to find the local modes. EXTPROC: the master is told of every change of termios, and the kernel
 * does no line editing and no echo. ISIG does nothing beside it, and every program that wants a serial line clears it:
 * glibc on Debian fails a tcsetattr() whose only visible effect would have been the parity that a PTY drops, and so there
 * always is another effect.
 */
export function setIdle(termios: Termios2): void {
  termios.lflag = LFLAG.EXTPROC | LFLAG.ISIG
}

function visibleParity(cflag: number): Parity | undefined {
  const odd = (cflag & CFLAG.PARODD) !== 0
  if (cflag & CFLAG.CMSPAR) return odd ? 'mark' : 'space'
  return odd ? 'odd' : undefined
}

/** The speeds with a constant of their own, in the order of their codes: B0 to B38400, then B57600 to B4000000. */
const SPEEDS = [0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400]
const EXTENDED_SPEEDS = [
  57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000, 2500000, 3000000,
  3500000, 4000000,
]

/** By its constant where it has one: what is set as BOTHER, programs read as no speed at all. */
function showSpeed(termios: Termios2, bitsPerSecond: number): void {
  termios.setSpeed(bitsPerSecond)
  const code = SPEEDS.indexOf(bitsPerSecond)
  const extended = EXTENDED_SPEEDS.indexOf(bitsPerSecond)
  if (code !== -1) termios.cflag = (termios.cflag & ~CFLAG.CBAUD) | code
  else if (extended !== -1) termios.cflag = (termios.cflag & ~CFLAG.CBAUD) | CFLAG.BOTHER | (extended + 1)
}
