import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { pino } from 'pino'
import type { MemoryPort } from '../../src/serial/memory-port.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { PortSource, SerialPort } from '../../src/serial/port.ts'
import { PortHost } from '../../src/session/host.ts'
import type { HostedPortStatus } from '../../src/session/hosted-port.ts'
import { openRemotePort, type RemoteMeter } from '../../src/session/remote.ts'
import type { Right } from '../../src/trust/grants.ts'
import { CarrierPair } from '../support/carrier.ts'

const log = pino({ level: 'silent' })
const ALL: readonly Right[] = ['watch', 'use', 'configure', 'lines', 'steal']

/** A host that shares one end of a cable as `port`, and the device at the other end. */
async function shared() {
  const { a, b } = nullModemSources('test')
  const rights = new Set(ALL)
  let near: MemoryPort | undefined
  const source: PortSource = {
    ...a,
    open: async (options) => {
      near = (await a.open(options)) as MemoryPort
      return near
    },
  }
  const host = new PortHost({ ports: [{ name: 'port', source }], rights: () => rights, log })
  const device = await b.open({})
  const opened: SerialPort[] = []
  return {
    host,
    device,
    /** The shared end. */
    near: () => near as MemoryPort,
    status: async () => (await host.statuses())[0] as HostedPortStatus,
    async open(options: { mode?: 'watch'; steal?: boolean; peer?: string; meter?: RemoteMeter } = {}) {
      const { peer = 'anna', ...wish } = options
      const port = await openRemotePort(
        {
          port: 'port',
          ...wish,
          connect: async () => {
            const carrier = new CarrierPair()
            void host.accept(carrier.b, peer)
            return { stream: carrier.a }
          },
          resumeMs: 30_000,
          report: () => {},
          log,
        },
        AbortSignal.timeout(5_000),
      )
      port.on('error', () => {})
      opened.push(port)
      return port
    },
    async [Symbol.asyncDispose]() {
      for (const port of opened) port.destroy()
      await host[Symbol.asyncDispose]()
      await device[Symbol.asyncDispose]()
    },
  }
}

/** Waits until it is so, at most for as long as a test should take. */
async function wait(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = AbortSignal.timeout(10_000)
  while (!(await isSo())) await turn(undefined, { signal: deadline })
}

/** Reads until so many bytes have come. */
async function take(port: SerialPort, bytes: number): Promise<void> {
  for (let got = 0; got < bytes; ) got += ((await once(port, 'data')) as [Buffer])[0].length
}

test('bytes are counted once, however many watch, and go on rising when holders come and go', async () => {
  await using agent = await shared()
  const { device, status } = agent
  const nothing = await status()
  assert.deepEqual([nothing.toDevice, nothing.fromDevice, nothing.opens], [0, 0, 0])

  const first = await agent.open()
  for (const peer of ['bert', 'carl']) (await agent.open({ mode: 'watch', peer })).resume()
  device.write('to all of you')
  await take(first, 13)
  // While it goes on, and not only at the end.
  assert.deepEqual([(await status()).toDevice, (await status()).fromDevice], [0, 13])
  first.write(Buffer.of(0xff, 0xff))
  await take(device, 2)
  assert.equal((await status()).toDevice, 2)

  // Taken over: the two are here together for a moment.
  const second = await agent.open({ steal: true, peer: 'dora' })
  second.write('abc')
  await take(device, 3)
  const { toDevice, fromDevice, opens, sessions, watchers } = await status()
  assert.deepEqual([toDevice, fromDevice], [5, 13])
  assert.deepEqual([opens, sessions, watchers], [1, { use: 2, watch: 2 }, 2])
})

test('each time the device is opened counts, and what went before is kept', async () => {
  await using agent = await shared()
  for (const round of [1, 2]) {
    const port = await agent.open()
    agent.device.write('four')
    await take(port, 4)
    await port[Symbol.asyncDispose]()
    await wait(async () => (await agent.status()).state === 'ready')
    const { opens, fromDevice, sessions } = await agent.status()
    assert.deepEqual([opens, fromDevice, sessions.use], [round, 4 * round, round])
  }
})

test('errors on the line are counted by kind', async () => {
  await using agent = await shared()
  const port = await agent.open()
  port.resume()
  agent.near().report({ framing: 2, break: 1 })
  agent.near().report({ framing: 1, parity: 4, overrun: 5 })
  assert.deepEqual((await agent.status()).lineErrors, { framing: 3, parity: 4, overrun: 5, break: 1 })
})

test('what a slow watcher misses is counted as it happens', async () => {
  await using agent = await shared()
  const holder = await agent.open()
  await agent.open({ mode: 'watch', peer: 'bert' })
  const total = 4 * 1024 * 1024
  const piece = Buffer.alloc(64 * 1024)
  const sent = (async () => {
    for (let i = 0; i < total / piece.length; i++)
      await new Promise<void>((done) => agent.device.write(piece, () => done()))
  })()
  await Promise.all([take(holder, total), sent])
  const { skipped, fromDevice } = await agent.status()
  assert.equal(fromDevice, total)
  assert.ok(skipped > total / 4 && skipped < total, `${skipped} bytes skipped`)
})

test('the round trip is that of the holder, once it was measured, and gone with it', async () => {
  await using agent = await shared()
  const meter: RemoteMeter = { toDevice: 0, fromDevice: 0 }
  const port = await agent.open({ meter })
  await wait(async () => (await agent.status()).roundTripMs !== undefined && meter.roundTripMs !== undefined)
  assert.ok((agent.host.roundTrips().get('anna') ?? -1) > 0)
  await port[Symbol.asyncDispose]()
  await wait(async () => agent.host.roundTrips().size === 0)
  assert.equal((await agent.status()).roundTripMs, undefined)
})

test('a client counts what programs write and get, not what it costs on the way', async () => {
  await using agent = await shared()
  const meter: RemoteMeter = { toDevice: 0, fromDevice: 0 }
  const port = await agent.open({ meter })
  port.write(Buffer.alloc(100, 0xff))
  await take(agent.device, 100)
  agent.device.write(Buffer.alloc(30, 0xff))
  await take(port, 30)
  await port.configure({ baudRate: 57_600 })
  assert.deepEqual([meter.toDevice, meter.fromDevice], [100, 30])
})
