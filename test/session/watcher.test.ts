import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Agent, heardBy, refusedWith, until } from '../support/agent.ts'
import { receive, send } from '../support/exchange.ts'

const MIB = 1024 * 1024

test('a watcher gets what the device sent before, up to what is kept, and from now on, like the holder', async () => {
  await using agent = new Agent({ replayBytes: 8 })
  const device = await agent.device()
  const holder = await agent.open()
  const held = heardBy(holder)
  device.write('0123456789')
  await until(() => held.text() === '0123456789', 'the holder hears it')
  const all = heardBy(await agent.watch())
  const some = heardBy(await agent.watch({ replayBytes: 3 }))
  const none = heardBy(await agent.watch({ replayBytes: 0 }))
  device.write('abc')
  await until(() => none.text() === 'abc', 'what comes now')
  await until(() => some.text() === '789abc', 'the last three')
  await until(() => all.text() === '23456789abc', 'all that is kept')
  assert.equal(held.text(), '0123456789abc')
})

test('nothing a watcher does reaches the device, and it is told so', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const atDevice: string[] = []
  device.on('data', (bytes) => atDevice.push(String(bytes)))
  device.on('lineErrors', () => atDevice.push('break'))
  const holder = await agent.open()
  const { port } = await agent.watch()
  const { settings, outputs } = holder.port
  device.on('lines', () => atDevice.push('lines'))
  port.write('rm -rf /')
  assert.deepEqual(await port.configure({ baudRate: 1200, parity: 'even' }), settings)
  assert.deepEqual(await port.setLines({ dtr: !outputs.dtr, rts: !outputs.rts }), outputs)
  await port.setBreak(true)
  await port.setBreak(false)
  // What the holder has not read yet would be lost to a purge of the device.
  holder.port.pause()
  await port.purge('both')
  await port.drain()
  port.end()
  await once(port, 'close')
  await until(() => agent.closes().length === 1, 'the watcher has left')
  holder.port.write('.')
  await until(() => atDevice.length > 0, 'the device hears the holder')
  assert.deepEqual(atDevice, ['.'])
  assert.deepEqual(holder.port.settings, settings)
  const [close] = agent.closes()
  assert.deepEqual([close?.mode, close?.toDevice, close?.ignored], ['watch', 0, 8])
  assert.ok(!agent.told.some(({ event }) => event === 'configure' || event === 'lines'))
})

test('a watcher is told of settings that the holder makes, and of lines that the device moves', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  const { port } = await agent.watch()
  // The first answer says that RFC 2217 is agreed upon.
  await port.setLines({ dtr: true })
  const settings = once(port, 'settings')
  await holder.port.configure({ baudRate: 57_600, dataBits: 7, parity: 'even' })
  await settings
  assert.deepEqual(
    [port.settings.baudRate, port.settings.dataBits, port.settings.parity],
    [57_600, 7, 'even'],
  )
  const lines = once(port, 'lines')
  await device.setLines({ rts: false })
  await lines
  assert.equal(port.lines.cts, false)
})

test('a watcher that does not read holds back nobody; what it misses is marked where it is missing', async () => {
  const total = 8 * MIB
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  const stalled = await agent.watch({ replayBytes: 0 })
  const [one, two] = [await agent.watch({ peer: 'one' }), await agent.watch({ peer: 'two' })]
  const gaps: number[] = []
  let taken = 0
  stalled.port.on(
    'lineErrors',
    ({ overrun }) => overrun > 0 && gaps.push(taken + stalled.port.readableLength),
  )
  // Never further ahead of those who read than a line is: in memory a device is faster than any event loop.
  const readers = [holder, one, two]
  const progress = readers.map(() => 0)
  const line = new Writable({
    async write(bytes: Buffer, _encoding, done) {
      sentBytes += bytes.length
      await until(() => Math.min(...progress) > sentBytes - MIB / 4, 'those who read keep up')
      device.write(bytes, done)
    },
  })
  let sentBytes = 0
  const [sent, ...received] = await Promise.all([
    send(line, total),
    ...readers.map(({ port }, i) =>
      receive(port, total, (bytes) => {
        progress[i] = bytes
      }),
    ),
  ])
  assert.deepEqual(received, [sent, sent, sent])
  assert.deepEqual(gaps, [])

  const rest: Buffer[] = []
  stalled.port.on('data', (bytes: Buffer) => {
    taken += bytes.length
    rest.push(bytes)
  })
  await until(() => gaps.length > 0, 'the gap is marked')
  for (const { port } of readers) port.resume()
  const end = Buffer.from('the end')
  await until(() => {
    device.write(end)
    return Buffer.concat(rest.slice(-20)).includes(end)
  }, 'the watcher is live again')
  assert.equal(gaps.length, 1)
  const before = Buffer.concat(rest).subarray(0, gaps[0])
  assert.ok(before.length >= 0.9 * MIB, `${before.length} bytes before the gap`)
  assert.ok(before.length < 2 * MIB, `${before.length} bytes before the gap`)
  assert.equal(String(Buffer.concat(rest).subarray(gaps[0], (gaps[0] ?? 0) + end.length)), String(end))
  stalled.port.destroy()
  await until(() => agent.closes().length === 1, 'it has left')
  const [close] = agent.closes()
  assert.ok((close?.skipped ?? 0) >= total - 2 * MIB, `${close?.skipped} skipped`)
})

