/**
 * The Linux port on the kernel's own drivers: two ports of this machine whose ends are joined, named by the environment.
 *
 *   FARPORT_VM_PAIR    two device paths with a comma between them
 *   FARPORT_VM_CABLE   `modem`: the cable also carries lines, breaks and the frame format; else data alone
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readlinkSync, realpathSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { linuxPort } from '../../src/device/linux-port.ts'
import type { InputLines, LineErrors, SerialPort } from '../../src/serial/port.ts'
import type { SerialSettings } from '../../src/serial/settings.ts'

const [pathA = '', pathB = ''] = (process.env.FARPORT_VM_PAIR ?? '').split(',')
const modem = process.env.FARPORT_VM_CABLE === 'modem'
const usb = pathA.includes('ttyUSB')
const limits = { timeout: 120_000 }
const needsModem = modem ? limits : { skip: 'this cable carries data alone' }

/** QEMU's FTDI adapter refuses mark and space. */
const PARITIES = modem
  ? (['none', 'even', 'odd', 'mark', 'space'] as const)
  : (['none', 'even', 'odd'] as const)

const EVERY_BYTE = Buffer.from(Array.from({ length: 256 }, (_, i) => i))

async function until(what: string, condition: () => boolean, deadlineMs = 10_000): Promise<number> {
  const start = performance.now()
  while (!condition()) {
    if (performance.now() - start > deadlineMs) assert.fail(`not in ${deadlineMs} ms: ${what}`)
    await delay(1)
  }
  return performance.now() - start
}

/** Everything that a port has received so far. */
function received(port: SerialPort): { bytes: Buffer } {
  const all = { bytes: Buffer.alloc(0) }
  port.on('data', (chunk: Buffer) => {
    all.bytes = Buffer.concat([all.bytes, chunk])
  })
  return all
}

