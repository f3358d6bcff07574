import { close as closeFd, constants, fstatSync, open as openFd, type Stats, statSync } from 'node:fs'
import { isDeepStrictEqual, promisify } from 'node:util'
import { FarportError } from '../errors.ts'
import type { InputLines, OutputLines } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'
import { isSystemError, type Libc, type SerialCounters, SyscallError, TIOCM } from './libc.ts'
import { CFLAG, Termios2 } from './termios.ts'
import { applySettings, leaveOutMarks, makeRaw, readSettings, readStopBits } from './termios-settings.ts'

/** The major numbers of Unix98 PTY slaves (Documentation/admin-guide/devices.txt). */
const PTY_SLAVE_MAJORS = { first: 136, last: 143 }

interface AsFound {
  termios: Termios2
  /** TIOCMGET; undefined where there are no modem lines. */
  modemLines: number | undefined
  /** Undefined where the driver does not know it. */
  lowLatency: boolean | undefined
  counters: SerialCounters | undefined
}

/** A tty that was opened and made ours: one device, from its appearance to its loss. Calls throw SyscallError when it is gone. */
export class Tty {
  readonly fd: number
  /** A PTY has no line: nothing to disagree with on data bits and parity, no modem lines, no errors. */
  readonly isPty: boolean
  readonly #libc: Libc
  readonly #found: AsFound
  readonly #scratch = new Termios2()

