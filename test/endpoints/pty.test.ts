import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { test as nodeTest, type TestContext } from 'node:test'
import { setTimeout as delay, setImmediate as immediate } from 'node:timers/promises'
import { loadLibc } from '../../src/device/libc.ts'
import { CC, CFLAG, IFLAG, LFLAG, type Termios2 } from '../../src/device/termios.ts'
import { createPtyEndpoint, type PtyOptions } from '../../src/endpoints/pty.ts'
import { FarportError } from '../../src/errors.ts'
import { createLog } from '../../src/log.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { OutputLines, PortSource, PurgeWhat, SerialPort } from '../../src/serial/port.ts'
import type { SerialSettings } from '../../src/serial/settings.ts'
import { missingPyserial } from '../support/pyserial.ts'

const skip = process.platform === 'linux' ? false : 'PTYs with packet mode are Linux'
const libc = skip ? (undefined as never) : loadLibc()

/** As root the kernel lets us lock EXTPROC and open a locked PTY; so root runs every test a second time without that. */
function test(title: string, body: (t: TestContext) => Promise<void>): void {
  nodeTest(title, { skip, timeout: 20_000 }, body)
  if (process.geteuid?.() !== 0) return
  nodeTest(`${title} (as nobody)`, { skip, timeout: 20_000 }, async (t) => {
    process.seteuid?.(NOBODY)
    try {
      await body(t)
    } finally {
      process.seteuid?.(0)
    }
  })
}

const NOBODY = 65_534

function asNobody<T>(body: () => T): T {
  const user = process.geteuid?.()
  if (user === 0) process.seteuid?.(NOBODY)
  try {
    return body()
  } finally {
    if (user === 0) process.seteuid?.(0)
  }
}

async function until(what: string, condition: () => boolean, timeoutMs = 5_000): Promise<void> {
  for (const deadline = performance.now() + timeoutMs; !condition(); await delay(1))
    assert.ok(performance.now() < deadline, `not within ${timeoutMs} ms: ${what}`)
}

/** Enough for everything that is under way here to be seen and done. For tests in which clocks stand still. */
async function loopTurns(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await immediate()
}

/** A PTY endpoint with a null-modem cable behind it, and what became of the port. */
interface Bench extends AsyncDisposable {
  readonly link: string
  /** The other end of the cable. */
  readonly device: SerialPort
  /** What the device has received and `take` has not taken. */
  received(): Buffer
  /** What the port was told, in order, bytes among it. */
  readonly told: Told[]
  /** The port, while the endpoint has it open. */
  port(): SerialPort | undefined
  /** How often it was opened. */
  opened(): number
  /** While set, opening the port fails. */
  unreachable: boolean
}

type Told =
  | { configure: Partial<SerialSettings> }
  | { lines: Partial<OutputLines> }
  | { purge: PurgeWhat }
  | { write: string }

async function bench(
  options: Partial<PtyOptions> & { settings?: Partial<SerialSettings>; unreachable?: boolean } = {},
): Promise<Bench> {
  const { settings = {}, unreachable = false, ...ptyOptions } = options
  const dir = mkdtempSync(join(tmpdir(), 'farport-pty-'))
  chmodSync(dir, 0o755)
  const link = join(dir, 'port')
  const { a, b } = nullModemSources('simulated:bench', { settings })
  const device = await b.open({})
  const chunks: Buffer[] = []
  device.on('data', (chunk) => chunks.push(chunk))
  const told: Told[] = []
  let port: SerialPort | undefined
  let opened = 0
  const made: Bench = {
    link,
    device,
    told,
    unreachable,
    received: () => Buffer.concat(chunks),
    port: () => port,
    opened: () => opened,
    async [Symbol.asyncDispose]() {
      await endpoint[Symbol.asyncDispose]()
      await device[Symbol.asyncDispose]()
      rmSync(dir, { recursive: true })
    },
  }
  const endpoint = await createPtyEndpoint(
    { link, log: createLog('silent'), ...ptyOptions },
    async (signal) => {
      if (made.unreachable) throw new FarportError('ERR_PEER_UNREACHABLE', 'nobody there')
      opened++
      port = await recorded(a, told, signal)
      port.once('close', () => {
        port = undefined
      })
      return port
    },
  )
  return made
}

