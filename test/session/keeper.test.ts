import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import { readMessage, writeMessage } from '../../src/wire/message.ts'
import { type CarrierOptions, randomFrom } from '../support/carrier.ts'
import { exchange } from '../support/exchange.ts'
import { DIRECT, RELAYED, SessionPair } from '../support/session-pair.ts'

async function until(condition: () => boolean, withinMs = 5000): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!condition()) {
    assert.ok(performance.now() < deadline, `still waiting for ${condition}`)
    await turn()
  }
}

/** A link that begins on the relay, with the device at its far end. */
async function relayed({
  carrier,
  ...options
}: { carrier?: () => CarrierOptions } & Parameters<SessionPair['open']>[1] = {}) {
  const { a, b } = nullModemSources('test')
  const pair = new SessionPair({ port: a }, carrier)
  pair.prefer(RELAYED)
  const port = await pair.open('port', options)
  const far = await b.open({})
  await port.drain()
  const states = () => pair.events.map(({ state }) => state)
  return {
    pair,
    port,
    far,
    states,
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      await far[Symbol.asyncDispose]()
      await pair[Symbol.asyncDispose]()
    },
  }
}

test('a channel moves to the better path and back during a transfer, and nobody notices', async () => {
  await using link = await relayed()
  const { pair, port, far, states } = link
  let moves = 0
  const mover = (async () => {
    for (const path of [DIRECT, RELAYED, DIRECT, RELAYED, DIRECT]) {
      pair.prefer(path)
      await until(() => states().filter((state) => state === 'moved').length === moves + 1)
      moves++
    }
  })()
  await exchange(port, far, 2 * 1024 * 1024)
  await mover
  assert.deepEqual(states(), ['up', ...Array(5).fill('moved')])
  assert.deepEqual(pair.events[0], { state: 'up', path: 'relayed' })
  const moved = pair.events.at(-1)
  assert.ok(moved?.state === 'moved' && moved.path === 'direct' && moved.roundTripMs >= 0)
  await until(() => pair.carriers(RELAYED).length === 0)
  assert.equal(pair.carriers(DIRECT).length, 1)
  assert.deepEqual(
    pair.told.map(({ event }) => event),
    ['open'],
  )
})

test('while the better path does not answer, the channel goes on over the other one', async () => {
  await using link = await relayed()
  const { pair, port, far, states } = link
  pair.prefer(DIRECT)
  await until(() => pair.carriers(DIRECT).length > 0)
  for (const carrier of pair.carriers(DIRECT)) carrier.stall()
  await exchange(port, far, 200_000)
  assert.deepEqual(states(), ['up'])
  for (const carrier of pair.carriers(DIRECT)) carrier.cut()
  // The next try gets through.
  await until(() => states().includes('moved'))
  await exchange(port, far, 200_000)
  assert.deepEqual(states(), ['up', 'moved'])
})

test('a welcome that is lost leaves the old carrier in use on both sides', async () => {
  await using link = await relayed()
  const { pair, port, far, states } = link
  pair.prefer(DIRECT)
  await until(() => pair.carriers(DIRECT).length > 0)
  // The hello arrives, the answer does not.
  for (const carrier of pair.carriers(DIRECT)) carrier.stall('b')
  await exchange(port, far, 200_000)
  assert.deepEqual(states(), ['up'])
  assert.equal(pair.carriers(RELAYED).length, 1)
})

test('the old carrier dies during the move: the channel goes on over the new one', async () => {
  await using link = await relayed()
  const { pair, port, far, states } = link
  pair.prefer(DIRECT)
  await until(() => pair.carriers(DIRECT).length > 0)
  for (const carrier of pair.carriers(RELAYED)) carrier.cut()
  await exchange(port, far, 200_000)
  assert.equal(pair.carriers(DIRECT).length, 1)
  assert.ok(!states().includes('dropped'))
})

test('a path that was the best already is no reason to move', async () => {
  await using link = await relayed()
  const { pair, port, far, states } = link
  pair.prefer(RELAYED)
  await exchange(port, far, 10_000)
  assert.deepEqual(states(), ['up'])
  assert.deepEqual(
    pair.told.map(({ event }) => event),
    ['open'],
  )
})

test('a better path that is gone when it is asked for is no reason to move', async () => {
  await using link = await relayed()
  const { pair, port, far, states } = link
  const [carrier] = pair.carriers()
  pair.announce(DIRECT)
  await exchange(port, far, 10_000)
  await until(() => pair.carriers().length === 1)
  assert.deepEqual(pair.carriers(), [carrier])
  assert.deepEqual(states(), ['up'])
})

test('a path that has gone silent is suspected, and left at once', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  await using link = await relayed({ clock: Date.now })
  const { pair, port, far, states } = link
  pair.prefer(DIRECT)
  await until(() => states().includes('moved'))
  const [direct] = pair.carriers(DIRECT)
  await turn()
  direct?.stall()
  port.write('said into the void')
  let heard = ''
  far.on('data', (chunk) => {
    heard += chunk
  })
  pair.usePath(RELAYED)
  for (let ms = 0; ms < 3000; ms += 10) t.mock.timers.tick(10)
  assert.deepEqual(pair.suspected, [DIRECT.id])
  await until(() => heard === 'said into the void')
  assert.deepEqual(states(), ['up', 'moved', 'down', 'up'])
})

test('a path on which a hello is not answered is suspected too', async () => {
  await using link = await relayed()
  const { pair, states } = link
  pair.prefer(DIRECT)
  await until(() => pair.carriers(DIRECT).length > 0)
  pair.carriers(DIRECT)[0]?.stall()
  await until(() => pair.suspected.length > 0)
  assert.deepEqual(pair.suspected, [DIRECT.id])
  await until(() => states().length > 1)
  assert.deepEqual(states(), ['up', 'moved'])
})

