import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { pino } from 'pino'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import { PortHost } from '../../src/session/host.ts'
import type { CallerPath, HostEvent } from '../../src/session/port-event.ts'
import { openRemotePort } from '../../src/session/remote.ts'
import type { Right } from '../../src/trust/grants.ts'
import { CarrierPair } from '../support/carrier.ts'

const log = pino({ level: 'silent' })
const path: CallerPath = { kind: 'relayed', remoteAddress: '/ip4/192.0.2.7/tcp/4001' }
const who = { peerId: 'anna', path, port: 'port' }

/** A host with one port, a client that has opened it, and what the host told. */
async function opened(rights: Right[]) {
  const { a, b } = nullModemSources('test')
  const told: HostEvent[] = []
  const closed = Promise.withResolvers<void>()
  const host = new PortHost({
    ports: [{ name: 'port', source: a }],
    rights: () => new Set(rights),
    tell: (event) => {
      told.push(event)
      if (event.event === 'close') closed.resolve()
    },
    log,
  })
  const open = (port: string) =>
    openRemotePort(
      {
        port,
        connect: async () => {
          const carrier = new CarrierPair()
          void host.accept(carrier.b, 'anna', path)
          return { stream: carrier.a }
        },
        resumeMs: 30_000,
        report: () => {},
        log,
      },
      AbortSignal.timeout(5_000),
    )
  const device = await b.open({})
  return { host, told, closed: closed.promise, open, device }
}

/** Without what a test can't know. */
const plain = (event: HostEvent) => (event.event === 'close' ? { ...event, durationMs: 0 } : event)

test('the host tells what a peer did with a port: only what changed, and bytes of data alone', async () => {
  const { host, told, closed, open, device } = await opened(['watch', 'use', 'configure', 'lines'])
  await using _host = host
  await using _device = device
  const port = await open('port')
  const before = port.outputs
  await port.configure({ baudRate: 57_600, dataBits: 7, parity: 'even' })
  await port.configure({ baudRate: 57_600 })
  await port.setLines({ dtr: !before.dtr })
  await port.setLines({ dtr: !before.dtr })
  await port.setBreak(true)
  await port.setBreak(false)
  // 0xff is doubled on the way, and is one byte all the same.
  const bytes = Buffer.from([0xff, 1, 0xff])
  const heard = once(device, 'data')
  port.write(bytes)
  await heard
  const answered = once(port, 'data')
  device.write(Buffer.from([0xff, 0xff]))
  await answered
  port.end()
  await closed
  assert.deepEqual(told.map(plain), [
    { event: 'open', ...who },
    { event: 'configure', ...who, from: '9600 8N1', to: '57600 7E1' },
    { event: 'lines', ...who, changed: { dtr: !before.dtr } },
    { event: 'lines', ...who, changed: { break: true } },
    { event: 'lines', ...who, changed: { break: false } },
    { event: 'close', ...who, toDevice: 3, fromDevice: 2, durationMs: 0, reason: 'the peer closed it' },
  ])
})

test('what a peer may not do does not happen, and is not told as if it had', async () => {
  const { host, told, closed, open, device } = await opened(['watch', 'use'])
  await using _host = host
  await using _device = device
  const port = await open('port')
  await port.configure({ baudRate: 57_600 })
  await port.setLines({ dtr: !port.outputs.dtr })
  await port.setBreak(true)
  port.end()
  await closed
  assert.deepEqual(
    told.map(({ event }) => event),
    ['open', 'close'],
  )
})

test('who is sent away is told with where it came from and why', async () => {
  const { host, told, open, device } = await opened([])
  await using _host = host
  await using _device = device
  await assert.rejects(open('port'))
  assert.equal(told.length, 1)
  const [refusal] = told
  assert.deepEqual({ ...refusal, reason: '' }, { event: 'refuse', peerId: 'anna', path, reason: '' })
  assert.match(refusal?.event === 'refuse' ? refusal.reason : '', /may not use port/)
})

test('a port that is closed on a peer is told with the reason', async () => {
  const rights: Right[] = ['watch', 'use']
  const { host, told, closed, open, device } = await opened(rights)
  await using _device = device
  const withdrawn = await open('port')
  rights.length = 0
  host.enforce()
  await closed
  withdrawn.destroy()
  rights.push('watch', 'use')
  await using _port = await open('port')
  await host[Symbol.asyncDispose]()
  const reasons = told.flatMap((event) => (event.event === 'close' ? [event.reason] : []))
  assert.equal(reasons.length, 2)
  assert.match(reasons[0] ?? '', /may not use port/)
  assert.equal(reasons[1], 'the agent is shutting down')
})
