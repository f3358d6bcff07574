import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import { listenTcp } from '../../src/endpoints/tcp.ts'
import { parseReset } from '../../src/serial/line-sequence.ts'
import type { OutputLines, SerialPort } from '../../src/serial/port.ts'
import { foreignPort } from '../../src/session/foreign-port.ts'
import { PortHost } from '../../src/session/host.ts'
import type { HostEvent } from '../../src/session/port-event.ts'
import { openRemotePort } from '../../src/session/remote.ts'
import type { Right } from '../../src/trust/grants.ts'
import { FakeEsp, SYNC_COMMAND } from '../support/fake-esp.ts'
import { SlowPath } from '../support/slow-path.ts'

const log = pino({ level: 'silent' })
const DELAY_MS = 100
/** pyserial looks so often whether a line's change has been acknowledged. */
const POLL_MS = 50
const ALL: Right[] = ['use', 'configure', 'lines']

interface BoardOptions {
  reset?: string
  clientReset?: boolean
  rights?: Right[]
}

/** A board on an agent, the way to it, and a local RFC 2217 port at this end; `program` is what opens that. */
async function farBoard({ reset = 'off', clientReset = true, rights = ALL }: BoardOptions) {
  await using stack = new AsyncDisposableStack()
  const esp = new FakeEsp()
  const told: HostEvent[] = []
  const profile = parseReset(reset)
  const host = stack.use(
    new PortHost({
      ports: [{ name: 'board', source: esp.source, ...(profile && { reset: profile }) }],
      rights: () => new Set(rights),
      tell: (event) => void told.push(event),
      log,
    }),
  )
  const server = createServer((stream) => void host.accept(stream, 'client')).listen(0, '127.0.0.1')
  stack.defer(() => void server.close())
  await once(server, 'listening')
  const path = stack.use(await SlowPath.to((server.address() as AddressInfo).port, { delayMs: DELAY_MS }))
  const open = (signal: AbortSignal): Promise<SerialPort> =>
    openRemotePort(
      {
        port: 'board',
        connect: async () => {
          const stream = connect({ port: path.port, host: '127.0.0.1', noDelay: true })
          await once(stream, 'connect')
          return { stream }
        },
        resumeMs: 30_000,
        reset: clientReset,
        report: () => {},
        log,
      },
      signal,
    )
  const local = stack.use(await listenTcp({ host: '127.0.0.1', port: 0, mode: 'rfc2217', log }, open))
  const [, port = ''] = /:(\d+)$/.exec(local.address) ?? []
  const program = stack.use(await foreignPort({ host: '127.0.0.1', port: Number(port) }, { log }).open({}))
  const cleanUp = stack.move()
  return { esp, told, program, [Symbol.asyncDispose]: () => cleanUp.disposeAsync() }
}

/** What a flashing program does over RFC 2217 to get a board into its loader, and whether the board answers then. */
async function flash(program: SerialPort): Promise<boolean> {
  const step = async (change: Partial<OutputLines>) => {
    await program.setLines(change)
    await delay(POLL_MS)
  }
  await step({ dtr: true })
  await step({ rts: true })
  await step({ dtr: false })
  await step({ rts: true })
  await step({ dtr: false })
  await delay(100)
  await step({ dtr: true })
  await step({ rts: false })
  await step({ dtr: true })
  await delay(50)
  await step({ dtr: false })
  const answer = once(program, 'data', { signal: AbortSignal.timeout(8 * DELAY_MS) })
  program.write(SYNC_COMMAND)
  return await answer.then(
    ([bytes]) => (bytes as Buffer)[2] === 8,
    () => false,
  )
}

const times = <T>(count: number, act: () => Promise<T>) => Promise.all(Array.from({ length: count }, act))

test('a board shared with reset=esp32 comes into its loader, 20 times of 20, over a path of 100 ms', async () => {
  const results = await times(20, async () => {
    await using board = await farBoard({ reset: 'esp32' })
    const answered = await flash(board.program)
    const runs = board.told.filter((event) => event.event === 'lines' && event.changed.sequence === 'esp32')
    assert.equal(runs.length, 1)
    assert.equal(board.esp.boots.at(-1), 'loader')
    return answered
  })
  assert.deepEqual(results, Array(20).fill(true))
})

test('without it the same steps start the program on the board', async () => {
  const results = await times(4, async () => {
    await using board = await farBoard({})
    const answered = await flash(board.program)
    assert.ok(!board.esp.boots.includes('loader'))
    return answered
  })
  assert.deepEqual(results, Array(4).fill(false))
})

test('a client that does not want it gets its own steps', async () => {
  await using board = await farBoard({ reset: 'esp32', clientReset: false })
  assert.equal(await flash(board.program), false)
  assert.ok(!board.told.some((event) => event.event === 'lines' && event.changed.sequence !== undefined))
})

test('a peer that may not move lines resets nothing', async () => {
  await using board = await farBoard({ reset: 'esp32', rights: ['use'] })
  assert.equal(await flash(board.program), false)
  assert.deepEqual(board.esp.boots, [])
})

test('afterwards a reset into the program is one, too', async () => {
  await using board = await farBoard({ reset: 'esp32' })
  assert.ok(await flash(board.program))
  await board.program.setLines({ rts: true })
  await delay(100)
  await board.program.setLines({ rts: false })
  // An answer to this shows that the agent has done what came before.
  await board.program.configure({ baudRate: 57_600 })
  board.program.write(SYNC_COMMAND)
  await board.program.drain()
  await board.program.configure({ baudRate: 115_200 })
  assert.deepEqual(board.esp.boots.at(-1), 'app')
})

test('1200 baud touches a board that waits for that, once, and no peer without the right to the lines', async () => {
  for (const rights of [ALL, ['use', 'configure'] as Right[]]) {
    await using board = await farBoard({ reset: 'arduino-1200', rights })
    await board.program.configure({ baudRate: 115_200 })
    await board.program.configure({ baudRate: 1200 })
    const runs = board.told.filter((event) => event.event === 'lines' && event.changed.sequence !== undefined)
    assert.equal(runs.length, rights === ALL ? 1 : 0)
  }
})