test('a loss of ten seconds costs nothing, and a path that is back is used at once', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  await using link = await relayed({ clock: Date.now })
  const { pair, port, far, states } = link
  pair.unreachable = new Error('the relay is gone')
  pair.cut()
  await until(() => states().includes('down'))
  port.write('kept')
  far.write('there too')
  for (let ms = 0; ms < 10_000; ms += 100) {
    t.mock.timers.tick(100)
    await turn()
  }
  assert.equal(port.state, 'open')
  pair.unreachable = undefined
  let heard = ''
  far.on('data', (chunk) => {
    heard += chunk
  })
  pair.prefer(RELAYED)
  await until(() => heard === 'kept')
  assert.equal(String(await new Promise((resolve) => port.once('data', resolve))), 'there too')
  assert.equal(states().at(-1), 'up')
})

test('a carrier lost while the next try to move is waited for is replaced at once', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
  await using link = await relayed({ clock: Date.now })
  const { pair, states } = link
  pair.unreachable = new Error('not there yet')
  pair.prefer(DIRECT)
  await turn()
  pair.unreachable = undefined
  pair.usePath(RELAYED)
  pair.cut()
  await until(() => states().length === 3)
  assert.deepEqual(states(), ['up', 'down', 'up'])
})

test('a hello that was overtaken by a newer one changes nothing', async () => {
  const { a } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  const hello = {
    version: 1,
    port: 'port',
    mode: 'use',
    channel: '0f'.repeat(16),
    received: 0,
    resumeMs: 1000,
  }
  const say = (more: object) => {
    const stream = pair.connect()
    writeMessage(stream, { ...hello, ...more })
    return stream
  }
  const answered = async (stream: ReturnType<typeof say>) =>
    (await readMessage(stream, AbortSignal.timeout(5000))) as { ok: boolean }
  const first = say({ fresh: true, attempt: 1 })
  assert.equal((await answered(first)).ok, true)
  const third = say({ fresh: false, attempt: 3 })
  assert.equal((await answered(third)).ok, true)
  const second = say({ fresh: false, attempt: 2 })
  await new Promise((resolve) => second.once('close', resolve))
  const fourth = say({ fresh: false, attempt: 4, moving: true })
  assert.equal((await answered(fourth)).ok, true)
  assert.equal(third.destroyed, false)
  for (const stream of [first, third, fourth]) stream.destroy()
})

// The heart of it: whatever happens to paths, bytes and settings arrive once and in order.

type Step =
  | { do: 'write'; end: 'port' | 'far'; bytes: number }
  | { do: 'configure' }
  | { do: 'prefer' | 'cut' | 'stall' | 'stall-to-agent' | 'stall-to-client' | 'flow'; direct: boolean }
  | { do: 'wait'; turns: number }

const direct = fc.boolean()
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      end: fc.constantFrom('port' as const, 'far' as const),
      bytes: fc.oneof(fc.nat(20), fc.nat(30_000)),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('wait' as const), turns: fc.nat(30) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('configure' as const) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('prefer' as const), direct }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'cut' as const,
        'stall' as const,
        'stall-to-agent' as const,
        'stall-to-client' as const,
        'flow' as const,
        'flow' as const,
      ),
      direct,
    }),
  },
)

function pattern(from: number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => (from + i) * 31 + ((from + i) >> 8)))
}

test('over any paths, bytes and settings arrive once and in order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40, size: 'max' }), fc.nat(), async (steps, seed) => {
      const random = randomFrom(seed)
      await using link = await relayed({
        carrier: () => ({ random, capacityBytes: 1 + random(64 * 1024) }),
      })
      const { pair, port, far, states } = link
      const ends = { port, far }
      const written = { port: 0, far: 0 }
      const read = { port: 0, far: 0 }
      for (const end of ['port', 'far'] as const)
        ends[end].on('data', (chunk: Buffer) => {
          assert.deepEqual(chunk, pattern(read[end], chunk.length))
          read[end] += chunk.length
        })
      const asked: string[] = []
      const answers: Promise<unknown>[] = []
      for (const step of steps) {
        switch (step.do) {
          case 'write':
            ends[step.end].write(pattern(written[step.end], step.bytes))
            written[step.end] += step.bytes
            break
          case 'configure': {
            const baudRate = 10_000 + asked.length
            asked.push(`${baudRate} 8N1`)
            answers.push(port.configure({ baudRate }))
            break
          }
          case 'wait':
            for (let i = 0; i < step.turns; i++) await turn()
            break
          case 'prefer':
            pair.prefer(step.direct ? DIRECT : RELAYED)
            break
          default:
            for (const carrier of pair.carriers(step.direct ? DIRECT : RELAYED))
              switch (step.do) {
                case 'cut':
                case 'stall':
                case 'flow':
                  carrier[step.do]()
                  break
                case 'stall-to-agent':
                  carrier.stall('a')
                  break
                case 'stall-to-client':
                  carrier.stall('b')
                  break
              }
        }
      }
      // What is stuck now would be found to be silent in some seconds.
      pair.cut()
      pair.prefer(DIRECT)
      await Promise.all(answers)
      await until(() => read.far === written.port && read.port === written.far)
      const configured = pair.told.flatMap((told) => (told.event === 'configure' ? [told.to] : []))
      assert.deepEqual(configured, asked)
      assert.ok(!states().includes('dropped'))
      // A hello that was cut short is told as refused; but nothing else happens to the port.
      const others = pair.told.filter(({ event }) => !['configure', 'refuse'].includes(event))
      assert.deepEqual(
        others.map(({ event }) => event),
        ['open'],
      )
    }),
    { timeout: 10_000 },
  )
})