async function recorded(source: PortSource, told: Told[], signal: AbortSignal): Promise<SerialPort> {
  const port = await source.open({ signal })
  const { configure, setLines, purge } = port
  const write: (chunk: Buffer) => boolean = port.write.bind(port)
  return Object.assign(port, {
    async configure(change: Partial<SerialSettings>) {
      // A port that is far away takes its time.
      await loopTurns()
      told.push({ configure: change })
      return await configure.call(port, change)
    },
    setLines(change: Partial<OutputLines>) {
      told.push({ lines: change })
      return setLines.call(port, change)
    },
    purge(what: PurgeWhat) {
      told.push({ purge: what })
      return purge.call(port, what)
    },
    write(chunk: Buffer) {
      told.push({ write: chunk.toString() })
      return write(chunk)
    },
  }) as SerialPort
}

/** A program that has the link open. */
class Program implements Disposable {
  readonly fd: number

  constructor(link: string) {
    this.fd = openSync(link, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK)
  }

  write(text: string): void {
    assert.equal(writeSync(this.fd, text), text.length)
  }

  /** What can be read now. */
  read(): string {
    const bytes = Buffer.alloc(65_536)
    const n = libc.read(this.fd, bytes)
    return n > 0 ? bytes.toString('latin1', 0, n) : ''
  }

  async readUntil(text: string): Promise<void> {
    let got = ''
    await until(`the program reads ${text}`, () => {
      got += this.read()
      return got.length >= text.length
    })
    assert.equal(got, text)
  }

  termios(): Termios2 {
    return libc.termios(this.fd)
  }

  set(change: (termios: Termios2) => void): void {
    const termios = this.termios()
    change(termios)
    libc.setTermios(this.fd, termios)
  }

  [Symbol.dispose](): void {
    closeSync(this.fd)
  }
}

/** As pyserial, minicom and most others do: every mode off, EXTPROC with them. */
function cfmakeraw(termios: Termios2): void {
  termios.iflag = 0
  termios.oflag = 0
  termios.lflag = 0
}

async function run(command: string, ...args: string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], timeout: 15_000 })
  const output: Buffer[] = []
  child.stdout.on('data', (chunk) => output.push(chunk))
  const [code] = await once(child, 'close')
  assert.equal(code, 0, `${command} failed`)
  return Buffer.concat(output).toString()
}

const openFds = () => readdirSync('/proc/self/fd').length

const settings: { name: string; change: (termios: Termios2) => void; expected: Partial<SerialSettings> }[] = [
  { name: '9600', change: (t) => t.setSpeed(9600), expected: { baudRate: 9600 } },
  { name: '115200', change: (t) => t.setSpeed(115_200), expected: { baudRate: 115_200 } },
  { name: '1000000', change: (t) => t.setSpeed(1_000_000), expected: { baudRate: 1_000_000 } },
  {
    name: '123456, which has no constant',
    change: (t) => t.setSpeed(123_456),
    expected: { baudRate: 123_456 },
  },
  { name: 'two stop bits', change: (t) => (t.cflag |= CFLAG.CSTOPB), expected: { stopBits: 2 } },
  {
    name: 'RTS/CTS',
    change: (t) => (t.cflag |= CFLAG.CRTSCTS),
    expected: { outputFlow: 'rtscts', inputFlow: 'rtscts' },
  },
  {
    name: 'IXON',
    change: (t) => (t.iflag |= IFLAG.IXON),
    expected: { outputFlow: 'xonxoff', inputFlow: 'none' },
  },
  {
    name: 'IXOFF',
    change: (t) => (t.iflag |= IFLAG.IXOFF),
    expected: { outputFlow: 'none', inputFlow: 'xonxoff' },
  },
  {
    name: 'odd parity',
    change: (t) => (t.cflag |= CFLAG.PARENB | CFLAG.PARODD),
    expected: { parity: 'odd' },
  },
  {
    name: 'mark parity',
    change: (t) => (t.cflag |= CFLAG.PARENB | CFLAG.PARODD | CFLAG.CMSPAR),
    expected: { parity: 'mark' },
  },
  {
    name: 'space parity',
    change: (t) => (t.cflag |= CFLAG.PARENB | CFLAG.CMSPAR),
    expected: { parity: 'space' },
  },
]

