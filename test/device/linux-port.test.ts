import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay, setImmediate as round } from 'node:timers/promises'
import { pino } from 'pino'
import { isSystemError, loadLibc, SyscallError, TIOCM } from '../../src/device/libc.ts'
import { type LinuxPortOptions, linuxPort } from '../../src/device/linux-port.ts'
import { CC, CFLAG, IFLAG, LFLAG } from '../../src/device/termios.ts'
import { readSettings } from '../../src/device/termios-settings.ts'
import { FarportError } from '../../src/errors.ts'
import type { SerialPort } from '../../src/serial/port.ts'
import type { SerialSettings } from '../../src/serial/settings.ts'
import { type Device, type Rig, serialPortCompliance } from '../compliance/serial-port.ts'
import { FakeDriver, overriding } from '../support/fake-driver.ts'
import { type PtyPair, ptyPair } from '../support/pty-pair.ts'
import { until } from '../support/until.ts'

const limits = { timeout: 10_000 }
const libc = loadLibc()

/** A PTY behind a name that stays, as udev keeps a by-id link. */
class Plug implements AsyncDisposable {
  readonly #directory: string
  pair: PtyPair

  constructor(directory: string, pair: PtyPair) {
    this.#directory = directory
    this.pair = pair
  }

  static async create(): Promise<Plug> {
    const plug = new Plug(await mkdtemp(join(tmpdir(), 'farport-tty-')), ptyPair())
    await plug.#link()
    return plug
  }