  constructor(libc: Libc, fd: number) {
    this.#libc = libc
    this.fd = fd
    this.isPty = isPtySlave(fstatSync(fd))
    this.#found = {
      termios: libc.termios(fd),
      modemLines: ifSupported(() => libc.modemLines(fd)),
      lowLatency: ifSupported(() => libc.lowLatency(fd)),
      counters: ifSupported(() => libc.counters(fd)),
    }
  }

  get hasModemLines(): boolean {
    return this.#found.modemLines !== undefined
  }

  /** DTR and RTS as the driver has them; undefined without modem lines. */
  outputs(): OutputLines | undefined {
    if (!this.hasModemLines) return undefined
    const bits = this.#libc.modemLines(this.fd)
    return { dtr: (bits & TIOCM.DTR) !== 0, rts: (bits & TIOCM.RTS) !== 0 }
  }

  /** The input lines; undefined without modem lines. */
  lines(): InputLines | undefined {
    if (!this.hasModemLines) return undefined
    const bits = this.#libc.modemLines(this.fd)
    return {
      cts: (bits & TIOCM.CTS) !== 0,
      dsr: (bits & TIOCM.DSR) !== 0,
      ri: (bits & TIOCM.RNG) !== 0,
      dcd: (bits & TIOCM.CAR) !== 0,
    }
  }

  /** What the driver has counted; undefined where it does not count. */
  counters(): SerialCounters | undefined {
    if (this.#found.counters === undefined) return undefined
    return ifSupported(() => this.#libc.counters(this.fd))
  }

  /** Raw, and `settings` as far as the device has them. Answers those in force. */
  setUp(settings: Readonly<SerialSettings>): SerialSettings {
    if (this.#found.lowLatency === false) ifSupported(() => this.#libc.setLowLatency(this.fd, true))
    const termios = this.#found.termios.copy()
    makeRaw(termios)
    leaveOutMarks(termios)
    applySettings(termios, settings, readSettings(termios))
    return this.#put(termios, settings)
  }

  /** Changes what is named. Answers the settings in force. Neither direction loses a byte, and no line moves. */
  configure(change: Partial<SerialSettings>, current: Readonly<SerialSettings>): SerialSettings {
    const termios = this.#libc.termios(this.fd)
    applySettings(termios, change, current)
    return this.#put(termios, { ...current, ...change })
  }

  /** The settings in force, where a PTY is taken to have the data bits and parity that were asked of it. */
  settings(asked: Readonly<Pick<SerialSettings, 'dataBits' | 'parity'>>): SerialSettings {
    const termios = this.#libc.termios(this.fd, this.#scratch)
    const settings = readSettings(termios)
    // pty_set_termios() clears PARENB and forces CS8, whatever was asked.
    if (!this.isPty) return settings
    const { dataBits, parity } = asked
    return { ...settings, dataBits, parity, stopBits: readStopBits(termios.cflag, dataBits) }
  }

  /** Moves the named lines in one call of the driver, so that they change together. */
  setOutputs({ dtr, rts }: Partial<OutputLines>): void {
    if (!this.hasModemLines) return
    const on = (dtr === true ? TIOCM.DTR : 0) | (rts === true ? TIOCM.RTS : 0)
    const off = (dtr === false ? TIOCM.DTR : 0) | (rts === false ? TIOCM.RTS : 0)
    ifSupported(() => {
      if (on !== 0 && off !== 0)
        this.#libc.setModemLines(this.fd, (this.#libc.modemLines(this.fd) & ~off) | on)
      else if (on !== 0) this.#libc.switchModemLines(this.fd, on, true)
      else if (off !== 0) this.#libc.switchModemLines(this.fd, off, false)
    })
  }

  /**
   * Moves lines as soon as the device is open. Opening has raised them, and Linux has no way to prevent that: without HUPCL
   * they only stay as the last program left them until then, and at speed 0 the first other speed raises them. So a line
   * that is to be low has a short pulse. These lines count as found so: `restore()` does not raise them again.
   */
  begin(outputs: Readonly<Partial<OutputLines>>): void {
    this.setOutputs(outputs)
    const { modemLines } = this.#found
    if (modemLines !== undefined) this.#found.modemLines = withOutputs(modemLines, outputs)
  }

  /** Devices that know no break (some CDC adapters, PTYs) are left alone. */
  setBreak(on: boolean): void {
    ifSupported(() => this.#libc.setBreak(this.fd, on))
  }

  flush(what: 'rx' | 'tx' | 'both'): void {
    this.#libc.flush(this.fd, what)
  }

  /** Written and not yet in the hardware. */
  queuedBytes(): number {
    return this.#libc.outputQueue(this.fd)
  }

  /** How far what was written has come: it waits in the driver, it is in the hardware, or it is on the line. */
  output(): 'queued' | 'leaving' | 'sent' {
    if (this.queuedBytes() > 0) return 'queued'
    const empty = ifSupported(() => this.#libc.transmitterEmpty(this.fd)) ?? true
    return empty ? 'sent' : 'leaving'
  }

  /**
   * Puts back what was found, as far as the device is still there, and throws away what has not left. The descriptor stays
   * open.
   */
  restore({ lines }: { lines: boolean }): void {
    const { termios, modemLines, lowLatency } = this.#found
    try {
      if (this.queuedBytes() > 0) this.flush('tx')
      // USB adapters keep it all the same, up to 4 KiB in the driver, and close(2) waits for it to leave, 30 s at most.
      const held = this.output() !== 'sent' || this.#isHeldByCts()
      // It must not leave at another speed, or because flow control is off.
      if (!held) ifSupported(() => this.#libc.setTermios(this.fd, termios))
      if (lines && modemLines !== undefined)
        this.setOutputs({ dtr: (modemLines & TIOCM.DTR) !== 0, rts: (modemLines & TIOCM.RTS) !== 0 })
      if (lowLatency === false) ifSupported(() => this.#libc.setLowLatency(this.fd, false))
      ifSupported(() => this.#libc.setExclusive(this.fd, false))
      // Root need not wait: a hang-up drops it.
      if (held) ifSupported(() => this.#libc.hangUp(this.fd))
    } catch (error) {
      if (!isSystemError(error, ...GONE)) throw error
    }
  }

  /** In the pool: closing a UART waits for bytes that flow control holds up. */
  close(): void {
    closeFd(this.fd, () => {})
  }

  /** Bytes may be held in an adapter that can't be asked about them. */
  #isHeldByCts(): boolean {
    const { cflag } = this.#libc.termios(this.fd, this.#scratch)
    return (cflag & CFLAG.CRTSCTS) !== 0 && this.lines()?.cts === false
  }

  #put(termios: Termios2, asked: Readonly<SerialSettings>): SerialSettings {
    if (!termios.equals(this.#libc.termios(this.fd, this.#scratch))) {
      try {
        this.#libc.setTermios(this.fd, termios)
      } catch (error) {
        // A driver may refuse the whole of it; what is in force then is what was before.
        if (!isSystemError(error, 'EINVAL', 'EOPNOTSUPP')) throw error
      }
    }
    return this.settings(asked)
  }
}

/** The codes of a device that is not there, or not any more. */
export const GONE = ['EIO', 'ENXIO', 'ENODEV', 'ENOENT', 'ENOTDIR', 'ELOOP']

export interface Wanted {
  settings: Readonly<SerialSettings>
  /** Lines to move; the others stay as opening leaves them. */
  outputs: Readonly<Partial<OutputLines>>
}

export interface OpenedTty {
  tty: Tty
  /** In force. */
  settings: SerialSettings
  /** Undefined without modem lines. */
  outputs: OutputLines | undefined
}

/**
 * Opens a tty for us alone, without waiting for a carrier, raw, and with what is wanted as far as it has that.
 * @throws FarportError ERR_DEVICE_ABSENT, ERR_PORT_BUSY, ERR_NO_SUCH_PORT (not a tty) or ERR_UNFIT (no permission)
 */
export async function openTty(libc: Libc, path: string, wanted: Wanted): Promise<OpenedTty> {
  let fd: number
  try {
    // In the pool: some drivers talk to their device first.
    fd = await promisify(openFd)(path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK)
  } catch (error) {
    throw openError(path, error)
  }
  try {
    // The lock first: until it is ours, nothing may be changed.
    if (!libc.tryLock(fd)) throw busy(path)
    const tty = new Tty(libc, fd)
    // Root gets past the mark of another program. On a PTY it may be left over from one that is gone.
    if (!tty.isPty && libc.isExclusive(fd)) throw busy(path)
    libc.setExclusive(fd, true)
    tty.begin(wanted.outputs)
    const settings = tty.setUp(wanted.settings)
    const outputs = tty.outputs()
    // A driver raises both lines when the speed was 0 before.
    if (outputs !== undefined && !isDeepStrictEqual(outputs, { ...outputs, ...wanted.outputs }))
      tty.setOutputs(wanted.outputs)
    return { tty, settings, outputs: tty.outputs() }
  } catch (error) {
    await promisify(closeFd)(fd)
    throw openError(path, error)
  }
}

/** Whether a path leads to a PTY, found out without opening it. */
export function isPty(path: string): boolean {
  try {
    return isPtySlave(statSync(path))
  } catch {
    return false
  }
}

function openError(path: string, cause: unknown): unknown {
  if (isSystemError(cause, ...GONE))
    return new FarportError('ERR_DEVICE_ABSENT', `${path} is not there: plug the device in.`, { cause })
  if (isSystemError(cause, 'EBUSY')) return busy(path, cause)
  if (isSystemError(cause, 'ENOTTY', 'EISDIR', 'EINVAL'))
    return new FarportError('ERR_NO_SUCH_PORT', `${path} is not a serial port.`, { cause })
  if (isSystemError(cause, 'EACCES', 'EPERM')) {
    const message = `No permission to open ${path}: the user of farport must be in the group that owns it, often dialout.`
    return new FarportError('ERR_UNFIT', message, { cause })
  }
  return cause
}

function busy(path: string, cause?: unknown): FarportError {
  return new FarportError('ERR_PORT_BUSY', `${path} is in use by another program.`, { cause })
}

function isPtySlave({ rdev }: Stats): boolean {
  // Linux encodes a device number with the major number in bits 8 to 19.
  const major = (rdev >> 8) & 0xfff
  return major >= PTY_SLAVE_MAJORS.first && major <= PTY_SLAVE_MAJORS.last
}

/** Bits of TIOCM with the named lines as they are to be. */
function withOutputs(bits: number, { dtr, rts }: Readonly<Partial<OutputLines>>): number {
  const on = (dtr === true ? TIOCM.DTR : 0) | (rts === true ? TIOCM.RTS : 0)
  const off = (dtr === false ? TIOCM.DTR : 0) | (rts === false ? TIOCM.RTS : 0)
  return (bits & ~off) | on
}

/** What a driver lacks is not an error; that the device is gone is. */
function ifSupported<T>(call: () => T): T | undefined {
  try {
    return call()
  } catch (error) {
    if (!(error instanceof SyscallError) || GONE.includes(error.code)) throw error
    return undefined
  }
}