for (const { name, change, expected } of settings) {
  test(`a program's settings reach the port: ${name}`, async () => {
    await using it = await bench({ settings: { baudRate: 57_600 } })
    using program = new Program(it.link)
    program.set((termios) => {
      cfmakeraw(termios)
      change(termios)
    })
    await until('the port has them', () => {
      const inForce = { ...it.port()?.settings, ...expected }
      return it.opened() === 1 && JSON.stringify(inForce) === JSON.stringify(it.port()?.settings)
    })
    assert.equal(
      it.port()?.settings.baudRate,
      expected.baudRate ?? 57_600,
      'the speed stays when not asked for',
    )
  })
}

test('settings come before the bytes written after them, and only those that changed are asked for', async () => {
  await using it = await bench()
  using program = new Program(it.link)
  program.set((termios) => {
    cfmakeraw(termios)
    termios.setSpeed(19_200)
  })
  program.write('at 19200')
  await until('the bytes arrive', () => it.received().length === 8)
  program.set((termios) => termios.setSpeed(38_400))
  program.write('at 38400')
  await until('the bytes arrive', () => it.received().length === 16)
  assert.deepEqual(it.told, [
    { configure: { baudRate: 19_200, stopBits: 1, outputFlow: 'none', inputFlow: 'none' } },
    { lines: { dtr: true, rts: true } },
    { write: 'at 19200' },
    { configure: { baudRate: 38_400 } },
    { write: 'at 38400' },
  ])
})

test('changes are seen soon, also after a program has cleared EXTPROC', async () => {
  await using it = await bench()
  using program = new Program(it.link)
  const latenciesMs: number[] = []
  for (let baudRate = 1_001; baudRate <= 1_030; baudRate++) {
    program.set((termios) => {
      cfmakeraw(termios)
      termios.setSpeed(baudRate)
    })
    const start = performance.now()
    await until(`${baudRate} reaches the port`, () => it.port()?.settings.baudRate === baudRate)
    latenciesMs.push(performance.now() - start)
  }
  // Not the longest: on a busy machine that is the scheduler's.
  const median = latenciesMs.toSorted((a, b) => a - b)[15] as number
  assert.ok(median < 100, `took ${median} ms`)
})

test('a burst of changes ends in the last one', async () => {
  await using it = await bench()
  using program = new Program(it.link)
  for (let baudRate = 1_001; baudRate <= 1_500; baudRate++)
    program.set((termios) => {
      cfmakeraw(termios)
      termios.setSpeed(baudRate)
    })
  await until('the last speed is in force', () => it.port()?.settings.baudRate === 1_500)
  assert.ok(it.told.length < 100, `${it.told.length} changes for one burst`)
})

test('odd parity taken back leaves the parity the port had', async () => {
  await using it = await bench({ settings: { parity: 'even' } })
  using program = new Program(it.link)
  program.set((termios) => {
    termios.cflag |= CFLAG.PARODD
    termios.setSpeed(1_200)
  })
  await until('odd', () => it.port()?.settings.parity === 'odd')
  program.set((termios) => (termios.cflag &= ~CFLAG.PARODD))
  await until('even again', () => it.port()?.settings.parity === 'even')
})

test('parity that a program finds and takes away is gone', async () => {
  await using it = await bench({ settings: { parity: 'odd' } })
  using program = new Program(it.link)
  await until('the program sees it', () => (program.termios().cflag & CFLAG.PARODD) !== 0)
  program.set((termios) => (termios.cflag &= ~CFLAG.PARODD))
  await until('none', () => it.port()?.settings.parity === 'none')
})