  get path(): string {
    return join(this.#directory, 'device')
  }

  async pull(): Promise<void> {
    await rm(this.path)
    await this.pair[Symbol.asyncDispose]()
  }

  async plugIn(): Promise<void> {
    this.pair = ptyPair()
    await this.#link()
  }

  async #link(): Promise<void> {
    await symlink(this.pair.slavePath, `${this.path}.new`)
    await rename(`${this.path}.new`, this.path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pair[Symbol.asyncDispose]()
    await rm(this.#directory, { recursive: true, force: true })
  }
}

async function rig(): Promise<Rig> {
  const plug = await Plug.create()
  const port = await linuxPort(plug.path).open({})
  const device: Device = {
    get stream() {
      return plug.pair.master
    },
    force: () => assert.fail('a PTY has no input lines'),
    outputs: [],
    breaks: [],
    sendBreak: () => assert.fail('a PTY has no break'),
    settings: () => readSettings(plug.pair.termios()),
    unplug: () => plug.pull(),
    replug: () => plug.plugIn(),
  }
  return {
    port,
    device,
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      await plug[Symbol.asyncDispose]()
    },
  }
}

serialPortCompliance('Linux tty', rig, {
  settings: {
    stopBits: [1, 2],
    outputFlow: ['none', 'xonxoff', 'rtscts'],
    inputFlow: ['none', 'xonxoff', 'rtscts'],
  },
  observableSettings: ['baudRate', 'stopBits', 'outputFlow', 'inputFlow'],
  coupledFlow: true,
  outputLines: false,
  inputLines: [],
  breakOut: false,
  breakIn: false,
})

// ---- settings, as the driver has them

test('opens raw at any speed, and puts everything back when it closes', limits, async () => {
  await using pair = ptyPair()
  pair.setTermios((termios) => {
    termios.lflag = LFLAG.ICANON | LFLAG.ECHO | LFLAG.ISIG
    termios.iflag = IFLAG.ICRNL | IFLAG.ISTRIP
    termios.oflag = 1
    termios.cc[CC.VMIN] = 0
    termios.setSpeed(300)
  })
  const found = pair.termios()
  await using port = await linuxPort(pair.slavePath).open({ settings: { baudRate: 123456, stopBits: 2 } })
  const termios = pair.termios()
  assert.equal(termios.ospeed, 123456)
  assert.equal(termios.ispeed, 123456)
  assert.equal(termios.cflag & CFLAG.CSTOPB, CFLAG.CSTOPB)
  assert.equal(termios.cflag & (CFLAG.CLOCAL | CFLAG.CREAD), CFLAG.CLOCAL | CFLAG.CREAD)
  // A break and an overrun put no byte into the stream, and throw none away.
  assert.deepEqual([termios.lflag, termios.oflag, termios.iflag], [LFLAG.NOFLSH, 0, IFLAG.BRKINT])
  assert.equal(termios.cc[CC.VMIN], 1)
  await port[Symbol.asyncDispose]()
  assert.deepEqual(pair.termios().bytes, found.bytes)
})

test('starts at 9600 8N1 when nobody says otherwise', limits, async () => {
  await using pair = ptyPair()
  pair.setTermios((termios) => termios.setSpeed(115200))
  await using port = await linuxPort(pair.slavePath).open({})
  assert.equal(port.settings.baudRate, 9600)
  assert.equal(pair.termios().ospeed, 9600)
})

test(
  'a PTY has the data bits and parity that were asked of it, so that 7E1 can be opened',
  limits,
  async () => {
    await using pair = ptyPair()
    await using port = await linuxPort(pair.slavePath).open({ settings: { dataBits: 7, parity: 'even' } })
    assert.equal(port.settings.dataBits, 7)
    assert.equal(port.settings.parity, 'even')
    const answer = await port.configure({ dataBits: 5, stopBits: 1.5 })
    assert.deepEqual([answer.dataBits, answer.parity, answer.stopBits], [5, 'even', 1.5])
  },
)

test('a driver that refuses settings keeps the ones in force', limits, async () => {
  await using pair = ptyPair()
  let refuse = false
  const stubborn = overriding(libc, {
    setTermios(fd, termios) {
      if (refuse) throw new SyscallError('TCSETS2', 22)
      libc.setTermios(fd, termios)
    },
  })
  await using port = await linuxPort(pair.slavePath, { libc: stubborn }).open({})
  refuse = true
  assert.equal((await port.configure({ baudRate: 115200 })).baudRate, 9600)
})

test('tells of settings that another program changed', limits, async () => {
  await using pair = ptyPair()
  await using port = await linuxPort(pair.slavePath).open({})
  const event = once(port, 'settings') as Promise<[SerialSettings]>
  pair.setTermios((termios) => termios.setSpeed(57600))
  assert.equal((await event)[0].baudRate, 57600)
  assert.equal(port.settings.baudRate, 57600)
})

// ---- who may have it

test('a device that is not there, or no serial port, is refused by name', limits, async () => {
  await assert.rejects(linuxPort('/dev/ttyNONE7').open({}), { code: 'ERR_DEVICE_ABSENT' })
  await assert.rejects(linuxPort('/dev/null').open({}), { code: 'ERR_NO_SUCH_PORT' })
  assert.equal(await linuxPort('/dev/ttyNONE7').present(), false)
  assert.equal(await linuxPort('/dev/null').present(), true)
})

test('a port can be open once, and is free again after', limits, async () => {
  await using pair = ptyPair()
  const source = linuxPort(pair.slavePath)
  await using port = await source.open({})
  await assert.rejects(source.open({}), (error) => {
    assert.ok(error instanceof FarportError)
    assert.equal(error.code, 'ERR_PORT_BUSY')
    assert.match(error.message, /this process/)
    return true
  })
  port.write('still works')
  assert.equal(String((await once(pair.master, 'data'))[0]), 'still works')
  await port[Symbol.asyncDispose]()
  await (await source.open({}))[Symbol.asyncDispose]()
})

test('is closed to other programs while open', limits, async () => {
  await using rig = await withLines()
  assert.ok(rig.driver.calls.includes('TIOCEXCL'))
  await rig[Symbol.asyncDispose]()
  assert.equal(rig.driver.calls.at(-1), 'TIOCNXCL')
})

test('names the program that holds a port', limits, async () => {
  await using pair = ptyPair()
  const fd = libc.open(pair.slavePath)
  assert.equal(libc.tryLock(fd), true)
  const holder = spawn('sleep', ['60'], { stdio: [fd, 'ignore', 'ignore'] })
  await once(holder, 'spawn')
  libc.close(fd)
  try {
    await assert.rejects(linuxPort(pair.slavePath).open({}), {
      code: 'ERR_PORT_BUSY',
      message: `${pair.slavePath} is in use by sleep (process ${holder.pid}): end that program.`,
    })
  } finally {
    holder.kill()
    await once(holder, 'exit')
  }
})

test('an aborted open leaves nothing open', limits, async () => {
  await using pair = ptyPair()
  const before = await readdir('/proc/self/fd')
  const controller = new AbortController()
  const opening = linuxPort(pair.slavePath).open({ signal: controller.signal })
  controller.abort()
  await assert.rejects(opening, { name: 'AbortError' })
  assert.equal((await readdir('/proc/self/fd')).length, before.length)
})

// ---- unplugged

test('comes back on another device with its settings, and sends what was held', limits, async () => {
  await using plug = await Plug.create()
  await using port = await linuxPort(plug.path).open({ settings: { baudRate: 19200, stopBits: 2 } })
  await port.configure({ outputFlow: 'xonxoff' })
  const away = once(port, 'state')
  await plug.pull()
  await away
  const written = new Promise((resolve) => port.write('held', resolve))
  assert.equal((await port.configure({ baudRate: 38400 })).baudRate, 38400)
  assert.equal((await port.configure({ baudRate: 0, stopBits: 1.5 })).baudRate, 38400)
  await plug.plugIn()
  await once(port, 'state')
  await written
  assert.equal(String((await once(plug.pair.master, 'data'))[0]), 'held')
  const { baudRate, stopBits, outputFlow } = readSettings(plug.pair.termios())
  assert.deepEqual([baudRate, stopBits, outputFlow], [38400, 2, 'xonxoff'])
})

test('tells of settings that the device which comes back can not have', limits, async () => {
  await using plug = await Plug.create()
  let slow = false
  const adapter = overriding(libc, {
    setTermios(fd, termios) {
      if (slow) termios.setSpeed(9600)
      libc.setTermios(fd, termios)
    },
  })
  await using port = await linuxPort(plug.path, { libc: adapter }).open({ settings: { baudRate: 921_600 } })
  const away = once(port, 'state')
  await plug.pull()
  await away
  slow = true
  const told = once(port, 'settings') as Promise<[SerialSettings]>
  await plug.plugIn()
  assert.equal((await told)[0].baudRate, 9600)
})

test(
  'a device that is hung up, as by a pulled USB cable, is opened again when it is there',
  limits,
  async (t) => {
    await using pair = ptyPair()
    await using port = await linuxPort(pair.slavePath).open({ settings: { baudRate: 1200 } })
    const states: string[] = []
    port.on('state', (state) => states.push(state))
    // Nobody reads: it must be noticed all the same.
    const fd = libc.open(pair.slavePath)
    try {
      libc.hangUp(fd)
    } catch (error) {
      if (isSystemError(error, 'EPERM')) return t.skip('hanging up needs root')
      throw error
    } finally {
      libc.close(fd)
    }
    await once(port, 'state')
    await once(port, 'state')
    assert.deepEqual(states, ['absent', 'open'])
    assert.equal(pair.termios().ospeed, 1200)
    pair.master.write('back')
    assert.equal(String((await once(port, 'data'))[0]), 'back')
  },
)

test('gives the lines that were set to the device that comes back', limits, async () => {
  await using plug = await Plug.create()
  const { DTR, RTS } = TIOCM
  const driver = new FakeDriver(libc, DTR | RTS)
  await using port = await linuxPort(plug.path, { libc: driver.libc }).open({})
  await port.setLines({ dtr: false })
  const away = once(port, 'state')
  await plug.pull()
  await away
  assert.deepEqual(await port.setLines({ rts: false }), { dtr: false, rts: false })
  driver.modemLines = DTR | RTS
  await plug.plugIn()
  await once(port, 'state')
  assert.equal(driver.modemLines, 0)
  assert.deepEqual(port.outputs, { dtr: false, rts: false })
})

test('what is asked for while the device is being opened again is not lost', limits, async () => {
  await using plug = await Plug.create()
  const driver = new FakeDriver(libc, TIOCM.DTR | TIOCM.RTS)
  let whileOpening = async (): Promise<void> => {}
  const slow = overriding(driver.libc, {
    tryLock(fd) {
      queueMicrotask(() => void whileOpening())
      return libc.tryLock(fd)
    },
  })
  await using port = await linuxPort(plug.path, { libc: slow }).open({})
  const away = once(port, 'state')
  await plug.pull()
  await away
  whileOpening = async () => {
    await port.configure({ baudRate: 57600 })
    await port.setLines({ rts: false })
  }
  await plug.plugIn()
  await once(port, 'state')
  assert.equal(plug.pair.termios().ospeed, 57600)
  assert.equal(driver.modemLines, TIOCM.DTR)
})

test('open and close, pull and plug leave no descriptor', limits, async () => {
  const count = async () => (await readdir('/proc/self/fd')).length
  const before = await count()
  for (let i = 0; i < 3; i++) {
    await using plug = await Plug.create()
    await using port = await linuxPort(plug.path).open({})
    port.on('lines', () => {})
    const away = once(port, 'state')
    await plug.pull()
    await away
    if (i === 0) continue
    await plug.plugIn()
    await once(port, 'state')
  }
  // A lost device is closed in the pool.
  const deadline = performance.now() + 2000
  while ((await count()) !== before && performance.now() < deadline) await delay(5)
  assert.equal(await count(), before)
})

// ---- lines, played by a driver that a PTY has not

/** A port whose driver has modem lines: DTR and RTS up, as opening raises them. */
async function withLines(options: LinuxPortOptions = {}, modemLines: number = TIOCM.DTR | TIOCM.RTS) {
  const pair: PtyPair = ptyPair()
  const driver = new FakeDriver(libc, modemLines)
  const port: SerialPort = await linuxPort(pair.slavePath, { ...options, libc: driver.libc }).open({})
  return {
    port,
    driver,
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      await pair[Symbol.asyncDispose]()
    },
  }
}

