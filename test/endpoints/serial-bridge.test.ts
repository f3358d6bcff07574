import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { bridgeSerial, type SerialBridgeOptions } from '../../src/endpoints/serial-bridge.ts'
import { FarportError } from '../../src/errors.ts'
import { createLog } from '../../src/log.ts'
import type { MemoryPort } from '../../src/serial/memory-port.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { SerialPort } from '../../src/serial/port.ts'
import { exchange } from '../support/exchange.ts'
import { until } from '../support/until.ts'

/** A machine and a device, each on a null-modem cable, and a bridge between the other ends of the two. */
interface Bench extends AsyncDisposable {
  readonly machine: SerialPort
  readonly device: SerialPort
  local(): MemoryPort
  remote(): MemoryPort
  /** How often either was opened. */
  readonly opened: { local: number; remote: number }
  /** While set, no remote port can be had. */
  unreachable: boolean
  readonly ended: Promise<void>
}

async function bench(options: Partial<SerialBridgeOptions> & { modemLinesOf?: 'none' } = {}): Promise<Bench> {
  const { modemLinesOf, ...bridgeOptions } = options
  const near = nullModemSources('simulated:near')
  const far = nullModemSources('simulated:far', {
    settings: { baudRate: 57_600, parity: 'even', dataBits: 7 },
  })
  const machine = await near.a.open({})
  const device = await far.b.open({})
  const opened = { local: 0, remote: 0 }
  let local: SerialPort | undefined
  let remote: SerialPort | undefined
  let reachable = Promise.withResolvers<void>()
  reachable.resolve()
  const endpoint = await bridgeSerial(
    {
      path: '/dev/ttyS7',
      line: {},
      modemLines: true,
      log: createLog('silent'),
      openLocal: async (signal) => {
        opened.local++
        local = await near.b.open({ signal })
        if (modemLinesOf === 'none') local.description.modemLines = false
        return local
      },
      ...bridgeOptions,
    },
    async (signal) => {
      await Promise.race([reachable.promise, once(signal, 'abort')])
      opened.remote++
      remote = await far.a.open({ signal })
      return remote
    },
  )
  await until('the remote port is open', () => remote !== undefined)
  await immediate()
  return {
    machine,
    device,
    opened,
    local: () => local as MemoryPort,
    remote: () => remote as MemoryPort,
    ended: endpoint.ended,
    set unreachable(value: boolean) {
      if (value) reachable = Promise.withResolvers<void>()
      else reachable.resolve()
    },
    async [Symbol.asyncDispose]() {
      await endpoint[Symbol.asyncDispose]()
      await machine[Symbol.asyncDispose]()
      await device[Symbol.asyncDispose]()
    },
  }
}

const UP_AND_DOWN = [true, false]

test('the device sees DTR and RTS of the machine, and the machine those of the device', async () => {
  await using b = await bench()
  for (const [from, to] of [
    [b.machine, b.device],
    [b.device, b.machine],
  ] as const)
    for (const dtr of UP_AND_DOWN)
      for (const rts of UP_AND_DOWN) {
        await from.setLines({ dtr, rts })
        await until(`DTR ${dtr} and RTS ${rts} arrive`, () => to.lines.dsr === dtr && to.lines.cts === rts)
        assert.deepEqual(to.lines, { cts: rts, dsr: dtr, dcd: dtr, ri: false })
      }
})

test('how the lines are when the bridge begins is seen as well', async () => {
  await using b = await bench()
  b.unreachable = true
  b.remote().destroy()
  await until('the machine sees the loss', () => !b.machine.lines.dsr)
  await b.machine.setLines({ dtr: false, rts: true })
  b.unreachable = false
  await until('the lines are those of the machine', () => b.device.lines.cts && !b.device.lines.dsr)
})

test('a device that has DCD and no DSR is seen', async () => {
  await using b = await bench()
  b.remote().drive({ dsr: false, dcd: true, cts: false })
  await until('DTR is up', () => b.local().outputs.dtr && !b.local().outputs.rts)
  b.remote().drive({ dcd: false })
  await until('DTR is down', () => !b.local().outputs.dtr)
})

test('a pulse that was over before anybody looked is made again', async () => {
  await using b = await bench()
  const seen: boolean[] = []
  b.device.on('lines', ({ cts }) => seen.push(cts))
  assert.ok(b.local().lines.cts)
  b.local().emit('lines', b.local().lines, { cts: 2, dsr: 0, ri: 0, dcd: 0 })
  await until('the pulse is over', () => seen.length === 2)
  assert.deepEqual(seen, [false, true])
})