test('a program that only wants raw mode changes nothing of the line, however early it comes', async () => {
  await using it = await bench({
    settings: { baudRate: 57_600, parity: 'odd', stopBits: 2, inputFlow: 'xonxoff' },
  })
  using program = new Program(it.link)
  program.set((termios) => (termios.lflag = 0))
  program.write('x')
  await until('the byte arrives', () => it.received().length === 1)
  assert.deepEqual(it.told, [{ lines: { dtr: true, rts: true } }, { write: 'x' }])
  await until('the program sees the speed', () => program.termios().ospeed === 57_600)
  program.set((termios) => (termios.iflag &= ~IFLAG.IXOFF))
  await until('what it does set is set', () => it.port()?.settings.inputFlow === 'none')
  const port = it.port()
  assert.ok(port)
  assert.equal(port.settings.stopBits, 2)
  assert.equal(port.settings.parity, 'odd')
})

test('settings fixed for the link win over what a program asks for', async () => {
  await using it = await bench({ line: { dataBits: 7, parity: 'even', stopBits: 1 } })
  using program = new Program(it.link)
  program.set((termios) => {
    termios.cflag |= CFLAG.PARODD | CFLAG.CSTOPB
    termios.setSpeed(1_200)
  })
  await until('the speed arrives', () => it.port()?.settings.baudRate === 1_200)
  const port = it.port()
  assert.ok(port)
  const { dataBits, parity, stopBits } = port.settings
  assert.deepEqual({ dataBits, parity, stopBits }, { dataBits: 7, parity: 'even', stopBits: 1 })
})

test('settings fixed for the link hold without a program that sets any', async () => {
  await using it = await bench({ line: { dataBits: 7, parity: 'even' } })
  using program = new Program(it.link)
  program.write('x')
  await until('the byte arrives', () => it.received().length === 1)
  assert.deepEqual(it.told[0], { configure: { dataBits: 7, parity: 'even' } })
})

test('a program that sets nothing finds the settings of the port, and changes none', async () => {
  await using it = await bench({ settings: { baudRate: 57_600, stopBits: 2, outputFlow: 'xonxoff' } })
  using program = new Program(it.link)
  await until('the program sees the speed', () => program.termios().ospeed === 57_600)
  const { cflag, iflag } = program.termios()
  assert.equal(cflag & CFLAG.CSTOPB, CFLAG.CSTOPB)
  assert.equal(iflag & IFLAG.IXON, IFLAG.IXON)
  assert.equal(cflag & CFLAG.CBAUD, 0o10001, 'as B57600, not as BOTHER')
  program.write('x')
  await until('the byte arrives', () => it.received().length === 1)
  assert.deepEqual(it.told, [{ lines: { dtr: true, rts: true } }, { write: 'x' }])
})

test('a program finds the settings of the port as soon as the port has been open once', async () => {
  await using it = await bench({ settings: { baudRate: 57_600 } })
  await run('sh', '-c', 'echo x > "$0"', it.link)
  await until('the port is closed', () => it.opened() === 1 && it.port() === undefined)
  assert.match(await run('stty', '-F', it.link), /^speed 57600 baud/)
})

test('what another user of a shared port sets is shown to a program that has set nothing', async () => {
  await using it = await bench()
  using program = new Program(it.link)
  await until('the port is open', () => it.port() !== undefined)
  const now = await it.port()?.configure({ baudRate: 4_800 })
  it.port()?.emit('settings', now)
  await until('the program sees it', () => program.termios().ospeed === 4_800)
})

test('settings outlive the program: stty first, then another one', async () => {
  await using it = await bench({ settings: { baudRate: 57_600 } })
  await run('stty', '-F', it.link, '2400', 'cstopb')
  await until('stty is over', () => it.opened() === 1 && it.port() === undefined)
  using program = new Program(it.link)
  await until('the port is open again with them', () => it.port()?.settings.baudRate === 2_400)
  assert.equal(it.port()?.settings.stopBits, 2)
  assert.equal(program.termios().ospeed, 2_400)
})