test('lines named together move in one call of the driver', limits, async () => {
  await using rig = await withLines()
  const { port, driver } = rig
  assert.equal(port.description.modemLines, true)
  assert.deepEqual(port.outputs, { dtr: true, rts: true })
  driver.calls.length = 0
  assert.deepEqual(await port.setLines({ dtr: false, rts: false }), { dtr: false, rts: false })
  assert.deepEqual(await port.setLines({ dtr: true }), { dtr: true, rts: false })
  assert.deepEqual(await port.setLines({ dtr: false, rts: true }), { dtr: false, rts: true })
  const { DTR, RTS } = TIOCM
  assert.deepEqual(driver.calls, [`TIOCMBIC ${DTR | RTS}`, `TIOCMBIS ${DTR}`, `TIOCMSET ${RTS}`])
})

test('input lines come as events, short pulses and errors with their counts', limits, async () => {
  await using rig = await withLines()
  const { port, driver } = rig
  let event = once(port, 'lines')
  driver.modemLines |= TIOCM.CTS
  assert.deepEqual(await event, [
    { cts: true, dsr: false, ri: false, dcd: false },
    { cts: 1, dsr: 0, ri: 0, dcd: 0 },
  ])
  event = once(port, 'lines')
  if (driver.counters) driver.counters.ri += 1
  assert.deepEqual(await event, [
    { cts: true, dsr: false, ri: false, dcd: false },
    { cts: 0, dsr: 0, ri: 2, dcd: 0 },
  ])
  const errors = once(port, 'lineErrors')
  if (driver.counters)
    driver.counters = { ...driver.counters, framing: 2, overrun: 1, bufferOverrun: 1, break: 1 }
  assert.deepEqual(await errors, [{ framing: 2, parity: 0, overrun: 2, break: 1 }])
})

