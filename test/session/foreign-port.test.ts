import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { pino } from 'pino'
import type { MemoryPort } from '../../src/serial/memory-port.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { OutputLines, SerialPort } from '../../src/serial/port.ts'
import { DEFAULT_SETTINGS } from '../../src/serial/settings.ts'
import { foreignPort } from '../../src/session/foreign-port.ts'
import { servePort } from '../../src/session/serve.ts'
import { TelnetDecoder } from '../../src/telnet/decoder.ts'
import { subnegotiation } from '../../src/telnet/encoder.ts'
import { type Device, type Rig, serialPortCompliance } from '../compliance/serial-port.ts'
import { exchange } from '../support/exchange.ts'
import { hex, toHex } from '../telnet/stream.ts'

const log = pino({ level: 'silent' })
const host = '127.0.0.1'

/** A TCP server that can go away and come back on the same port. */
class Server implements AsyncDisposable {
  readonly #serve: (socket: Socket) => void | Promise<void>
  readonly #sockets = new Set<Socket>()
  #server = createServer()
  port = 0

  constructor(serve: (socket: Socket) => void | Promise<void>) {
    this.#serve = serve
  }

  static async start(serve: (socket: Socket) => void | Promise<void>): Promise<Server> {
    const server = new Server(serve)
    await server.start()
    return server
  }

  async start(): Promise<void> {
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => {}).on('close', () => this.#sockets.delete(socket))
      void this.#serve(socket)
    }).listen(this.port, host)
    await once(this.#server, 'listening')
    this.port = (this.#server.address() as AddressInfo).port
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  open(): Promise<SerialPort> {
    return foreignPort({ host, port: this.port }, { log }).open({ signal: AbortSignal.timeout(5_000) })
  }
}

/** Our own server half on a socket, in front of one end of a null modem; the device is the other end. */
async function rig(): Promise<Rig & { server: Server; far: MemoryPort }> {
  const { a, b } = nullModemSources('test')
  const server = await Server.start(async (socket) => {
    await using near = await a.open({})
    await servePort(socket, near, { may: () => true, log })
    socket.destroy()
  })
  const far = (await b.open({})) as MemoryPort
  const port = await server.open()
  await port.drain()
  const outputs: OutputLines[] = [{ dtr: true, rts: true }]
  const breaks: boolean[] = []
  far.on('lines', (lines) => outputs.push({ dtr: lines.dsr, rts: lines.cts }))
  const device: Device = {
    stream: far,
    force: async ({ cts, dsr }) => {
      await far.setLines({ ...(cts !== undefined && { rts: cts }), ...(dsr !== undefined && { dtr: dsr }) })
    },
    outputs,
    breaks,
    sendBreak: () => far.setBreak(true),
    settings: () => assert.fail('a cable shows no settings'),
    unplug: () => server.stop(),
    replug: () => server.start(),
  }
  return {
    port,
    device,
    server,
    far,
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      await server.stop()
      await far[Symbol.asyncDispose]()
    },
  }
}

serialPortCompliance('foreign port', rig, {
  observableSettings: [],
  inputLines: [['cts'], ['dsr', 'dcd']],
  breakOut: false,
})

interface ScriptedOptions {
  /** The payloads of subnegotiations it answers a message with, both in hexadecimal; nothing for silence. */
  answers?: (message: string) => string[]
  /** What it says first. */
  greeting?: string
  /** Given the bytes that are no telnet. */
  onData?: (bytes: Uint8Array, socket: Socket) => void
}

/** A server that does just what a test says it does. */
function scripted({ answers = () => [], greeting = 'ff fd 2c', onData = () => {} }: ScriptedOptions) {
  return Server.start((socket) => {
    const telnet = new TelnetDecoder()
    socket.write(hex(greeting))
    socket.on('data', (chunk) => {
      for (const event of telnet.push(chunk)) {
        if (event.type === 'data') onData(event.bytes, socket)
        if (event.type !== 'subnegotiation') continue
        for (const payload of answers(toHex(event.payload))) socket.write(subnegotiation(44, hex(payload)))
      }
    })
    socket.on('end', () => socket.end())
  })
}

/** Answers what sets, or asks for, a baud rate, and nothing else. */
const baudOnly = (message: string): string[] => {
  const [, rate] = /^01 (.*)$/.exec(message) ?? []
  if (rate === undefined) return []
  return [`65 ${rate === '00 00 00 00' ? '00 00 25 80' : rate}`]
}

test('what a server leaves unanswered is waited for in vain once, and holds up nothing', async () => {
  await using server = await scripted({ answers: baudOnly })
  await using port = await server.open()
  const start = performance.now()
  const stop = port.configure({ stopBits: 1.5 })
  const lines = port.setLines({ dtr: false })
  const speed = port.configure({ baudRate: 57_600 })
  assert.equal((await speed).baudRate, 57_600)
  assert.equal((await stop).stopBits, 1, 'a setting is left as it was')
  assert.deepEqual(await lines, { dtr: false, rts: true }, 'lines are taken as asked: a port without them')
  await port.purge('both')
  await port.setBreak(true)
  assert.ok(performance.now() - start < 1_500, 'the answer behind it shows that none will come')
})