test('speed 0 drops the lines, a speed raises them again', async () => {
  await using it = await bench()
  using program = new Program(it.link)
  await until('DTR is up', () => it.device.lines.dsr)
  program.set((termios) => {
    termios.cflag &= ~CFLAG.CBAUD
  })
  await until('DTR and RTS are down', () => !it.device.lines.dsr && !it.device.lines.cts)
  program.set((termios) => termios.setSpeed(9_600))
  await until('DTR and RTS are up', () => it.device.lines.dsr && it.device.lines.cts)
})

test('lines rise at the first open and fall at the last close', async () => {
  await using it = await bench()
  {
    using _first = new Program(it.link)
    await until('DTR is up', () => it.device.lines.dsr && it.device.lines.cts)
    using _second = new Program(it.link)
  }
  await until('the port is closed', () => it.opened() === 1 && it.port() === undefined)
  assert.deepEqual(it.told, [{ lines: { dtr: true, rts: true } }, { lines: { dtr: false, rts: false } }])
})

test('a program that clears HUPCL leaves the lines up', async () => {
  await using it = await bench()
  await run('stty', '-F', it.link, '-hupcl')
  await until('the port is closed', () => it.opened() === 1 && it.port() === undefined)
  assert.deepEqual(
    it.told.filter((told) => 'lines' in told),
    [{ lines: { dtr: true, rts: true } }],
  )
})

test('lines are left alone when the link says so', async () => {
  await using it = await bench({ modemLines: false })
  await run('sh', '-c', `echo x > ${it.link}`)
  await until('the port is closed', () => it.opened() === 1 && it.port() === undefined)
  assert.deepEqual(it.told, [{ write: 'x\n' }])
})

const flushes: { name: string; what: PurgeWhat }[] = [
  { name: 'received', what: 'rx' },
  { name: 'written', what: 'tx' },
  { name: 'all', what: 'both' },
]
for (const { name, what } of flushes) {
  test(`a program's flush of ${name} bytes purges the port`, async () => {
    await using it = await bench()
    using program = new Program(it.link)
    await until('the port is open', () => it.told.length > 0)
    libc.flush(program.fd, what)
    await until('the purge', () => it.told.some((told) => 'purge' in told))
    assert.deepEqual(
      it.told.filter((told) => 'purge' in told),
      [{ purge: what }],
    )
  })
}

test('a flush of written bytes takes those that still wait for the port', async () => {
  await using it = await bench({ unreachable: true })
  using program = new Program(it.link)
  program.write('old')
  await loopTurns()
  libc.flush(program.fd, 'tx')
  program.write('new')
  it.unreachable = false
  await until('something arrives', () => it.received().length > 0)
  assert.equal(it.received().toString(), 'new')
})

test('a flush lets go of everything on the way to the program', async () => {
  await using it = await bench()
  using program = new Program(it.link)
  await until('the port is open', () => it.told.length > 0)
  it.device.write(Buffer.alloc(120_000, 'old'))
  await until('the PTY is full and the port held', () => it.port()?.isPaused() === true)
  await until('the device has sent it', () => it.device.writableLength === 0)
  libc.flush(program.fd, 'rx')
  await until('the purge', () => it.told.some((told) => 'purge' in told))
  it.device.write('new')
  await program.readUntil('new')
})

test('nothing is echoed to the device, also to a program that sets nothing', async () => {
  await using it = await bench()
  using program = new Program(it.link)
  await until('the port is open', () => it.told.length > 0)
  it.device.write('line one\r\nline two\x03\x04\x11\x13')
  await program.readUntil('line one\r\nline two\x03\x04\x11\x13')
  program.write('\n')
  await until('the byte arrives', () => it.received().length > 0)
  assert.equal(it.received().toString(), '\n')
})

test('a PTY is found raw by each program, whatever the last one left', async () => {
  await using it = await bench()
  {
    using program = new Program(it.link)
    program.set((termios) => {
      termios.lflag = LFLAG.ICANON | LFLAG.ECHO
    })
    await until('the port is open', () => it.told.length > 0)
  }
  await until('the port is closed', () => it.opened() === 1 && it.port() === undefined)
  using next = new Program(it.link)
  assert.equal(next.termios().lflag, LFLAG.EXTPROC | LFLAG.ISIG)
  assert.equal(next.termios().cc[CC.VMIN], 1)
})