test('however slow those who watch are, the holder gets every byte as fast as the device sends', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  const watchers = [await agent.watch(), await agent.watch(), await agent.watch()]
  watchers[0]?.port.resume()
  for (const carrier of watchers[1]?.carriers ?? []) carrier.stall()
  const [sent, received] = await Promise.all([send(device, 8 * MIB), receive(holder.port, 8 * MIB)])
  assert.equal(received, sent)
})

test('a holder that does not read holds back the device, as it does without watchers', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  holder.port.pause()
  const seen = heardBy(await agent.watch())
  let accepted = 0
  // As long as the device takes some within a few turns.
  for (let idle = 0; idle < 50; idle++) {
    if (!device.writableNeedDrain) {
      device.write(Buffer.alloc(16 * 1024, 'x'))
      idle = 0
    }
    await turn()
  }
  accepted = seen.text().length
  assert.ok(accepted < 2 * MIB, `${accepted} bytes`)
  holder.port.resume()
  await once(device, 'drain')
  await until(() => seen.text().length > accepted, 'it goes on')
})

test('carriers of a watcher are cut during a transfer and not a byte is lost or repeated', async () => {
  const total = 512 * 1024
  await using agent = new Agent()
  const device = await agent.device()
  const watcher = await agent.watch()
  let next = 50_000
  const [sent, received] = await Promise.all([
    send(device, total),
    receive(watcher.port, total, (bytes) => {
      if (bytes < next) return
      next += 50_000
      watcher.carriers.at(-1)?.cut()
    }),
  ])
  assert.equal(received, sent)
  assert.ok(watcher.carriers.length > 5, `${watcher.carriers.length} carriers`)
  assert.ok(!watcher.events.some(({ state }) => state === 'dropped' || state === 'skipped'))
})

test('a watcher moves to a better path during a transfer and not a byte is lost or repeated', async () => {
  const total = 512 * 1024
  await using agent = new Agent()
  const device = await agent.device()
  const watcher = await agent.watch()
  let moves = false
  const [sent, received] = await Promise.all([
    send(device, total),
    receive(watcher.port, total, (bytes) => {
      if (bytes < 50_000 || moves) return
      moves = true
      watcher.prefer({ id: 'straight', kind: 'direct' })
    }),
  ])
  assert.equal(received, sent)
  await until(() => watcher.events.some(({ state }) => state === 'moved'), 'it has moved')
  assert.ok(!watcher.events.some(({ state }) => state === 'down' || state === 'skipped'))
  const seen = heardBy(watcher)
  watcher.port.resume()
  device.write('on the direct path')
  await until(() => seen.text() === 'on the direct path', 'it goes on there')
})

test('a watcher that is away for long misses what has no room, is told, and costs no more than that', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const watcher = await agent.watch()
  const seen = heardBy(watcher)
  let gaps = 0
  watcher.port.on('lineErrors', () => gaps++)
  device.write('0')
  await until(() => seen.text() === '0', 'it is there')
  watcher.unreachable = true
  for (const carrier of watcher.carriers) carrier.cut()
  await until(() => watcher.events.some(({ state }) => state === 'down'), 'it knows')
  const sent = await send(device, 3 * MIB)
  assert.equal(createHash('sha256').update(seen.text()).digest('hex') === sent, false)
  watcher.unreachable = false
  // The device goes on while the watcher catches up: that is the same gap.
  await until(() => {
    device.write('.')
    return gaps > 0 && seen.text().endsWith('..')
  }, 'the gap is marked')
  assert.ok(seen.text().length >= 0.9 * MIB && seen.text().length < 2 * MIB, `${seen.text().length} bytes`)
  device.write('live')
  await until(() => seen.text().endsWith('live'), 'live again')
  assert.equal(gaps, 1)
})

test('watchers are counted: so many of one peer, whose lost programs make room, and so many in all', async () => {
  await using agent = new Agent()
  const mine = []
  for (let i = 0; i < 4; i++) mine.push(await agent.watch({ peer: 'many' }))
  await assert.rejects(agent.watch({ peer: 'many' }), refusedWith('ERR_PORT_BUSY', /as many watchers/))
  const [ghost] = mine
  assert.ok(ghost)
  ghost.unreachable = true
  for (const carrier of ghost.carriers) carrier.cut()
  await until(() => ghost.events.some(({ state }) => state === 'down'), 'its program is dead')
  await agent.watch({ peer: 'many' })
  for (let i = 4; i < 16; i++) await agent.watch({ peer: `one of many ${i}` })
  await assert.rejects(agent.watch({ peer: 'one more' }), refusedWith('ERR_PORT_BUSY', /as many watchers/))
  await agent.open()
  assert.equal((await agent.list('client'))?.watchers, 16)
})

test('a watcher that comes back after its channel has expired is not shown the same again', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const anchor = await agent.watch({ peer: 'anchor' })
  anchor.port.resume()
  const watcher = await agent.watch({ resumeMs: 1_000 })
  const seen = heardBy(watcher)
  device.write('old ')
  await until(() => seen.text() === 'old ', 'heard')
  watcher.unreachable = true
  for (const carrier of watcher.carriers) carrier.cut()
  assert.deepEqual(await once(watcher.port, 'state'), ['absent'])
  watcher.unreachable = false
  assert.deepEqual(await once(watcher.port, 'state'), ['open'])
  device.write('new')
  await until(() => seen.text().endsWith('new'), 'heard again')
  assert.equal(seen.text(), 'old new')
})
