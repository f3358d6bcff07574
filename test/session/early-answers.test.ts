import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { pino } from 'pino'
import { type ClientEvent, type ClientRequest, Rfc2217Client } from '../../src/rfc2217/client.ts'
import type { MemoryPort } from '../../src/serial/memory-port.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { SerialPort } from '../../src/serial/port.ts'
import { servePort } from '../../src/session/serve.ts'
import { CarrierPair } from '../support/carrier.ts'
import { SessionPair } from '../support/session-pair.ts'

const log = pino({ level: 'silent' })

/** A local program that speaks RFC 2217, with what it hears. */
class Program {
  readonly #client = new Rfc2217Client()
  readonly #stream: Duplex
  readonly heard: ClientEvent[] = []

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('data', (chunk: Buffer) => {
      for (const event of this.#client.push(chunk)) {
        if (event.type === 'send') stream.write(event.bytes)
        else this.heard.push(event)
      }
    })
    stream.write(this.#client.start())
  }

  ask(request: ClientRequest): ClientRequest {
    this.#stream.write(this.#client.request(request))
    return request
  }

  write(text: string): void {
    this.#stream.write(this.#client.data(Buffer.from(text)))
  }

  answer(request: ClientRequest): (ClientEvent & { type: 'answer' }) | undefined {
    const answers = this.heard.filter((event) => event.type === 'answer')
    return answers.find((answer) => answer.request === request)
  }