for (const bytes of [6, 200_000]) {
  test(`open, write ${bytes} bytes, close: all of them arrive`, async () => {
    await using it = await bench()
    await run('sh', '-c', `head -c ${bytes} /dev/zero > ${it.link}`)
    await until('they arrive', () => it.received().length >= bytes)
    await until('the port is closed', () => it.port() === undefined)
    assert.deepEqual(it.received(), Buffer.alloc(bytes))
    assert.equal(it.opened(), 1)
  })
}

for (const openRemote of ['on-open', 'always'] as const) {
  test(`bytes of short visits arrive in order, one after the other (${openRemote})`, async () => {
    await using it = await bench({ openRemote })
    const visits = 'i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i > "$0"; done'
    await run('sh', '-c', visits, it.link)
    const all = Array.from(Array(1000), (_, i) => `${i + 1}\n`).join('')
    await until('they arrive', () => it.received().length >= all.length)
    assert.equal(it.received().toString(), all)
  })
}

test('a visit that only sets the speed is carried out, as the 1200 baud touch needs', async () => {
  await using it = await bench()
  await run('stty', '-F', it.link, '1200')
  await until('the port is closed', () => it.opened() === 1 && it.port() === undefined)
  const speedAt = it.told.findIndex((told) => 'configure' in told && told.configure.baudRate === 1_200)
  const lowAt = it.told.findIndex((told) => 'lines' in told && told.lines.dtr === false)
  assert.ok(speedAt !== -1 && speedAt < lowAt)
})

test('the next program gets no byte meant for the last one', async () => {
  await using it = await bench()
  {
    using _program = new Program(it.link)
    await until('the port is open', () => it.told.length > 0)
    it.device.write(Buffer.alloc(300_000, 'stale'))
    await until('the PTY is full', () => it.port()?.isPaused() === true)
  }
  await until('the port is closed', () => it.port() === undefined)
  using next = new Program(it.link)
  await until('the port is open', () => it.port() !== undefined)
  it.device.write('fresh')
  await next.readUntil('fresh')
})

test('what the device sends while no program is there is thrown away', async () => {
  await using it = await bench({ openRemote: 'always' })
  await until('the port is open', () => it.port() !== undefined)
  it.device.write(Buffer.alloc(500_000, 'nobody'))
  await until('it is gone', () => it.device.writableLength === 0 && it.port()?.readableLength === 0)
  using program = new Program(it.link)
  await until('the program is seen', () => it.told.length > 0)
  it.device.write('somebody')
  await program.readUntil('somebody')
  assert.equal(it.opened(), 1)
})

test('with openRemote always, the port stays open between programs', async () => {
  await using it = await bench({ openRemote: 'always' })
  for (const word of ['one', 'two']) await run('sh', '-c', `printf ${word} > ${it.link}`)
  await until('both arrive', () => it.received().toString() === 'onetwo')
  await until('the lines are down', () => !it.device.lines.dsr)
  assert.equal(it.opened(), 1)
  assert.ok(it.port() !== undefined)
})

test('a lost port is opened again while the program keeps its descriptor', async () => {
  await using it = await bench()
  using program = new Program(it.link)
  program.set((termios) => {
    cfmakeraw(termios)
    termios.setSpeed(19_200)
  })
  program.write('before ')
  await until('the bytes arrive', () => it.received().length === 7)
  it.port()?.destroy(new Error('the peer is gone'))
  program.write('during ')
  await until('it is opened again', () => it.opened() === 2)
  program.write('after')
  await until('the bytes arrive', () => it.received().length === 19)
  assert.equal(it.received().toString(), 'before during after')
  assert.equal(it.port()?.settings.baudRate, 19_200)
  it.device.write('back')
  await program.readUntil('back')
})