test('a pulse of DCD beside a DSR that stays is none', async () => {
  await using b = await bench()
  const seen: unknown[] = []
  b.machine.on('lines', (lines) => seen.push(lines))
  b.remote().emit('lines', b.remote().lines, { cts: 0, dsr: 0, ri: 0, dcd: 2 })
  for (let turn = 0; turn < 20; turn++) await immediate()
  assert.deepEqual(seen, [])
})

test('what flow control drives is left to it', async () => {
  await using b = await bench()
  await b.remote().configure({ inputFlow: 'rtscts' })
  await b.machine.setLines({ rts: false, dtr: false })
  await until('DTR follows', () => !b.device.lines.dsr)
  assert.equal(b.device.lines.cts, true)
  await b.remote().configure({ inputFlow: 'none' })
  b.remote().emit('settings', b.remote().settings)
  await until('RTS follows once it may', () => !b.device.lines.cts)
})

test('lines are left alone when the link says so', async () => {
  await using b = await bench({ modemLines: false })
  await b.machine.setLines({ dtr: false, rts: false })
  await b.device.setLines({ dtr: false, rts: false })
  for (let turn = 0; turn < 20; turn++) await immediate()
  assert.deepEqual(b.local().outputs, { dtr: true, rts: true })
  assert.deepEqual(b.remote().outputs, { dtr: true, rts: true })
})

test('behind a local port without modem lines the remote lines are up while it is there', async () => {
  await using b = await bench({ modemLinesOf: 'none' })
  assert.deepEqual(b.remote().outputs, { dtr: true, rts: true })
  b.local().unplug()
  await until('they fall with it', () => !b.device.lines.dsr && !b.device.lines.cts)
})

test('2 MiB go both ways at once, unchanged', async () => {
  await using b = await bench()
  await exchange(b.machine, b.device, 2 * 1024 * 1024)
})

test('a machine that does not read holds the device up, and memory is bounded', async () => {
  await using b = await bench()
  const chunk = Buffer.alloc(16 * 1024, 0x55)
  b.machine.pause()
  let written = 0
  while (b.device.write(chunk)) {
    written += chunk.length
    assert.ok(written < 4 * 1024 * 1024, 'nothing holds the device up')
    await immediate()
  }
  for (let turn = 0; turn < 20; turn++) await immediate()
  assert.ok(b.device.writableNeedDrain)
  let read = 0
  b.machine.on('data', (bytes: Buffer) => (read += bytes.length))
  b.machine.resume()
  await until('all of it arrives', () => read === written + chunk.length)
})

test('a break goes either way, lasts, and holds back the bytes behind it', async (t) => {
  await using b = await bench()
  for (const [from, to, made] of [
    [b.machine, b.device, b.remote()],
    [b.device, b.machine, b.local()],
  ] as const) {
    const order: string[] = []
    const { setBreak } = made
    t.mock.method(made, 'setBreak', (on: boolean) => {
      order.push(`break ${on ? 'on' : 'off'}`)
      return setBreak.call(made, on)
    })
    to.on('data', (bytes: Buffer) => order.push(bytes.toString()))
    const broken = once(to, 'lineErrors')
    const before = performance.now()
    await from.setBreak(true)
    await from.setBreak(false)
    from.write('after')
    const [errors] = (await broken) as [{ break: number }]
    assert.equal(errors.break, 1)
    await until('the bytes arrive', () => order.length === 3)
    assert.deepEqual(order, ['break on', 'break off', 'after'])
    assert.ok(performance.now() - before >= 240, 'the break is too short')
  }
})

test('the local port takes the settings of the remote one, then and later', async () => {
  await using b = await bench()
  await until('they are taken', () => b.local().settings.baudRate === 57_600)
  assert.deepEqual(b.local().settings, b.remote().settings)
  await b.remote().configure({ baudRate: 300, stopBits: 2 })
  b.remote().emit('settings', b.remote().settings)
  await until('they follow', () => b.local().settings.baudRate === 300)
  assert.deepEqual(b.local().settings, b.remote().settings)
})

