import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { pino } from 'pino'
import { FarportError } from '../../src/errors.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import { probeAddress } from '../../src/session/rfc2217-probe.ts'
import { servePort } from '../../src/session/serve.ts'

const log = pino({ level: 'silent' })

/** A TCP server on this machine. */
async function listen(serve: (socket: Socket) => void): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket.on('error', () => {}))
    serve(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

test('a served port answers all of it right over a socket, and is left as it was', async () => {
  const { a } = nullModemSources('test')
  const port = await a.open({})
  await port.configure({ baudRate: 57_600, dataBits: 7, parity: 'even' })
  await port.setLines({ dtr: true, rts: false })
  const before = [{ ...port.settings }, { ...port.outputs }]
  await using server = await listen((socket) => void servePort(socket, port, { may: () => true, log }))
  const { findings, leftChanged } = await probeAddress(
    { host: '127.0.0.1', port: server.port },
    AbortSignal.timeout(20_000),
  )
  assert.deepEqual(
    findings.filter(({ verdict }) => verdict === 'wrong' || verdict === 'silent'),
    [],
  )
  assert.deepEqual(leftChanged, [])
  assert.deepEqual([{ ...port.settings }, { ...port.outputs }], before)
  port.destroy()
})

test('a server that hangs up at once does not know RFC 2217', async () => {
  await using server = await listen((socket) => socket.destroy())
  const { findings } = await probeAddress(
    { host: '127.0.0.1', port: server.port },
    AbortSignal.timeout(20_000),
  )
  assert.deepEqual(
    findings.map(({ verdict, answer }) => `${verdict}: ${answer}`),
    ['wrong: closes the connection'],
  )
})

test('where nobody answers it is unreachable, and a caller who stops is heeded', async () => {
  let gone = 0
  {
    const stop = new AbortController()
    await using server = await listen((socket) => socket.once('data', () => stop.abort()))
    gone = server.port
    const asked = probeAddress({ host: '127.0.0.1', port: server.port }, stop.signal)
    await assert.rejects(asked, { name: 'AbortError' })
  }
  await assert.rejects(
    probeAddress({ host: '127.0.0.1', port: gone }, AbortSignal.timeout(20_000)),
    (error) => error instanceof FarportError && error.code === 'ERR_PEER_UNREACHABLE',
  )
})