test('what is written while the port can not be had is held, and holds the writer up', async () => {
  await using it = await bench({ unreachable: true })
  using program = new Program(it.link)
  let written = 0
  const block = Buffer.alloc(4_096, 'held')
  // Until the writer is held up for longer than anybody would take to read.
  for (let idle = performance.now(); performance.now() - idle < 50; await delay(1)) {
    const n = libc.write(program.fd, block)
    if (n > 0) {
      written += n
      idle = performance.now()
    }
    assert.ok(written < 1_000_000, 'no limit')
  }
  program.set((termios) => {
    cfmakeraw(termios)
    termios.setSpeed(300)
  })
  it.unreachable = false
  await until('all of it arrives', () => it.received().length >= written)
  assert.equal(it.received().length, written)
  assert.equal(it.port()?.settings.baudRate, 300, 'also what was set while held up')
})

test('bytes of a program that has left wait for a port that comes soon', async () => {
  await using it = await bench({ unreachable: true })
  // More than the endpoint holds, so that the rest is in the kernel when the program leaves.
  await run('sh', '-c', `head -c 70000 /dev/zero > ${it.link}`)
  it.unreachable = false
  await until('they arrive', () => it.received().length === 70_000)
  await until('the port is closed', () => it.port() === undefined)
})

test('4 MiB of every byte value go both ways at once, unchanged', async () => {
  await using it = await bench()
  const bytes = 4 * 1024 * 1024
  const toProgram = Buffer.concat([Buffer.from(Array.from(Array(256).keys())), randomBytes(bytes - 256)])
  const program = `
import hashlib, os, sys, termios, threading, tty
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
tty.setraw(fd)
data = bytes(range(256)) + os.urandom(${bytes} - 256)
def write():
    left = memoryview(data)
    while left: left = left[os.write(fd, left[:65536]):]
writer = threading.Thread(target=write)
writer.start()
got = hashlib.sha256()
count = 0
while count < ${bytes}:
    chunk = os.read(fd, min(65536, ${bytes} - count))
    count += len(chunk)
    got.update(chunk)
writer.join()
print(hashlib.sha256(data).hexdigest(), got.hexdigest())
`
  const running = run('python3', '-c', program, it.link)
  // What came before its setraw() would be flushed by it.
  await until('the program has set up the PTY', () => it.received().length > 0)
  it.device.write(toProgram)
  const [sent, got] = (await running).trim().split(' ')
  await until('all of it arrives', () => it.received().length >= bytes)
  assert.equal(got, createHash('sha256').update(toProgram).digest('hex'))
  assert.equal(createHash('sha256').update(it.received()).digest('hex'), sent)
})

test('a program that locks the PTY does not lock out those after it', async () => {
  await using it = await bench({ mode: 0o666 })
  {
    using program = new Program(it.link)
    libc.setExclusive(program.fd, true)
    await until('the port is open', () => it.told.length > 0)
  }
  await until('the port is closed', () => it.opened() === 1 && it.port() === undefined)
  using next = asNobody(() => new Program(it.link))
  next.write('x')
  await until('the byte arrives', () => it.received().length === 1)
})

test('everything is closed and removed at the end, also with a program still there', async () => {
  {
    // The first one loads what is loaded once.
    await using _it = await bench()
  }
  const before = openFds()
  let program: Program
  {
    await using it = await bench()
    program = new Program(it.link)
    program.write('x')
    await until('the byte arrives', () => it.received().length === 1)
    assert.ok(statSync(it.link).isCharacterDevice())
    await run('sh', '-c', `echo x > ${it.link}`)
  }
  assert.equal(libc.read(program.fd, Buffer.alloc(1)), 0, 'the program sees the end, as with a pulled plug')
  program[Symbol.dispose]()
  await until('no descriptor is left', () => openFds() <= before)
})

test('a far end that no longer answers does not hold up the end', async () => {
  await using it = await bench()
  {
    using program = new Program(it.link)
    program.write('x')
    await until('the byte arrives', () => it.received().length === 1)
    const port = it.port()
    assert.ok(port)
    const { setLines } = port
    port.setLines = async (change) => {
      await setLines.call(port, change)
      return await new Promise(() => {})
    }
  }
  await until('the lines are to fall', () => it.told.some((told) => 'lines' in told && !told.lines.dtr))
  assert.ok(it.port(), 'the answer is waited for')
})