  /** Resolves with what is in force after it. */
  async answered(request: ClientRequest): Promise<object> {
    for (;;) {
      const answer = this.answer(request)
      if (answer) return answer.inForce
      await once(this.#stream, 'data', { signal: AbortSignal.timeout(5_000) })
    }
  }

  get bytes(): string {
    return this.heard.map((event) => (event.type === 'data' ? String(event.bytes) : '')).join('')
  }
}

interface Rig extends AsyncDisposable {
  readonly program: Program
  readonly remote: SerialPort
  readonly far: MemoryPort
  readonly pair: SessionPair
  /** From now on nothing arrives over the path; `flow` lets it. */
  stall(): void
  flow(): void
}

/** A program, the local RFC 2217 server, the path, the agent, a cable, and the device at its end. */
async function rig(): Promise<Rig> {
  const { a, b } = nullModemSources('test')
  const pair = new SessionPair({ port: a })
  const remote = await pair.open('port')
  const far = (await b.open({})) as MemoryPort
  await remote.drain()
  const local = new CarrierPair()
  const served = servePort(local.b, remote, { may: () => true, log })
  const program = new Program(local.a)
  await program.answered(program.ask({ type: 'query', what: ['baudRate'] }))
  return {
    program,
    remote,
    far,
    pair,
    stall: () => pair.carriers()[0]?.stall(),
    flow: () => pair.carriers()[0]?.flow(),
    async [Symbol.asyncDispose]() {
      for (const carrier of pair.carriers()) carrier.flow()
      local.cut()
      await served
      await remote[Symbol.asyncDispose]()
      await far[Symbol.asyncDispose]()
      await pair[Symbol.asyncDispose]()
    },
  }
}

/**
 * Long enough in turns of the event loop for an answer that does not have to travel. Waited for by time it would come in any
 * case: a path that has stalled is given up after some seconds.
 */
async function turns(): Promise<void> {
  for (let i = 0; i < 50; i++) await immediate()
}

const noTrip: { request: ClientRequest; inForce: object }[] = [
  { request: { type: 'set-lines', change: { dtr: false } }, inForce: { dtr: false } },
  { request: { type: 'set-lines', change: { dtr: false, rts: false } }, inForce: { dtr: false, rts: false } },
  { request: { type: 'set-break', on: true }, inForce: { break: true } },
  { request: { type: 'purge', what: 'rx' }, inForce: {} },
  { request: { type: 'purge', what: 'tx' }, inForce: {} },
  { request: { type: 'purge', what: 'both' }, inForce: {} },
  {
    request: { type: 'query', what: ['baudRate', 'dtr', 'rts'] },
    inForce: { baudRate: 9600, dtr: true, rts: true },
  },
  { request: { type: 'configure', change: { baudRate: 9600 } }, inForce: { baudRate: 9600 } },
]
for (const { request, inForce } of noTrip) {
  test(`${JSON.stringify(request)} costs no round trip`, async () => {
    await using all = await rig()
    all.stall()
    all.program.ask(request)
    await turns()
    assert.deepEqual(all.program.answer(request)?.inForce, inForce)
  })
}

test('settings are answered when the far end has answered', async () => {
  await using all = await rig()
  all.stall()
  const speed = all.program.ask({ type: 'configure', change: { baudRate: 115_200 } })
  const parity = all.program.ask({ type: 'configure', change: { parity: 'even' } })
  const query = all.program.ask({ type: 'query', what: ['baudRate'] })
  await turns()
  for (const request of [speed, parity, query]) assert.equal(all.program.answer(request), undefined)
  all.flow()
  assert.deepEqual(await all.program.answered(speed), { baudRate: 115_200 })
  assert.deepEqual(await all.program.answered(parity), { parity: 'even' })
  assert.deepEqual(await all.program.answered(query), { baudRate: 115_200 })
})

test('what pyserial does at open costs one round trip', async () => {
  await using all = await rig()
  const { program } = all
  all.stall()
  const settings: ClientRequest[] = [
    { type: 'configure', change: { baudRate: 115_200 } },
    { type: 'configure', change: { dataBits: 8 } },
    { type: 'configure', change: { parity: 'none' } },
    { type: 'configure', change: { stopBits: 1 } },
  ]
  for (const request of settings) program.ask(request)
  await turns()
  all.flow()
  for (const request of settings) await program.answered(request)
  all.stall()
  const rest: ClientRequest[] = [
    { type: 'configure', change: { outputFlow: 'none' } },
    { type: 'set-lines', change: { dtr: true } },
    { type: 'set-lines', change: { rts: true } },
    { type: 'purge', what: 'rx' },
    { type: 'purge', what: 'tx' },
  ]
  for (const request of rest) {
    program.ask(request)
    await turns()
    assert.ok(program.answer(request), `${request.type} is answered`)
  }
})

test('bytes and requests reach the device in the order of the program', async () => {
  await using all = await rig()
  const seen: string[] = []
  all.far.on('data', (bytes: Buffer) => seen.push(String(bytes)))
  all.far.on('lines', ({ dsr }) => seen.push(dsr ? 'DTR' : 'no DTR'))
  all.stall()
  all.program.write('a')
  all.program.ask({ type: 'set-lines', change: { dtr: false } })
  all.program.write('b')
  all.program.ask({ type: 'configure', change: { baudRate: 1200 } })
  all.program.ask({ type: 'set-lines', change: { dtr: true } })
  all.program.write('c')
  await turns()
  assert.deepEqual(seen, [])
  all.flow()
  await until(() => seen.length === 5)
  assert.deepEqual(seen, ['a', 'no DTR', 'b', 'DTR', 'c'])
  assert.equal(all.remote.settings.baudRate, 1200)
})

test('a peer that may not move the lines: the program is told, and a question gets the truth', async () => {
  await using all = await rig()
  all.pair.rights = new Set(['watch', 'use', 'configure'])
  all.stall()
  const request = all.program.ask({ type: 'set-lines', change: { dtr: false, rts: false } })
  assert.deepEqual(await all.program.answered(request), { dtr: false, rts: false })
  all.flow()
  const told = () => all.program.heard.flatMap((event) => (event.type === 'settings' ? [event.inForce] : []))
  await until(() => told().length === 2)
  assert.deepEqual(told(), [{ dtr: true }, { rts: true }])
  const query = all.program.ask({ type: 'query', what: ['dtr', 'rts'] })
  assert.deepEqual(await all.program.answered(query), { dtr: true, rts: true })
})

test('of many steps only the last is corrected', async () => {
  await using all = await rig()
  all.pair.rights = new Set(['watch', 'use', 'configure'])
  all.stall()
  for (const dtr of [false, true, false, true, false])
    await all.program.answered(all.program.ask({ type: 'set-lines', change: { dtr } }))
  all.flow()
  await all.remote.drain()
  await turns()
  assert.deepEqual(
    all.program.heard.filter(({ type }) => type === 'settings'),
    [{ type: 'settings', inForce: { dtr: true } }],
  )
})

test('what the device said before it heard of a purge is thrown away, what it says to the next bytes is not', async () => {
  await using all = await rig()
  all.far.on('data', (bytes: Buffer) => all.far.write(`you said ${bytes}`))
  all.stall()
  all.far.write('old')
  await all.program.answered(all.program.ask({ type: 'purge', what: 'rx' }))
  all.program.write('new')
  all.flow()
  await until(() => all.program.bytes.endsWith('new'))
  assert.equal(all.program.bytes, 'you said new')
})

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000
  while (!condition()) {
    assert.ok(performance.now() < deadline, 'it never came')
    await immediate()
  }
}
