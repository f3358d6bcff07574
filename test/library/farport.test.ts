import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ReadlineParser, SerialPort } from 'serialport'
import { FarportError, farportBinding, openFarport, serialPortOf } from '../../src/index.ts'
import { exchange } from '../support/exchange.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { until } from '../support/until.ts'

const index = new URL('../../src/index.ts', import.meta.url).href
/** What @serialport/stream exports. */
const SerialPortStream = Object.getPrototypeOf(SerialPort) as new (options: object) => SerialPort
const page = new URL('../../docs/library.md', import.meta.url)

async function withPorts(grant = 'ports=gps,echo') {
  const homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant(grant)
  const agent = await homes.share('simulated:gps=gps', `${device.slavePath}=echo`)
  return { homes, device, agent, [Symbol.asyncDispose]: () => homes[Symbol.asyncDispose]() }
}

function hasCode(code: string) {
  return (error: unknown) => error instanceof FarportError && error.code === code
}

function done(run: (callback: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => run((error) => (error ? reject(error) : resolve())))
}

test('two ports over one node; 1 MiB both ways; beside a farport connect of the same home', async () => {
  await using bench = await withPorts()
  await bench.homes.connect('a/gps', '--raw', '127.0.0.1:0')
  await using farport = await openFarport({ home: bench.homes.clientHome })
  assert.deepEqual(
    (await farport.ports('a')).map(({ name }) => name),
    ['gps', 'echo'],
  )
  const gps = await farport.open('a/gps', { watch: true })
  await using echo = await farport.open('a/echo', { line: '19200-7E1' })
  assert.match(String((await once(gps, 'data'))[0]), /\$G|,|\*/)
  assert.equal(echo.settings.baudRate, 19200)
  await echo.configure({ dataBits: 8, parity: 'none' })
  await exchange(echo, bench.device.master, 1024 * 1024)
})

test('what can not be opened says why', async () => {
  await using bench = await withPorts()
  await using farport = await openFarport({ home: bench.homes.clientHome })
  await assert.rejects(farport.open('gps'), hasCode('ERR_USAGE'))
  await assert.rejects(farport.open('nobody/gps'), hasCode('ERR_NOT_TRUSTED'))
  await assert.rejects(farport.open('a/none'), FarportError)
  await using _held = await farport.open('a/gps')
  await assert.rejects(farport.open('a/gps'), hasCode('ERR_PORT_BUSY'))
})

test('closing the node closes its ports, and opens no more', async () => {
  await using bench = await withPorts()
  const farport = await openFarport({ home: bench.homes.clientHome })
  const port = await farport.open('a/gps')
  const closed = once(port, 'close')
  await farport[Symbol.asyncDispose]()
  await closed
  await assert.rejects(farport.open('a/gps'), hasCode('ERR_CHANNEL_LOST'))
})

test("serialport's class on a far port", async () => {
  await using bench = await withPorts()
  await using farport = await openFarport({ home: bench.homes.clientHome })
  const SerialPort = serialPortOf(farport)
  assert.deepEqual(
    (await SerialPort.list()).map(({ path }) => path),
    ['a/gps', 'a/echo'],
  )
  const gps = new SerialPort({ path: 'a/gps', baudRate: 9600 })
  const [line] = await once(gps.pipe(new ReadlineParser({ delimiter: '\r\n' })), 'data')
  assert.match(line, /^\$G[A-Z]{4},.*\*[0-9A-F]{2}$/)
  await done((callback) => gps.close(callback))
  await assert.rejects(
    done((callback) => gps.close(callback)),
    { message: 'Port is not open' },
  )

  const echo = new SerialPort({ path: 'a/echo', baudRate: 9600, autoOpen: false })
  await done((callback) => echo.open(callback))
  await done((callback) => echo.update({ baudRate: 115200 }, callback))
  assert.deepEqual(await echo.port?.getBaudRate(), { baudRate: 115200 })
  await done((callback) => echo.set({ dtr: false, rts: true }, callback))
  await done((callback) => echo.flush(callback))
  const lines = await new Promise((resolve) => echo.get((_, status) => resolve(status)))
  assert.deepEqual(Object.keys(lines as object), ['cts', 'dsr', 'dcd'])
  await exchange(echo, bench.device.master, 1024 * 1024)
  await done((callback) => echo.drain(callback))
  await done((callback) => echo.close(callback))
  // The same object can be opened again.
  await done((callback) => echo.open(callback))
  await done((callback) => echo.close(callback))
})

test('as modbus-serial does it: a binding among the options, opened later, a frame there and back', async () => {
  await using bench = await withPorts()
  await using farport = await openFarport({ home: bench.homes.clientHome })
  const options = { baudRate: 19200, parity: 'none' as const, autoOpen: false }
  const port = new SerialPort(
    Object.assign({}, { path: 'a/echo' }, options, { binding: farportBinding(farport) }) as never,
  )
  await done((callback) => port.open(callback))
  const frame = Buffer.from('010300000002c40b', 'hex')
  const asked = once(bench.device.master, 'data')
  port.write(frame)
  assert.deepEqual((await asked)[0], frame)
  const answered = once(port, 'data')
  bench.device.master.write(Buffer.from('01030400010002aa32', 'hex'))
  assert.equal((await answered)[0].toString('hex'), '01030400010002aa32')
  await done((callback) => port.close(callback))
})