test('a driver that counts nothing still tells of levels', limits, async () => {
  await using rig = await withLines()
  const { port, driver } = rig
  driver.counters = undefined
  const event = once(port, 'lines')
  driver.modemLines |= TIOCM.CAR
  assert.deepEqual((await event)[1], { cts: 0, dsr: 0, ri: 0, dcd: 1 })
})

test('lines are looked at only while somebody listens', limits, async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  await using rig = await withLines()
  const { port, driver } = rig
  driver.modemLines |= TIOCM.DSR
  assert.equal(port.lines.dsr, true)
  const listener = () => {}
  port.on('lines', listener)
  let looks = 0
  const { counters } = driver
  Object.defineProperty(driver, 'counters', {
    get() {
      looks++
      return counters
    },
  })
  t.mock.timers.tick(30)
  assert.ok(looks >= 1)
  port.off('lines', listener)
  looks = 0
  t.mock.timers.tick(1000)
  assert.equal(looks, 0)
})

test('closing puts the lines back as found, unless told to leave them', limits, async () => {
  for (const restoreLines of [true, false]) {
    await using rig = await withLines({ restoreLines }, TIOCM.RTS)
    await rig.port.setLines({ dtr: true, rts: false })
    await rig[Symbol.asyncDispose]()
    const outputs = rig.driver.modemLines & (TIOCM.DTR | TIOCM.RTS)
    assert.equal(outputs, restoreLines ? TIOCM.RTS : TIOCM.DTR)
  }
})

test('asks the driver for low latency, and takes that back', limits, async () => {
  await using rig = await withLines()
  assert.equal(rig.driver.lowLatency, true)
  await rig[Symbol.asyncDispose]()
  assert.equal(rig.driver.lowLatency, false)
})

