import type { DataBits, Parity, SerialSettings } from '../serial/settings.ts'
import { CC, CFLAG, IFLAG, LFLAG, Termios2 } from './termios.ts'

const MAX_BAUD_RATE = 0xffff_ffff
const XON = 0x11
const XOFF = 0x13

const CHARACTER_SIZE: Record<DataBits, number> = { 5: CFLAG.CS5, 6: CFLAG.CS6, 7: CFLAG.CS7, 8: CFLAG.CS8 }

const PARITY_FLAGS: Record<Parity, number> = {
  none: 0,
  odd: CFLAG.PARENB | CFLAG.PARODD,
  even: CFLAG.PARENB,
  mark: CFLAG.PARENB | CFLAG.CMSPAR | CFLAG.PARODD,
  space: CFLAG.PARENB | CFLAG.CMSPAR,
}
const ALL_PARITY = CFLAG.PARENB | CFLAG.PARODD | CFLAG.CMSPAR

/**
 * Every byte passes as it is, both ways, and a read waits for one. The modem lines do not hold up the port (CLOCAL). What a
 * hang-up does (HUPCL) stays as found.
 */
export function makeRaw(termios: Termios2): void {
  termios.iflag = IFLAG.IGNBRK
  termios.oflag = 0
  termios.lflag = 0
  termios.cflag |= CFLAG.CREAD | CFLAG.CLOCAL
  termios.cc.fill(0)
  termios.cc[CC.VMIN] = 1
  termios.cc[CC.VTIME] = 0
  termios.cc[CC.VSTART] = XON
  termios.cc[CC.VSTOP] = XOFF
}

/**
 * What is no byte of the device's stays out of the stream: serial drivers mark a break and an overrun by a zero byte. Raw
 * as above they hand it on with the rest, past IGNBRK (TTY_DRIVER_REAL_RAW in n_tty.c). BRKINT makes the kernel look at
 * the marks; its signal goes to nobody, since a port is nobody's terminal, and NOFLSH keeps it from throwing away what
 * waits. A byte with an error stays as it is. All of them are counted by the driver.
 */
export function leaveOutMarks(termios: Termios2): void {
  termios.iflag = (termios.iflag & ~IFLAG.IGNBRK) | IFLAG.BRKINT
  termios.lflag |= LFLAG.NOFLSH
}

/**
 * Puts into `termios` what `change` names, as far as a termios can say it; `current` is what is in force before. RTS/CTS is
 * one switch for both directions: turning it on or off for one does so for the other.
 */
export function applySettings(
  termios: Termios2,
  change: Partial<SerialSettings>,
  current: Readonly<SerialSettings>,
): void {
  const { baudRate, dataBits, parity, outputFlow, inputFlow } = change
  // 0 would hang up the line (B0).
  if (baudRate !== undefined && Number.isInteger(baudRate) && baudRate > 0 && baudRate <= MAX_BAUD_RATE)
    termios.setSpeed(baudRate)
  if (dataBits !== undefined) termios.cflag = (termios.cflag & ~CFLAG.CSIZE) | CHARACTER_SIZE[dataBits]
  if (parity !== undefined) termios.cflag = (termios.cflag & ~ALL_PARITY) | PARITY_FLAGS[parity]
  applyStopBits(termios, change, current)
  if (outputFlow === 'none' || outputFlow === 'xonxoff' || outputFlow === 'rtscts') {
    setFlag(termios, 'iflag', IFLAG.IXON, outputFlow === 'xonxoff')
    setFlag(termios, 'cflag', CFLAG.CRTSCTS, outputFlow === 'rtscts')
  }
  if (inputFlow === 'none' || inputFlow === 'xonxoff' || inputFlow === 'rtscts') {
    setFlag(termios, 'iflag', IFLAG.IXOFF, inputFlow === 'xonxoff')
    if (inputFlow === 'rtscts') setFlag(termios, 'cflag', CFLAG.CRTSCTS, true)
    else if (outputFlow !== 'rtscts') setFlag(termios, 'cflag', CFLAG.CRTSCTS, false)
  }
}

/** What `change` makes of `current` on a device that can do everything a termios can say. */
export function changedSettings(
  change: Partial<SerialSettings>,
  current: Readonly<SerialSettings>,
): SerialSettings {
  const termios = new Termios2()
  applySettings(termios, current, current)
  applySettings(termios, change, current)
  return readSettings(termios)
}

/** What a termios says, in our words. */
export function readSettings(termios: Termios2): SerialSettings {
  const { cflag, iflag, ospeed } = termios
  const dataBits = (5 + ((cflag & CFLAG.CSIZE) >> 4)) as DataBits
  const rtscts = (cflag & CFLAG.CRTSCTS) !== 0
  return {
    baudRate: ospeed,
    dataBits,
    parity: readParity(cflag),
    stopBits: readStopBits(cflag, dataBits),
    outputFlow: rtscts ? 'rtscts' : iflag & IFLAG.IXON ? 'xonxoff' : 'none',
    inputFlow: iflag & IFLAG.IXOFF ? 'xonxoff' : rtscts ? 'rtscts' : 'none',
  }
}

/** CSTOPB is the longer stop bit: 1.5 with five data bits, as a 16450 does it, and 2 with more. */
export function readStopBits(cflag: number, dataBits: DataBits): 1 | 1.5 | 2 {
  if ((cflag & CFLAG.CSTOPB) === 0) return 1
  return dataBits === 5 ? 1.5 : 2
}

function applyStopBits(
  termios: Termios2,
  change: Partial<SerialSettings>,
  current: Readonly<SerialSettings>,
): void {
  const dataBits = change.dataBits ?? current.dataBits
  switch (change.stopBits) {
    case undefined:
      return
    case 1:
      setFlag(termios, 'cflag', CFLAG.CSTOPB, false)
      return
    case 2:
      setFlag(termios, 'cflag', CFLAG.CSTOPB, true)
      return
    case 1.5:
      if (dataBits === 5) setFlag(termios, 'cflag', CFLAG.CSTOPB, true)
      return
  }
}

function readParity(cflag: number): Parity {
  if ((cflag & CFLAG.PARENB) === 0) return 'none'
  const odd = (cflag & CFLAG.PARODD) !== 0
  if (cflag & CFLAG.CMSPAR) return odd ? 'mark' : 'space'
  return odd ? 'odd' : 'even'
}

function setFlag(termios: Termios2, word: 'iflag' | 'cflag', flag: number, on: boolean): void {
  termios[word] = on ? termios[word] | flag : termios[word] & ~flag
}