test('a server that answers nothing at all costs time, and no more', async () => {
  let got = 0
  await using server = await scripted({
    onData: (bytes) => {
      got += bytes.length
    },
  })
  await using port = await server.open()
  const [settings, outputs] = await Promise.all([
    port.configure({ baudRate: 1200 }),
    port.setLines({ rts: false }),
    port.purge('rx'),
  ])
  assert.equal(settings.baudRate, 9600)
  assert.deepEqual(outputs, { dtr: true, rts: false })
  port.write(new Uint8Array(200_000))
  await port.drain()
  await until(() => got === 200_000)
})

test('a refused setting, and what others set, are state and not errors', async () => {
  const answers = (message: string) => (message === '02 07' ? ['66 08', '67 02'] : baudOnly(message))
  await using server = await scripted({ answers })
  await using port = await server.open()
  const news = once(port, 'settings')
  assert.equal((await port.configure({ dataBits: 7 })).dataBits, 8)
  assert.equal((await news)[0].parity, 'odd')
  assert.equal(port.settings.parity, 'odd')
})

for (const [kind, greeting] of [
  ['a telnet server that says no', 'ff fe 2c ff fc 2c ff fd 03'],
  ['a telnet server that does not care', 'ff fd 03 ff fb 03'],
  ['a server that knows no telnet', ''],
] as const) {
  test(`${kind} gives bytes, and settings stay as they are`, async () => {
    const raw = greeting === ''
    const seen: Buffer[] = []
    await using server = await Server.start((socket) => {
      socket.write(hex(greeting))
      socket.on('data', (chunk) => {
        seen.push(chunk)
        if (chunk.includes('?')) socket.write(raw ? hex('61 ff 62') : hex('61 ff ff 62'))
      })
    })
    await using port = await foreignPort({ host, port: server.port }, { agreeMs: 50, log }).open({})
    assert.deepEqual(await port.configure({ baudRate: 115_200 }), DEFAULT_SETTINGS)
    assert.deepEqual(await port.setLines({ dtr: false }), { dtr: false, rts: true })
    await port.purge('rx')
    port.write(hex('78 ff 3f'))
    const [bytes] = await once(port, 'data')
    assert.deepEqual(bytes, Buffer.from(hex('61 ff 62')))
    assert.ok(
      Buffer.concat(seen)
        .toString('hex')
        .endsWith(raw ? '78ff3f' : '78ffff3f'),
    )
    await port.drain()
  })
}

test('what the device says in one piece with the answer to a purge is not thrown away', async () => {
  const { a, b } = nullModemSources('test')
  const sockets: Socket[] = []
  await using server = await Server.start(async (socket) => {
    sockets.push(socket)
    await using near = await a.open({})
    await servePort(socket, near, { may: () => true, log })
  })
  await using far = (await b.open({})) as MemoryPort
  await using port = await server.open()
  await port.drain()
  const [socket] = sockets
  far.on('data', (bytes: Buffer) => {
    far.write(`you said ${bytes}`, () => setImmediate(() => socket?.uncork()))
  })
  socket?.cork()
  const purged = port.purge('rx')
  port.write('new')
  const [chunk] = await once(port, 'data')
  assert.equal(String(chunk), 'you said new')
  await purged
})

test('nobody there, a busy port and a hang-up are told apart', async () => {
  const nobody = foreignPort({ host, port: 1 }, { log })
  assert.equal(await nobody.present(), false)
  await assert.rejects(nobody.open({}), { code: 'ERR_DEVICE_ABSENT', message: /127\.0\.0\.1:1 refuses/ })

  await using busy = await Server.start(
    (socket) => void socket.end('\xff\xfd\x2cPort already in use\r\n', 'latin1'),
  )
  assert.equal(await foreignPort({ host, port: busy.port }, { log }).present(), true)
  await assert.rejects(busy.open(), { code: 'ERR_PORT_BUSY', message: /says: Port already in use/ })

  await using rude = await Server.start((socket) => void socket.destroy())
  await assert.rejects(rude.open(), { code: 'ERR_DEVICE_ABSENT', message: /hangs up/ })
})

test('opening ends with its signal', async () => {
  await using server = await Server.start(() => {})
  const reason = new Error('enough')
  const opening = foreignPort({ host, port: server.port }, { log }).open({
    signal: AbortSignal.abort(reason),
  })
  await assert.rejects(opening, (error) => error === reason)
  const late = AbortSignal.timeout(20)
  await assert.rejects(foreignPort({ host, port: server.port }, { log }).open({ signal: late }), {
    name: 'TimeoutError',
  })
})

test('bulk both ways is exact, before and after the server was restarted', async () => {
  await using all = await rig()
  await exchange(all.port, all.far, 1024 * 1024)
  const away = once(all.port, 'state')
  await all.server.stop()
  assert.deepEqual(await away, ['absent'])
  all.port.write('written while it was away')
  const heard = once(all.far, 'data')
  all.far.resume()
  await all.server.start()
  assert.equal(String((await heard)[0]), 'written while it was away')
  all.far.pause()
  await exchange(all.port, all.far, 1024 * 1024)
})

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000
  while (!condition()) {
    assert.ok(performance.now() < deadline, 'it never came')
    await immediate()
  }
}
