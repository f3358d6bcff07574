import assert from 'node:assert/strict'
import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { pino } from 'pino'
import { nullModem } from '../../src/serial/null-modem.ts'
import { DeviceQueue } from '../../src/session/device-queue.ts'
import type { Command } from '../../src/session/port-commands.ts'
import { until } from '../support/until.ts'

const log = pino({ level: 'silent' })
const BREAK: Command = { type: 'break' }

/** A queue before a port whose device takes nothing, as flow control has it, and that device. */
async function held(perform: (command: Command) => Promise<void> = async () => {}) {
  const [port, device] = nullModem()
  await port.configure({ outputFlow: 'rtscts' })
  const [, stream] = duplexPair()
  stream.on('error', () => {})
  stream.resume()
  const done: string[] = []
  const queue = new DeviceQueue(stream, port, {
    perform: async (command) => {
      done.push(command.type)
      await perform(command)
    },
    onWrite: (bytes) => void done.push(String(bytes.subarray(0, 6))),
    log,
  })
  await device.setLines({ rts: false })
  // What the port itself has room for.
  while (!port.writableNeedDrain) queue.data(Buffer.alloc(16 * 1024, '_'))
  done.length = 0
  return {
    ...{ queue, port, device, stream, done },
    release: async () => {
      device.resume()
      await device.setLines({ rts: true })
    },
    async [Symbol.asyncDispose]() {
      queue[Symbol.dispose]()
      await Promise.all([port[Symbol.asyncDispose](), device[Symbol.asyncDispose]()])
    },
  }
}

test('data and commands are done in the order they came, when the port takes them', async () => {
  await using line = await held()
  line.queue.data(Buffer.from('first'))
  line.queue.command(BREAK)
  line.queue.data(Buffer.from('second'))
  await turn()
  assert.deepEqual(line.done, [])
  await line.release()
  await line.queue.finish(AbortSignal.timeout(5_000))
  assert.deepEqual(line.done, ['first', 'break', 'second'])
})

test('data that is purged is not written later, not even by a write that waits; commands are done', async () => {
  await using line = await held()
  line.queue.data(Buffer.from('at the head'))
  line.queue.command(BREAK)
  line.queue.data(Buffer.from('behind'))
  await turn()
  line.queue.forgetData()
  line.queue.data(Buffer.from('new'))
  await line.release()
  await line.queue.finish(AbortSignal.timeout(5_000))
  assert.deepEqual(line.done, ['break', 'new'])
})

test('the stream is read so far ahead and no further, be it bytes or commands', async () => {
  for (const add of [
    (queue: DeviceQueue) => queue.data(Buffer.alloc(1024)),
    (queue: DeviceQueue) => queue.command(BREAK),
  ]) {
    await using line = await held()
    line.queue.data(Buffer.from('stuck'))
    let added = 0
    while (!line.stream.isPaused()) {
      add(line.queue)
      assert.ok(++added < 1_000, 'the stream goes on and on')
    }
    assert.ok(added > 10, `${added}`)
    await line.release()
    await until('the stream goes on', () => !line.stream.isPaused())
  }
})

test('who waits for the port does not wait for bytes that are stuck, and gets it without what was to be done', async () => {
  await using line = await held()
  line.queue.data(Buffer.from('stuck'))
  line.queue.command(BREAK)
  const hurry = new AbortController()
  const finished = line.queue.finish(hurry.signal)
  hurry.abort()
  await finished
  line.queue[Symbol.dispose]()
  await line.release()
  await line.queue.finish(AbortSignal.timeout(5_000))
  assert.deepEqual(line.done, [])
})

test('a command that fails ends the stream with its error, and nothing else', async () => {
  await using line = await held(async () => {
    throw new Error('the driver has no such thing')
  })
  await line.release()
  await line.port.drain()
  const failed = once(line.stream, 'error')
  line.queue.command(BREAK)
  line.queue.data(Buffer.from('behind'))
  assert.match(String((await failed)[0]), /no such thing/)
  await line.queue.finish(AbortSignal.timeout(5_000))
  assert.deepEqual(line.done, ['break'])
})