test('drain waits until the driver has sent everything; closing throws the rest away', limits, async () => {
  await using rig = await withLines()
  rig.driver.unsent = 100
  let drained = false
  const drain = rig.port.drain().then(() => {
    drained = true
  })
  for (let i = 0; i < 20; i++) await round()
  assert.equal(drained, false)
  rig.driver.unsent = 0
  await drain
  rig.driver.unsent = 100
  const stuck = rig.port.drain()
  const rejected = assert.rejects(stuck, { code: 'ERR_DEVICE_ABSENT' })
  await rig[Symbol.asyncDispose]()
  await rejected
  assert.ok(rig.driver.calls.includes('flush tx'))
})

test(
  'drain does not wait for a transmitter that never says it is empty, unless flow control may hold it',
  limits,
  async () => {
    await using rig = await withLines()
    rig.driver.transmitterEmpty = false
    await rig.port.configure({ baudRate: 115_200 })
    await rig.port.drain()

    await rig.port.configure({ outputFlow: 'rtscts' })
    // Twice as long as it took before.
    await assert.rejects(rig.port.drain({ signal: AbortSignal.timeout(200) }), { name: 'TimeoutError' })
    rig.driver.transmitterEmpty = true
    await rig.port.drain()
  },
)

test(
  'what an adapter does not throw away leaves at no other settings when the port closes',
  limits,
  async () => {
    for (const mayHangUp of [true, false]) {
      await using pair = ptyPair()
      const found = pair.termios()
      const driver = new FakeDriver(libc, TIOCM.DTR | TIOCM.RTS)
      Object.assign(driver, { ignoresFlush: true, mayHangUp })
      const settings = { baudRate: 57600, outputFlow: 'rtscts', inputFlow: 'rtscts' } as const
      const port = await linuxPort(pair.slavePath, { libc: driver.libc }).open({ settings })
      driver.unsent = 4096
      await port[Symbol.asyncDispose]()
      assert.equal(pair.termios().ospeed, 57600)
      assert.equal(readSettings(pair.termios()).outputFlow, 'rtscts')
      assert.notEqual(found.ospeed, 57600)
      assert.deepEqual(driver.calls.slice(-2), ['TIOCNXCL', 'TIOCVHANGUP'])
    }
  },
)

test('end() gives up on what never leaves, and not on what leaves slowly', limits, async (t) => {
  await using rig = await withLines()
  const { port, driver } = rig
  await port.configure({ outputFlow: 'rtscts' })
  driver.unsent = 4096
  let nowMs = performance.now()
  t.mock.method(performance, 'now', () => nowMs)
  port.end('x')
  for (let i = 0; i < 3; i++) {
    await delay(150)
    nowMs += 4000
    driver.unsent -= 256
  }
  await delay(150)
  assert.equal(port.destroyed, false)
  const closed = once(port, 'close')
  nowMs += 6000
  await closed
})

test('a device that goes while it is asked is absent, not an error', limits, async () => {
  await using pair = ptyPair()
  let gone = false
  const driver = new FakeDriver(libc, 0)
  const unplugging = overriding(driver.libc, {
    switchModemLines() {
      gone = true
      throw new SyscallError('TIOCMBIS', 19)
    },
  })
  await using port = await linuxPort(pair.slavePath, { libc: unplugging }).open({})
  const state = once(port, 'state')
  assert.deepEqual(await port.setLines({ dtr: true }), { dtr: true, rts: false })
  assert.deepEqual(await state, ['absent'])
  assert.equal(gone, true)
})

// ---- the lock file

const inFolder = async () => {
  const lockFolder = await mkdtemp(join(tmpdir(), 'farport-lock-'))
  return { lockFolder, [Symbol.asyncDispose]: () => rm(lockFolder, { recursive: true, force: true }) }
}

test('has a lock file while the device is there, and none while it waits for it', limits, async () => {
  await using folder = await inFolder()
  await using plug = await Plug.create()
  const lockOf = (pair: PtyPair) => `LCK..${pair.slavePath.replace('/dev/', '').replaceAll('/', '_')}`
  await using port = await linuxPort(plug.path, folder).open({})
  assert.deepEqual(await readdir(folder.lockFolder), [lockOf(plug.pair)])
  const gone = once(port, 'state')
  await plug.pull()
  await gone
  await until('the lock is gone', () => readdirSync(folder.lockFolder).length === 0)
  const back = once(port, 'state')
  await plug.plugIn()
  await back
  assert.deepEqual(await readdir(folder.lockFolder), [lockOf(plug.pair)])
  await port[Symbol.asyncDispose]()
  assert.deepEqual(await readdir(folder.lockFolder), [])
})