test('as zigbee-herdsman does it: software flow control, set and get by callback, closed without listeners', async () => {
  await using bench = await withPorts()
  await using farport = await openFarport({ home: bench.homes.clientHome })
  const port = new SerialPortStream({
    ...{ path: 'a/echo', baudRate: 115200, rtscts: false, xon: true, xoff: true },
    ...{ dataBits: 8, parity: 'none', stopBits: 1, autoOpen: false, binding: farportBinding(farport) },
  })
  await done((callback) => port.open(callback))
  assert.equal(port.isOpen, true)
  await done((callback) => port.set({ dtr: false, rts: false }, callback))
  await done((callback) => port.get(callback))
  const asked = once(bench.device.master, 'data')
  assert.equal(port.write(Buffer.from('1ac038bc7e', 'hex')), true)
  assert.equal((await asked)[0].toString('hex'), '1ac038bc7e')
  port.removeAllListeners()
  await done((callback) => port.close(callback))
  assert.equal(port.isOpen, false)
})

test('a port is taken over, and the one who had it hears of it; watch and steal are not both', async () => {
  await using bench = await withPorts('ports=* may=use,watch,steal')
  await using first = await openFarport({ home: bench.homes.clientHome })
  const held = await first.open('a/gps')
  const lost = once(held, 'error')
  await assert.rejects(first.open('a/gps', { watch: true, steal: true }), hasCode('ERR_USAGE'))
  await using taken = await first.open('a/gps', { steal: true })
  const [error] = await lost
  assert.match(error.message, /gps was taken over by another program of the same peer/)
  assert.match(String((await once(taken, 'data'))[0]), /\$G|,|\*/)
  await using watcher = await first.open('a/gps', { watch: true, replayBytes: 0 })
  assert.ok((await once(watcher, 'data'))[0].length > 0)
})

test('a read that waits is canceled by close, and a closed binding says so', async () => {
  await using bench = await withPorts()
  await using farport = await openFarport({ home: bench.homes.clientHome })
  const port = await farportBinding(farport).open({ path: 'a/echo', baudRate: 9600 })
  const reading = assert.rejects(port.read(Buffer.alloc(8), 0, 8), { canceled: true })
  await port.close()
  await reading
  await assert.rejects(port.write(Buffer.from('x')), { message: 'Port is not open' })
  await assert.rejects(port.read(Buffer.alloc(8), 0, 8), { message: 'Port is not open' })
})

test('a port that is lost is a disconnect to serialport', async () => {
  await using bench = await withPorts()
  const farport = await openFarport({ home: bench.homes.clientHome })
  const SerialPort = serialPortOf(farport)
  const echo = new SerialPort({ path: 'a/echo', baudRate: 9600 })
  await once(echo, 'open')
  echo.resume()
  const closed = once(echo, 'close')
  await farport[Symbol.asyncDispose]()
  assert.equal((await closed)[0]?.disconnected, true)
})

test('the agent is killed and started again: an open port goes on, with its settings', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=echo')
  const agent = await homes.share(`${device.slavePath}=echo`)
  await using farport = await openFarport({ home: homes.clientHome })
  const echo = new (serialPortOf(farport))({ path: 'a/echo', baudRate: 57_600 })
  await once(echo, 'open')
  await exchange(echo, device.master, 100_000)

  process.kill(agent.pid, 'SIGKILL')
  const listen = (agent.addresses[0] ?? '').replace(/\/p2p\/.*$/, '')
  const again = homes.start([
    ...['share', `${device.slavePath}=echo`, '--home', homes.agentHome, '--listen', listen],
  ])
  await again.event('ready')
  device.master.write('back')
  const [bytes] = await once(echo.resume(), 'data')
  assert.match(String(bytes), /back/)
  await until('the speed is put back', () => device.termios().ospeed === 57_600)
  assert.equal(echo.isOpen, true)
  await done((callback) => echo.close(callback))
})

test('every example of docs/library.md runs, and its process ends by itself', async () => {
  await using bench = await withPorts()
  const examples = [...readFileSync(page, 'utf8').matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code ?? '')
  assert.ok(examples.length >= 2)
  for (const [i, code] of examples.entries()) {
    const file = join(bench.homes.dir, `example-${i}.ts`)
    await writeFile(
      file,
      code
        .replaceAll("'farport'", `'${index}'`)
        .replaceAll("'serialport'", `'${import.meta.resolve('serialport')}'`)
        .replaceAll('workshop', 'a'),
    )
    const child = spawn(process.execPath, [file], {
      env: { ...process.env, FARPORT_HOME: bench.homes.clientHome },
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 30_000,
    })
    let out = ''
    child.stdout.on('data', (chunk) => {
      out += chunk
    })
    assert.deepEqual(await once(child, 'close'), [0, null], `example ${i + 1} said: ${out}`)
    assert.match(out, /\$G/)
  }
})
