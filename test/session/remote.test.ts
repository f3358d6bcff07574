import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import type { MemoryPort } from '../../src/serial/memory-port.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { OutputLines, PortSource, SerialPort } from '../../src/serial/port.ts'
import { type Device, type Rig, serialPortCompliance } from '../compliance/serial-port.ts'
import { exchange, receive, send } from '../support/exchange.ts'
import { SessionPair } from '../support/session-pair.ts'
import { until } from '../support/until.ts'

/** A remote port in front of one end of a null modem; the device is the other end, beside the agent. */
async function rig(): Promise<Rig & { pair: SessionPair; far: MemoryPort }> {
  const { a, b } = nullModemSources('test')
  let near: MemoryPort | undefined
  const source: PortSource = {
    ...a,
    open: async (options) => {
      near = (await a.open(options)) as MemoryPort
      return near
    },
  }
  const pair = new SessionPair({ port: source })
  const port = await pair.open('port')
  const far = (await b.open({})) as MemoryPort
  // One round trip, after which the agent knows what we want to be told of.
  await port.drain()
  const outputs: OutputLines[] = [{ dtr: true, rts: true }]
  const breaks: boolean[] = []
  far.on('lines', (lines) => outputs.push({ dtr: lines.dsr, rts: lines.cts }))
  far.on('lineErrors', (errors) => breaks.push(...Array<boolean>(errors.break).fill(true)))
  const device: Device = {
    stream: far,
    force: async ({ cts, dsr }) => {
      await far.setLines({ ...(cts !== undefined && { rts: cts }), ...(dsr !== undefined && { dtr: dsr }) })
    },
    outputs,
    breaks,
    sendBreak: () => far.setBreak(true),
    settings: () => assert.fail('a cable shows no settings'),
    unplug: () => near?.unplug(),
    replug: () => near?.plug(),
  }
  return {
    port,
    device,
    pair,
    far,
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      await far[Symbol.asyncDispose]()
      await pair[Symbol.asyncDispose]()
    },
  }
}

serialPortCompliance('remote port', rig, {
  observableSettings: [],
  inputLines: [['cts'], ['dsr', 'dcd']],
  breakOut: false,
})

async function whenState(port: SerialPort, state: SerialPort['state']): Promise<void> {
  while (port.state !== state) await once(port, 'state')
}

test('carriers are cut twenty times during a transfer and not a byte is lost or repeated', async () => {
  await using all = await rig()
  const total = 4 * 1024 * 1024
  const cutter = setInterval(() => all.pair.cut(), 10)
  let cuts = 0
  const cut = all.pair.cut.bind(all.pair)
  all.pair.cut = () => {
    cut()
    if (++cuts === 20) clearInterval(cutter)
  }
  await exchange(all.port, all.far, total)
  clearInterval(cutter)
  assert.ok(cuts > 3, `only ${cuts} cuts before the transfer was over`)
  assert.equal(all.port.state, 'open')
})

test('settings and lines are put back when the agent has forgotten the channel', async () => {
  const { a, b } = nullModemSources('test')
  await using first = new SessionPair({ port: a })
  const port = await first.open('port')
  const far = await b.open({})
  await port.configure({ baudRate: 123_456, parity: 'even' })
  await port.setLines({ rts: false })
  assert.equal(far.lines.cts, false)
  // The agent restarts: its host is gone, and the next one knows nothing.
  await first.host[Symbol.asyncDispose]()
  await using second = new SessionPair({ port: a })
  first.connect = (peer) => second.connect(peer)
  await whenState(port, 'absent')
  await whenState(port, 'open')
  await port.drain()
  assert.equal(port.settings.baudRate, 123_456)
  assert.equal(port.settings.parity, 'even')
  assert.equal(far.lines.cts, false)
  await exchange(port, far, 100_000)
  await port[Symbol.asyncDispose]()
  await far[Symbol.asyncDispose]()
})

test('what could not be delivered within the resume time is dropped, counted and reported', async () => {
  const { a, b } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  const port = await pair.open('port', { resumeMs: 1_000 })
  const far = await b.open({})
  pair.unreachable = new Error('no way there')
  pair.cut()
  port.write("yesterday's command")
  await whenState(port, 'absent')
  const dropped = pair.events.filter((event) => event.state === 'dropped')
  assert.equal(dropped.length, 1)
  assert.ok((dropped[0]?.bytes ?? 0) >= 19, 'the command is among them')
  pair.unreachable = undefined
  await whenState(port, 'open')
  port.write("today's")
  assert.equal(String((await once(far, 'data'))[0]), "today's")
  await port[Symbol.asyncDispose]()
  await far[Symbol.asyncDispose]()
})

