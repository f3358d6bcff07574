import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { SerialPort } from '../../src/serial/port.ts'
import type { RemoteMeter } from '../../src/session/remote.ts'
import { Agent } from '../support/agent.ts'

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
  await using agent = new Agent()
  const device = await agent.device()
  const nothing = await agent.status()
  assert.deepEqual([nothing.toDevice, nothing.fromDevice, nothing.opens], [0, 0, 0])

  const { port: first } = await agent.open()
  for (const peer of ['bert', 'carl']) (await agent.watch({ peer })).port.resume()
  device.write('to all of you')
  await take(first, 13)
  // While it goes on, and not only at the end.
  assert.deepEqual([(await agent.status()).toDevice, (await agent.status()).fromDevice], [0, 13])
  first.write(Buffer.of(0xff, 0xff))
  await take(device, 2)
  assert.equal((await agent.status()).toDevice, 2)

  // Taken over: the two are here together for a moment.
  const { port: second } = await agent.open({ steal: true, peer: 'dora' })
  second.write('abc')
  await take(device, 3)
  const { toDevice, fromDevice, opens, sessions, watchers } = await agent.status()
  assert.deepEqual([toDevice, fromDevice], [5, 13])
  assert.deepEqual([opens, sessions, watchers], [1, { use: 2, watch: 2 }, 2])
})

test('each time the device is opened counts, and what went before is kept', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  for (const round of [1, 2]) {
    const { port } = await agent.open()
    device.write('four')
    await take(port, 4)
    await port[Symbol.asyncDispose]()
    await wait(async () => (await agent.status()).state === 'ready')
    const { opens, fromDevice, sessions } = await agent.status()
    assert.deepEqual([opens, fromDevice, sessions.use], [round, 4 * round, round])
  }
})

test('errors on the line are counted by kind', async () => {
  await using agent = new Agent()
  const { port } = await agent.open()
  port.resume()
  agent.near?.report({ framing: 2, break: 1 })
  agent.near?.report({ framing: 1, parity: 4, overrun: 5 })
  assert.deepEqual((await agent.status()).lineErrors, { framing: 3, parity: 4, overrun: 5, break: 1 })
})

test('what a slow watcher misses is counted as it happens', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  await agent.watch()
  const total = 4 * 1024 * 1024
  const piece = Buffer.alloc(64 * 1024)
  const sent = (async () => {
    for (let i = 0; i < total / piece.length; i++)
      await new Promise<void>((done) => device.write(piece, () => done()))
  })()
  await Promise.all([take(holder.port, total), sent])
  const { skipped, fromDevice } = await agent.status()
  assert.equal(fromDevice, total)
  assert.ok(skipped > total / 4 && skipped < total, `${skipped} bytes skipped`)
})

test('the round trip is that of the holder, once it was measured, and gone with it', async () => {
  await using agent = new Agent()
  const meter: RemoteMeter = { toDevice: 0, fromDevice: 0 }
  const { port } = await agent.open({ peer: 'anna', meter })
  await wait(async () => (await agent.status()).roundTripMs !== undefined && meter.roundTripMs !== undefined)
  assert.ok((agent.host.roundTrips().get('anna') ?? -1) > 0)
  await port[Symbol.asyncDispose]()
  await wait(async () => agent.host.roundTrips().size === 0)
  assert.equal((await agent.status()).roundTripMs, undefined)
})

test('a client counts what programs write and get, not what it costs on the way', async () => {
  await using agent = new Agent()
  const meter: RemoteMeter = { toDevice: 0, fromDevice: 0 }
  const { port } = await agent.open({ peer: 'anna', meter })
  const device = await agent.device()
  port.write(Buffer.alloc(100, 0xff))
  await take(device, 100)
  device.write(Buffer.alloc(30, 0xff))
  await take(port, 30)
  await port.configure({ baudRate: 57_600 })
  assert.deepEqual([meter.toDevice, meter.fromDevice], [100, 30])
})