async function pair(settings: Partial<SerialSettings> = { baudRate: 115200 }) {
  const stack = new AsyncDisposableStack()
  const a = stack.use(await linuxPort(pathA).open({ settings }))
  const b = stack.use(await linuxPort(pathB).open({ settings }))
  await a.setLines({ dtr: true, rts: true })
  await b.setLines({ dtr: true, rts: true })
  return { a, b, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

test('every byte crosses unchanged, both ways at once', limits, async (t) => {
  await using ports = await pair()
  const atA = received(ports.a)
  const atB = received(ports.b)
  ports.a.write(EVERY_BYTE)
  ports.b.write(EVERY_BYTE)
  const ms = await until('all bytes', () => atA.bytes.length >= 256 && atB.bytes.length >= 256)
  assert.deepEqual(atA.bytes, EVERY_BYTE)
  assert.deepEqual(atB.bytes, EVERY_BYTE)
  t.diagnostic(`2 x 256 bytes in ${ms.toFixed(0)} ms`)
})

test('settings change in flight: no byte is lost and no line moves', limits, async (t) => {
  await using ports = await pair()
  const atB = received(ports.b)
  let edges = 0
  ports.b.on('lines', (_lines, changes) => {
    edges += changes.dsr + changes.dcd + changes.cts
  })
  let sent = Buffer.alloc(0)
  const refused: string[] = []
  for (const baudRate of [9600, 115200, 250000, 74880])
    for (const dataBits of [8, 7] as const)
      for (const parity of PARITIES)
        for (const stopBits of [1, 2] as const) {
          const asked = { baudRate, dataBits, parity, stopBits }
          const inForce = await ports.a.configure(asked)
          await ports.b.configure(asked)
          for (const [name, value] of Object.entries(asked))
            if (inForce[name as keyof SerialSettings] !== value) refused.push(`${name} ${value}`)
          const bytes = Buffer.from([0x55, sent.length & 0x7f, 0x2a])
          sent = Buffer.concat([sent, bytes])
          ports.a.write(bytes)
          await ports.a.drain({ signal: AbortSignal.timeout(10_000) })
          await until(`${JSON.stringify(asked)}`, () => atB.bytes.length >= sent.length)
        }
  assert.deepEqual(atB.bytes, sent)
  assert.equal(edges, 0)
  t.diagnostic(`answered with something else: ${[...new Set(refused)].join(', ') || 'nothing'}`)
})

test('a line that moves is seen, and so is a short pulse', needsModem, async (t) => {
  await using ports = await pair()
  const seen: { lines: InputLines; edges: number }[] = []
  ports.b.on('lines', (lines, changes) => seen.push({ lines, edges: changes.dsr }))
  await until('all lines up', () => ports.b.lines.dsr && ports.b.lines.cts && ports.b.lines.dcd)
  await delay(50)
  seen.length = 0
  await ports.a.setLines({ dtr: false, rts: false })
  const downMs = await until('DSR down', () => seen.some(({ lines }) => !lines.dsr))
  await until('CTS down', () => !ports.b.lines.cts)
  await ports.a.setLines({ dtr: true, rts: true })
  await until('DSR up', () => ports.b.lines.dsr && ports.b.lines.cts)
  await delay(50)
  seen.length = 0
  await ports.a.setLines({ dtr: false })
  await ports.a.setLines({ dtr: true })
  await until('both edges of the pulse', () => seen.reduce((sum, { edges }) => sum + edges, 0) >= 2)
  assert.equal(
    seen.reduce((sum, { edges }) => sum + edges, 0),
    2,
  )
  assert.equal(ports.b.lines.dsr, true)
  t.diagnostic(`DSR seen down after ${downMs.toFixed(0)} ms`)
})

test(
  'breaks and errors are counted; a break is no byte, a byte with an error is one',
  needsModem,
  async () => {
    await using ports = await pair({ baudRate: 9600 })
    const errors: LineErrors = { framing: 0, parity: 0, overrun: 0, break: 0 }
    ports.b.on('lineErrors', (more) => {
      for (const name of ['framing', 'parity', 'overrun', 'break'] as const) errors[name] += more[name]
    })
    const atB = received(ports.b)
    await ports.a.setBreak(true)
    await until('the break', () => errors.break === 1)
    await ports.a.setBreak(false)
    assert.equal(errors.framing, 0)
    ports.a.write('after')
    await until('the byte behind it', () => atB.bytes.length >= 5)
    assert.equal(atB.bytes.toString(), 'after')
    await ports.a.configure({ parity: 'odd' })
    await ports.b.configure({ parity: 'even' })
    atB.bytes = Buffer.alloc(0)
    ports.a.write(Buffer.from([0xff, 0x00, 0x41]))
    await until('parity errors', () => errors.parity > 0)
    await until('the bytes themselves', () => atB.bytes.length >= 3)
    assert.deepEqual(atB.bytes, Buffer.from([0xff, 0x00, 0x41]))
    assert.equal(errors.break, 1)
    assert.equal(errors.framing, 0)
    await ports.a.configure({ baudRate: 4800 })
    ports.a.write('U')
    await until('a framing error', () => errors.framing > 0)
  },
)

test('RTS/CTS holds the sender up, reads go on, purge lets the write go', needsModem, async () => {
  await using ports = await pair({ baudRate: 115200, outputFlow: 'rtscts', inputFlow: 'rtscts' })
  const atA = received(ports.a)
  const atB = received(ports.b)
  await ports.b.setLines({ rts: false })
  await until('CTS down', () => !ports.a.lines.cts)
  let done = false
  ports.a.write(Buffer.alloc(32 * 1024, 0x58), () => {
    done = true
  })
  ports.b.write('still read')
  await until('the other direction', () => atA.bytes.toString() === 'still read')
  assert.equal(done, false)
  assert.ok(atB.bytes.length < 1024, `${atB.bytes.length} bytes came past RTS`)
  await ports.a.purge('tx')
  await until('the write to complete', () => done)
})

test(
  'a port that RTS/CTS holds up closes at once, and what it held is not sent later',
  needsModem,
  async (t) => {
    await using b = await linuxPort(pathB).open({ settings: { baudRate: 115200 } })
    const atB = received(b)
    const a = await linuxPort(pathA).open({ settings: { baudRate: 115200, outputFlow: 'rtscts' } })
    a.on('error', () => {})
    await b.setLines({ rts: false })
    await until('CTS down', () => !a.lines.cts)
    a.write(Buffer.alloc(32 * 1024, 0x58))
    await delay(100)
    const closed = once(a, 'close')
    const start = performance.now()
    a.destroy()
    await closed
    const closeMs = performance.now() - start
    assert.ok(closeMs < 2000, `${closeMs.toFixed(0)} ms`)
    await b.setLines({ rts: true })
    await using again = await linuxPort(pathA).open({ settings: { baudRate: 115200 } })
    again.write('new')
    await until('the next bytes', () => atB.bytes.toString().endsWith('new'))
    assert.ok(atB.bytes.length < 1024, `${atB.bytes.length} bytes came from the driver`)
    t.diagnostic(`closed in ${closeMs.toFixed(0)} ms`)
  },
)

test('our opening and closing moves DTR no oftener than the kernel does', needsModem, async () => {
  await using b = await linuxPort(pathB).open({ settings: { baudRate: 115200 } })
  let edges = 0
  b.on('lines', (_lines, changes) => {
    edges += changes.dsr
  })
  {
    await using a = await linuxPort(pathA).open({ settings: { baudRate: 115200 } })
    await until('DTR up', () => b.lines.dsr)
    await a.configure({ baudRate: 9600, parity: 'even' })
  }
  await until('DTR down at the close (HUPCL)', () => !b.lines.dsr)
  assert.equal(edges, 2)
})

test(
  'unplugged it waits, replugged it goes on, without a leak',
  usb ? limits : { skip: 'not USB' },
  async (t) => {
    const tty = basename(realpathSync(pathA))
    const interfacePath = dirname(realpathSync(`/sys/class/tty/${tty}/device`))
    const authorized = join(dirname(interfacePath), 'authorized')
    const link = `/run/farport-by-id-${process.pid}`
    symlinkSync(pathA, link)
    const relink = () => {
      const name = readdirSync(interfacePath).find((entry) => entry.startsWith('ttyUSB'))
      if (name === undefined || readlinkSync(link) === `/dev/${name}`) return name !== undefined
      symlinkSync(`/dev/${name}`, `${link}.new`)
      renameSync(`${link}.new`, link)
      return true
    }
    const settings = { baudRate: 57600, dataBits: 7, parity: 'even' } as const
    await using a = await linuxPort(link).open({ settings })
    await using b = await linuxPort(pathB).open({ settings })
    await a.setLines({ dtr: true, rts: false })
    const atB = received(b)
    const descriptors = readdirSync('/proc/self/fd').length
    let backMs = 0
    for (let cycle = 1; cycle <= 5; cycle++) {
      const lost = once(a, 'state')
      a.resume()
      writeFileSync(authorized, '0')
      await lost
      assert.equal(a.state, 'absent')
      writeFileSync(authorized, '1')
      await until('the device', () => {
        try {
          return relink()
        } catch {
          return false
        }
      })
      backMs = Math.max(backMs, await until('the port', () => a.state === 'open'))
      const { baudRate, dataBits, parity } = a.settings
      assert.deepEqual({ baudRate, dataBits, parity }, settings)
      assert.deepEqual(a.outputs, { dtr: true, rts: false })
      atB.bytes = Buffer.alloc(0)
      a.write('back')
      await until('bytes after the return', () => atB.bytes.toString().endsWith('back'))
    }
    await until('no descriptor more than before', () => readdirSync('/proc/self/fd').length <= descriptors)
    t.diagnostic(`5 cycles; back at most ${backMs.toFixed(0)} ms after the device`)
  },
)