test('respects the lock file of another program, and says whose it is', limits, async () => {
  await using folder = await inFolder()
  await using pair = ptyPair()
  const file = join(folder.lockFolder, `LCK..${pair.slavePath.replace('/dev/', '').replaceAll('/', '_')}`)
  const holder = spawn('sleep', ['60'], { stdio: 'ignore' })
  await once(holder, 'spawn')
  try {
    await writeFile(file, `${String(holder.pid).padStart(10)}\n`)
    await assert.rejects(linuxPort(pair.slavePath, folder).open({}), {
      code: 'ERR_PORT_BUSY',
      message: `${pair.slavePath} is in use by sleep (process ${holder.pid}), says ${file}: end that program.`,
    })
    await writeFile(file, 'nobody')
    await assert.rejects(linuxPort(pair.slavePath, folder).open({}), {
      code: 'ERR_PORT_BUSY',
      message: /does not say by which program: remove that file/,
    })
  } finally {
    holder.kill()
    await once(holder, 'exit')
  }
  // It is no more.
  await writeFile(file, `${String(holder.pid).padStart(10)}\n`)
  await using _port = await linuxPort(pair.slavePath, folder).open({})
})

test('a device that can not be opened is not left locked', limits, async () => {
  await using folder = await inFolder()
  await assert.rejects(linuxPort('/dev/null', folder).open({}), { code: 'ERR_NO_SUCH_PORT' })
  assert.deepEqual(await readdir(folder.lockFolder), [])
})

test('where no lock file can be, the device is opened without, and the log says so', limits, async () => {
  await using pair = ptyPair()
  const lines: string[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) })
  await using _port = await linuxPort(pair.slavePath, { lockFolder: '/nowhere', log }).open({})
  assert.match(lines.join(''), /no lock file/)
})

// ---- lines that are to be low from the start

test(
  'a line that is to be low falls before the line is set up, and closing does not raise it',
  limits,
  async () => {
    await using pair = ptyPair()
    const driver = new FakeDriver(libc, TIOCM.DTR | TIOCM.RTS)
    const setTermios = (fd: number, termios: Parameters<typeof libc.setTermios>[1]) => {
      driver.calls.push('TCSETS2')
      libc.setTermios(fd, termios)
    }
    const played = overriding(driver.libc, { setTermios })
    await using port = await linuxPort(pair.slavePath, { libc: played }).open({ outputs: { dtr: false } })
    assert.deepEqual(port.outputs, { dtr: false, rts: true })
    assert.deepEqual(
      driver.calls.filter((call) => call.startsWith('TIOCM') || call.startsWith('TC')).slice(0, 2),
      [`TIOCMBIC ${TIOCM.DTR}`, 'TCSETS2'],
    )
    await port[Symbol.asyncDispose]()
    assert.equal(driver.modemLines, TIOCM.RTS)
    assert.ok(!driver.calls.some((call) => call.startsWith('TIOCMSET') && Number(call.slice(9)) & TIOCM.DTR))
    assert.ok(!driver.calls.includes(`TIOCMBIS ${TIOCM.DTR}`))
  },
)

test('a driver that raises the lines with its first speed is told once more', limits, async () => {
  await using pair = ptyPair()
  const driver = new FakeDriver(libc, TIOCM.DTR | TIOCM.RTS)
  const played = overriding(driver.libc, {
    setTermios(fd, termios) {
      libc.setTermios(fd, termios)
      driver.modemLines = TIOCM.DTR | TIOCM.RTS
    },
  })
  await using port = await linuxPort(pair.slavePath, { libc: played }).open({
    outputs: { dtr: false, rts: false },
  })
  assert.deepEqual(port.outputs, { dtr: false, rts: false })
  assert.equal(driver.modemLines, 0)
})

test('lines from the start are those of the device that comes back, too', limits, async () => {
  const driver = new FakeDriver(libc, TIOCM.DTR | TIOCM.RTS)
  await using plug = await Plug.create()
  await using port = await linuxPort(plug.path, { libc: driver.libc }).open({ outputs: { dtr: false } })
  const gone = once(port, 'state')
  await plug.pull()
  await gone
  driver.modemLines = TIOCM.DTR | TIOCM.RTS
  const back = once(port, 'state')
  await plug.plugIn()
  await back
  assert.equal(driver.modemLines, TIOCM.RTS)
})
