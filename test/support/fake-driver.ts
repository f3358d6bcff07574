import type { Libc, SerialCounters } from '../../src/device/libc.ts'
import { SyscallError } from '../../src/device/libc.ts'

/** What a PTY lacks of a serial driver: modem lines, counts and a break. The rest of `libc` is the real one. */
export class FakeDriver {
  /** As bits of TIOCM. */
  modemLines: number
  counters: SerialCounters | undefined = {
    cts: 0,
    dsr: 0,
    ri: 0,
    dcd: 0,
    framing: 0,
    overrun: 0,
    parity: 0,
    break: 0,
    bufferOverrun: 0,
  }
  lowLatency = false
  unsent = 0
  /** As the drivers of USB adapters, which throw nothing away. */
  ignoresFlush = false
  /** Root may. */
  mayHangUp = true
  /** What the hardware says of its transmitter; undefined for a driver that can't ask it. */
  transmitterEmpty: boolean | undefined = undefined
  /** The calls that change something, in order. */
  readonly calls: string[] = []
  readonly libc: Libc

  constructor(libc: Libc, modemLines: number) {
    this.modemLines = modemLines
    const { calls } = this
    const driver = this
    const override: Partial<Libc> = {
      modemLines: () => driver.modemLines,
      setModemLines(_fd, bits) {
        calls.push(`TIOCMSET ${bits}`)
        driver.modemLines = bits
      },
      switchModemLines(_fd, bits, on) {
        calls.push(`${on ? 'TIOCMBIS' : 'TIOCMBIC'} ${bits}`)
        driver.modemLines = on ? driver.modemLines | bits : driver.modemLines & ~bits
      },
      setBreak: (_fd, on) => calls.push(on ? 'TIOCSBRK' : 'TIOCCBRK'),
      counters() {
        if (driver.counters === undefined) throw new SyscallError('TIOCGICOUNT', 25)
        return { ...driver.counters }
      },
      lowLatency: () => driver.lowLatency,
      setLowLatency(_fd, on) {
        calls.push(`low latency ${on}`)
        driver.lowLatency = on
      },
      setExclusive(fd, on) {
        calls.push(on ? 'TIOCEXCL' : 'TIOCNXCL')
        libc.setExclusive(fd, on)
      },
      outputQueue: () => driver.unsent,
      transmitterEmpty(fd) {
        return driver.transmitterEmpty ?? libc.transmitterEmpty(fd)
      },
      flush(fd, what) {
        calls.push(`flush ${what}`)
        libc.flush(fd, what)
        if (what !== 'rx' && !driver.ignoresFlush) driver.unsent = 0
      },
      hangUp() {
        calls.push('TIOCVHANGUP')
        if (!driver.mayHangUp) throw new SyscallError('TIOCVHANGUP', 1)
        driver.unsent = 0
      },
    }
    this.libc = overriding(libc, override)
  }
}

/** `libc` with some calls replaced. */
export function overriding(libc: Libc, override: Partial<Libc>): Libc {
  return new Proxy(libc, {
    get(target, name) {
      const replaced = Reflect.get(override, name)
      if (replaced !== undefined) return replaced
      const real = Reflect.get(target, name)
      return typeof real === 'function' ? real.bind(target) : real
    },
  })
}