test('the mode of the PTY is the one asked for', async () => {
  await using it = await bench({ mode: 0o606 })
  assert.equal(statSync(it.link).mode & 0o777, 0o606)
})

test('the group of the PTY is the one asked for, by name and by number', async () => {
  const own = process.getgid?.() ?? 0
  for (const group of [String(own), (await run('id', '-gn')).trim()]) {
    await using it = await bench({ group })
    assert.equal(statSync(it.link).gid, own)
    assert.equal(statSync(it.link).mode & 0o777, 0o660)
  }
})

test('the owner of the PTY is the one asked for, by name and by number; only root can give it away', async () => {
  if (process.getuid?.() !== 0) {
    await assert.rejects(bench({ owner: '0' }), { code: 'ERR_UNFIT', message: /EPERM/ })
    return
  }
  const id = Number((await run('id', '-u', 'nobody')).trim())
  for (const owner of ['nobody', String(id)]) {
    await using it = await bench({ owner })
    assert.equal(statSync(it.link).uid, id)
    assert.equal(statSync(it.link).mode & 0o777, 0o660)
  }
  await assert.rejects(bench({ owner: 'no-such-user' }), { code: 'ERR_USAGE', message: /“no-such-user”/ })
})

test('a group that there is not is named, and nothing is left behind', async () => {
  const before = openFds()
  await assert.rejects(bench({ group: 'no-such-group' }), { code: 'ERR_USAGE', message: /“no-such-group”/ })
  assert.ok(openFds() <= before)
})

test('a port stays open until the last copy of a descriptor is closed', async () => {
  await using it = await bench()
  // The shell opens and goes; what it has started holds its copy until it is told to let go.
  const child = spawn('sh', ['-c', 'exec 3<>"$0"; (read line; echo bye >&3) <&4 &', it.link], {
    stdio: ['ignore', 'inherit', 'inherit', 'ignore', 'pipe'],
  })
  assert.deepEqual(await once(child, 'exit'), [0, null])
  await until('the port is open', () => it.port() !== undefined)
  {
    using other = new Program(it.link)
    other.write('x')
    await until('the byte arrives', () => it.received().length === 1)
  }
  await loopTurns()
  assert.ok(it.port() !== undefined, 'one program leaves, another is still there')
  ;(child.stdio[4] as Writable).end('go\n')
  await until('the last words arrive', () => it.received().toString() === 'xbye\n')
  await until('the port is closed', () => it.port() === undefined)
  assert.equal(it.opened(), 1)
})

nodeTest(
  '8E1 can be opened again and again, although a PTY hides that anything has changed',
  { skip: skip || (missingPyserial() ?? false), timeout: 20_000 },
  async () => {
    await using it = await bench({ line: { parity: 'even' } })
    const script = "import serial, sys; serial.Serial(sys.argv[1], 19200, parity='E').write(b'x')"
    for (let visit = 0; visit < 3; visit++) {
      await run('/usr/bin/python3', '-c', script, it.link)
      await until('the program is seen to leave', () => it.opened() > visit && it.port() === undefined)
    }
    await until('the bytes arrive', () => it.received().length === 3)
    const asked = it.told.flatMap((told) => ('configure' in told ? [told.configure] : []))
    assert.partialDeepStrictEqual(Object.assign({}, ...asked), { baudRate: 19_200, parity: 'even' })
  },
)

test('bytes of a program that has left are thrown away when the port does not come', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  await using it = await bench({ unreachable: true })
  {
    using program = new Program(it.link)
    program.write('yesterday')
    await loopTurns()
  }
  await loopTurns()
  t.mock.timers.tick(29_000)
  await loopTurns()
  t.mock.timers.tick(1_000)
  await loopTurns()
  it.unreachable = false
  using program = new Program(it.link)
  program.write('today')
  await loopTurns()
  t.mock.timers.reset()
  await until('something arrives', () => it.received().length > 0)
  assert.equal(it.received().toString(), 'today')
})