/** A port at one end of a cable whose plug the test has in hand. */
function pluggable() {
  const { a, b } = nullModemSources('test')
  const opened: MemoryPort[] = []
  const source: PortSource = {
    ...a,
    open: async (options) => {
      const port = (await a.open(options)) as MemoryPort
      opened.push(port)
      return port
    },
  }
  return { source, far: b, near: () => opened.at(-1) as MemoryPort }
}

test('a device that stays away for too long gets nothing of what was written meanwhile, on neither side', async () => {
  const { source, far: b, near } = pluggable()
  await using pair = new SessionPair({ port: source })
  await using port = await pair.open('port', { resumeMs: 1_000 })
  await using far = await b.open({})
  await port.drain()
  // So that bytes are on their way to the device when it goes.
  await far.setLines({ rts: false })
  await port.configure({ outputFlow: 'rtscts' })
  port.write('under way')
  await until('the agent has it', () => near().writableLength > 0)
  near().unplug()
  await whenState(port, 'absent')
  port.write("yesterday's command")
  await until('all of it is too old', () => {
    const dropped = pair.events.filter((event) => event.state === 'dropped')
    return near().writableLength === 0 && dropped.some(({ bytes }) => bytes === 19)
  })
  near().plug()
  await whenState(port, 'open')
  await far.setLines({ rts: true })
  port.write("today's")
  assert.equal(String((await once(far, 'data'))[0]), "today's")
})

test('what is written to a device that is away for long is thrown away, but not as fast as it comes', async () => {
  const { source, near } = pluggable()
  await using pair = new SessionPair({ port: source })
  await using port = await pair.open('port', { resumeMs: 1_000 })
  await port.drain()
  near().unplug()
  await whenState(port, 'absent')
  const drops = () => pair.events.filter(({ state }) => state === 'dropped').length
  const again = () => {
    if (!port.destroyed) port.write('on and on', again)
  }
  again()
  let [seen, since] = [0, performance.now()]
  await until('one waits half a second', () => {
    if (drops() !== seen) [seen, since] = [drops(), performance.now()]
    return seen > 0 && performance.now() - since > 450
  })
  // Timers are a millisecond early or late: a few go at the moment when the first one is too old.
  assert.ok(seen <= 5, `${seen} before it`)
  await until('it is dropped in its turn', () => drops() > seen)
})

test('a carrier that is replaced while the device is away does not bring the device back', async () => {
  const { source, near } = pluggable()
  await using pair = new SessionPair({ port: source })
  await using port = await pair.open('port')
  await port.drain()
  near().unplug()
  await whenState(port, 'absent')
  pair.cut()
  await until('the carrier is replaced', () => {
    const states = pair.events.map(({ state }) => state)
    return states.slice(-3).join() === 'down,up,absent'
  })
  assert.equal(port.state, 'absent')
  near().plug()
  await whenState(port, 'open')
  assert.equal(pair.events.at(-1)?.state, 'up')
})

test('a channel that is lost while the device is away comes back with what was asked for meanwhile', async () => {
  const { source, far: b, near } = pluggable()
  await using first = new SessionPair({ port: source })
  await using port = await first.open('port')
  await using far = await b.open({})
  await port.drain()
  near().unplug()
  await whenState(port, 'absent')
  await port.configure({ baudRate: 123_456 })
  await port.setLines({ rts: false })
  await first.host[Symbol.asyncDispose]()
  await using second = new SessionPair({ port: source })
  first.connect = (peer) => second.connect(peer)
  await whenState(port, 'open')
  await port.drain()
  assert.equal(near().settings.baudRate, 123_456)
  assert.equal(far.lines.cts, false)
  await exchange(port, far, 20_000)
})

test('end() delivers what was written before the device is let go', async () => {
  const { a, b } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  const port = await pair.open('port')
  const far = await b.open({})
  const total = 300_000
  const got = receive(far, total)
  const sent = await send(port, total)
  port.end()
  await once(port, 'close')
  assert.equal(await got, sent)
  await far[Symbol.asyncDispose]()
})
test('a first answer that takes longer than bytes are kept opens the port all the same', async () => {
  const { a, b } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  await using far = await b.open({})
  const connect = pair.connect.bind(pair)
  pair.connect = (peer) => {
    const stream = connect(peer)
    const carrier = pair.carriers().at(-1)
    carrier?.stall()
    setTimeout(() => carrier?.flow(), 50)
    return stream
  }
  await using port = await pair.open('port', { resumeMs: 0 })
  port.write('hello')
  assert.equal(String((await once(far, 'data'))[0]), 'hello')
})