test('what the link says of the line wins at the local port', async () => {
  await using b = await bench({ line: { baudRate: 1200, parity: 'odd' } })
  await until('it is taken', () => b.local().settings.baudRate === 1200)
  assert.deepEqual(b.local().settings, { ...b.remote().settings, baudRate: 1200, parity: 'odd' })
})

test('an unplugged local port drops the lines of the device, and gets nothing old when it is back', async () => {
  await using b = await bench()
  const read: Buffer[] = []
  b.machine.on('data', (bytes) => read.push(bytes))
  b.local().unplug()
  await until('the device sees it', () => !b.device.lines.dsr && !b.device.lines.cts)
  b.device.write('yesterday')
  await b.device.drain({ signal: AbortSignal.timeout(5_000) })
  for (let turn = 0; turn < 20; turn++) await immediate()
  b.local().plug()
  await until('the device sees it again', () => b.device.lines.dsr && b.device.lines.cts)
  b.device.write('today')
  await until('bytes go on', () => Buffer.concat(read).length >= 5)
  assert.equal(Buffer.concat(read).toString(), 'today')
  assert.deepEqual(b.opened, { local: 1, remote: 1 })
})

test('what waited for a device that is unplugged is thrown away', async () => {
  await using b = await bench()
  await b.local().configure({ outputFlow: 'rtscts' })
  await b.machine.setLines({ rts: false })
  b.device.write('stuck')
  await until('it waits', () => b.local().writableLength === 5)
  b.local().unplug()
  await until('it is gone', () => b.local().writableLength === 0)
})

test('the remote port is lost: the local one stays open with its lines down, and what comes in is thrown away', async () => {
  await using b = await bench()
  const read: Buffer[] = []
  b.device.on('data', (bytes) => read.push(bytes))
  b.unreachable = true
  b.remote().destroy()
  await until('the machine sees it', () => !b.machine.lines.dsr && !b.machine.lines.cts)
  b.machine.write('to nobody')
  await b.machine.drain({ signal: AbortSignal.timeout(5_000) })
  b.unreachable = false
  await until('the machine sees the device again', () => b.machine.lines.dsr && b.machine.lines.cts)
  b.machine.write('hello')
  await until('bytes go on', () => Buffer.concat(read).length >= 5)
  assert.equal(Buffer.concat(read).toString(), 'hello')
  assert.deepEqual(b.opened, { local: 1, remote: 2 })
})

test('while the remote port has lost its way, the lines of the machine are down', async () => {
  await using b = await bench()
  b.remote().unplug()
  await until('they are down', () => !b.machine.lines.dsr && !b.machine.lines.cts)
  b.remote().plug()
  await until('they are up', () => b.machine.lines.dsr && b.machine.lines.cts)
})

test('a local port that is not there is an error at the start, unless it is waited for', async () => {
  const absent = new FarportError('ERR_DEVICE_ABSENT', 'no ttyS7')
  const options = { path: '/dev/ttyS7', line: {}, modemLines: true, log: createLog('silent') }
  const never = () => new Promise<never>(() => {})
  await assert.rejects(bridgeSerial({ ...options, openLocal: () => Promise.reject(absent) }, never), {
    code: 'ERR_DEVICE_ABSENT',
  })
  const asked = Promise.withResolvers<void>()
  await using endpoint = await bridgeSerial(
    {
      ...options,
      wait: true,
      openLocal: (signal) => {
        asked.resolve()
        return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      },
    },
    never,
  )
  await asked.promise
  assert.equal(endpoint.address, '/dev/ttyS7')
})

test('a remote port that may not be had ends the bridge and says why', async () => {
  const { b: near } = nullModemSources('simulated:near')
  const refused = new FarportError('ERR_NOT_GRANTED', 'not for you')
  await using endpoint = await bridgeSerial(
    {
      path: '/dev/ttyS7',
      line: {},
      modemLines: true,
      log: createLog('silent'),
      openLocal: (signal) => near.open({ signal }),
    },
    () => Promise.reject(refused),
  )
  await assert.rejects(endpoint.ended, refused)
})

test('nothing is left behind at the end', async () => {
  const b = await bench()
  const [local, remote] = [b.local(), b.remote()]
  await b[Symbol.asyncDispose]()
  await b.ended
  for (const port of [local, remote]) {
    assert.ok(port.destroyed)
    for (const event of ['data', 'lines', 'lineErrors', 'settings', 'state', 'drain'])
      assert.equal(port.listenerCount(event), 0, event)
  }
})
