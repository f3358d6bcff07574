import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { nullModem, nullModemSources } from '../../src/serial/null-modem.ts'
import type { InputLines, LineChanges, OutputLines } from '../../src/serial/port.ts'
import { type Device, type Rig, serialPortCompliance } from '../compliance/serial-port.ts'

/** The far end of the cable is the device: it sees our outputs as its inputs, and drives our inputs with its outputs. */
async function rig(): Promise<Rig> {
  const [port, far] = nullModem()
  const outputs: OutputLines[] = [{ ...port.outputs }]
  far.on('lines', (lines) => outputs.push({ dtr: lines.dsr, rts: lines.cts }))
  const device: Device = {
    stream: far,
    force: async ({ cts, dsr }) => {
      await far.setLines({ ...(cts !== undefined && { rts: cts }), ...(dsr !== undefined && { dtr: dsr }) })
    },
    outputs,
    breaks: [],
    sendBreak: () => far.setBreak(true),
    settings: () => assert.fail('a cable shows no settings'),
    unplug: () => port.unplug(),
    replug: () => port.plug(),
  }
  return {
    port,
    device,
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      await far[Symbol.asyncDispose]()
    },
  }
}

serialPortCompliance('null modem', rig, {
  observableSettings: [],
  inputLines: [['cts'], ['dsr', 'dcd']],
  // The far end hears a break once, when it begins.
  breakOut: false,
})

test('the lines cross: RTS to CTS, DTR to DSR and DCD', async () => {
  const [a, b] = nullModem()
  await using _ = a
  await using __ = b
  assert.deepEqual(a.lines, { cts: true, dsr: true, ri: false, dcd: true })
  assert.deepEqual(b.lines, { cts: true, dsr: true, ri: false, dcd: true })
  const heard: [InputLines, LineChanges][] = []
  b.on('lines', (lines, changes) => heard.push([lines, changes]))
  await a.setLines({ dtr: false, rts: false })
  await a.setLines({ rts: true })
  assert.deepEqual(heard, [
    [
      { cts: false, dsr: false, ri: false, dcd: false },
      { cts: 1, dsr: 1, ri: 0, dcd: 1 },
    ],
    [
      { cts: true, dsr: false, ri: false, dcd: false },
      { cts: 1, dsr: 0, ri: 0, dcd: 0 },
    ],
  ])
  assert.deepEqual(a.lines, { cts: true, dsr: true, ri: false, dcd: true }, 'its own lines are the other’s')
})

test('a break is heard once, when it begins', async () => {
  const [a, b] = nullModem()
  await using _ = a
  await using __ = b
  let breaks = 0
  b.on('lineErrors', (errors) => {
    breaks += errors.break
  })
  for (const on of [true, true, false, true, false]) await a.setBreak(on)
  assert.equal(breaks, 2)
})

test('what one end holds is bounded, and the other waits', async () => {
  const [a, b] = nullModem({ receiveBufferBytes: 1000 })
  await using _ = a
  await using __ = b
  let done = false
  a.write(Buffer.alloc(100_000), () => {
    done = true
  })
  await new Promise(setImmediate)
  assert.equal(done, false)
  assert.ok(b.readableLength < 1000 + 16 * 1024 + 1, `${b.readableLength} bytes are held`)
  let received = 0
  for await (const chunk of b) {
    received += chunk.length
    if (received === 100_000) break
  }
  await new Promise(setImmediate)
  assert.equal(done, true)
})

test('the sender may use its buffer again', async () => {
  const [a, b] = nullModem()
  await using _ = a
  await using __ = b
  const buffer = Buffer.from('first')
  a.write(buffer)
  buffer.write('other')
  assert.equal(String(b.read()), 'first')
})

test('programs that answer each other at once do not get lost in each other', async () => {
  const [a, b] = nullModem()
  await using _ = a
  await using __ = b
  const ROUNDS = 20_000
  let rounds = 0
  b.on('data', (chunk) => b.write(chunk))
  a.on('data', (chunk) => {
    if (++rounds < ROUNDS) a.write(chunk)
    else a.emit('rounds')
  })
  const finished = once(a, 'rounds')
  a.write('x')
  await finished
  assert.equal(rounds, ROUNDS)
})

test('a purge while bytes are on their way is no purge of what is written after it', async () => {
  const [a, b] = nullModem()
  await using _ = a
  await using __ = b
  const heard: Buffer[] = []
  b.on('data', (chunk) => {
    heard.push(chunk)
    if (heard.length > 1) return
    void a.purge('tx')
    a.write('after the purge')
  })
  await new Promise(setImmediate)
  const before = Buffer.alloc(100_000, 'x')
  a.write(before)
  await a.drain()
  const all = Buffer.concat(heard)
  assert.ok(all.length < before.length)
  assert.equal(all.toString().replace(/^x+/, ''), 'after the purge')
})

test('an end nobody has open: lines low, bytes lost, nobody waits', async () => {
  const { a, b } = nullModemSources('cable')
  assert.equal(a.description.path, 'cable/a')
  await using left = await a.open({})
  assert.deepEqual(left.lines, { cts: false, dsr: false, ri: false, dcd: false })
  left.write('into the void')
  await left.drain()

  const comes = once(left, 'lines')
  const right = await b.open({})
  assert.deepEqual((await comes)[0], { cts: true, dsr: true, ri: false, dcd: true })
  assert.equal(right.read(), null)
  left.write(Buffer.alloc(1_000_000))
  const drained = left.drain()

  const goes = once(left, 'lines')
  await right.setLines({ dtr: false, rts: false })
  assert.deepEqual((await goes)[0], { cts: false, dsr: false, ri: false, dcd: false })
  await right[Symbol.asyncDispose]()
  await drained
})

test('an end that closes takes its lines away', async () => {
  const { a, b } = nullModemSources('cable')
  const left = await a.open({})
  const right = await b.open({})
  const goes = once(left, 'lines')
  await right[Symbol.asyncDispose]()
  assert.deepEqual((await goes)[0], { cts: false, dsr: false, ri: false, dcd: false })
  await left[Symbol.asyncDispose]()
  await using again = await a.open({})
  assert.deepEqual(again.lines, { cts: false, dsr: false, ri: false, dcd: false })
})

test('a program that moves its lines while it reads is told nothing twice', async () => {
  const [a, b] = nullModem()
  await using _ = a
  await using __ = b
  let heard = ''
  b.on('data', (chunk) => {
    heard += chunk
    void b.setLines({ rts: false })
    void b.setLines({ rts: true })
  })
  await new Promise(setImmediate)
  a.write('once')
  a.write(' only')
  await a.drain()
  assert.equal(heard, 'once only')
})

test('each end is open once at a time', async () => {
  const { a, b } = nullModemSources('cable')
  await using left = await a.open({})
  await using right = await b.open({})
  assert.equal(left.state, right.state)
  await assert.rejects(a.open({}), { code: 'ERR_PORT_BUSY' })
  await assert.rejects(b.open({}), { code: 'ERR_PORT_BUSY' })
})
