import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type Duplex, duplexPair } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { pino } from 'pino'
import { FarportError } from '../../src/errors.ts'
import { Reception } from '../../src/relay/reception.ts'
import { Roster } from '../../src/relay/roster.ts'
import { readAck, readUpdate, readWelcome, writeHello, writeUpdate } from '../../src/relay/vouch-message.ts'
import { type Callers, Vouching } from '../../src/relay/vouching.ts'
import { readMessage, writeMessage } from '../../src/wire/message.ts'
import { peer } from './peers.ts'

const log = pino({ level: 'silent' })
const [AGENT, CALLER, FRIEND] = [peer(1), peer(2), peer(3)]
const soon = () => AbortSignal.timeout(5_000)

/** A relay that can be restarted, and an agent that tells it of its callers. */
class Pair implements AsyncDisposable {
  readonly agents = new Set([AGENT])
  callers: Callers = { peerIds: [], doors: [] }
  readonly refused: FarportError[] = []
  readonly welcomes: unknown[] = []
  roster: Roster
  #reception: Reception
  readonly vouching: Vouching
  #streams: Duplex[] = []
  down = false

  constructor() {
    ;[this.roster, this.#reception] = this.#relay()
    this.vouching = new Vouching({
      open: async () => {
        if (this.down) throw new FarportError('ERR_PEER_UNREACHABLE', 'it is down')
        const [ours, theirs] = duplexPair()
        this.#streams.push(theirs)
        void this.#reception.serve(theirs, { peerId: AGENT, remoteAddress: '/ip4/192.0.2.1/tcp/5' })
        return ours
      },
      callers: () => this.callers,
      onWelcome: (welcome) => void this.welcomes.push(welcome),
      onRefused: (error) => void this.refused.push(error),
      log,
    })
  }

  say(peerIds: string[], doors: Callers['doors'] = []): Promise<void> {
    this.callers = { peerIds, doors }
    return this.vouching.refresh(5_000)
  }

  /** The relay forgets everything, and comes back when it is told to. */
  kill(): void {
    this.down = true
    for (const stream of this.#streams) stream.destroy()
    this.#reception[Symbol.dispose]()
    this.roster[Symbol.dispose]()
    ;[this.roster, this.#reception] = this.#relay()
  }

  cut(): void {
    for (const stream of this.#streams) stream.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vouching[Symbol.asyncDispose]()
    this.kill()
  }

  #relay(): [Roster, Reception] {
    const may = (peerId: string) => this.agents.has(peerId)
    const roster = new Roster({ trusts: may, mayRelay: may })
    return [roster, new Reception({ roster, stun: [3478, 3479], log })]
  }
}

test('the relay knows whom the agent vouches for, and each change when refresh() resolves', async () => {
  await using pair = new Pair()
  await pair.say([CALLER])
  assert.equal(pair.roster.mayCall(CALLER, AGENT), true)
  await pair.say([FRIEND])
  assert.equal(pair.roster.mayCall(CALLER, AGENT), false)
  assert.equal(pair.roster.mayCall(FRIEND, AGENT), true)
  assert.deepEqual(pair.welcomes, [{ seen: '/ip4/192.0.2.1/tcp/5', stun: [3478, 3479] }])
})

test('a door opens and closes with its invite', async () => {
  await using pair = new Pair()
  await pair.say([], [{ nameplate: '734', until: performance.now() + 60_000 }])
  assert.deepEqual(pair.roster.find('734'), [AGENT])
  await pair.say([])
  assert.deepEqual(pair.roster.find('734'), [])
})

test('more callers than fit into one message', async () => {
  await using pair = new Pair()
  const many = Array.from({ length: 1_500 }, (_, i) => peer(10 + i))
  await pair.say(many)
  assert.ok(many.every((one) => pair.roster.mayCall(one, AGENT)))
  await pair.say([CALLER])
  assert.ok(many.every((one) => !pair.roster.mayCall(one, AGENT)))
  assert.equal(pair.roster.mayCall(CALLER, AGENT), true)
})

test('a relay that comes back learns all of it again, and what changed meanwhile', async () => {
  await using pair = new Pair()
  await pair.say([CALLER])
  pair.kill()
  pair.callers = { peerIds: [FRIEND], doors: [] }
  assert.equal(pair.roster.mayCall(FRIEND, AGENT), false)
  pair.down = false
  await pair.vouching.refresh(5_000)
  assert.equal(pair.roster.mayCall(FRIEND, AGENT), true)
  assert.equal(pair.roster.mayCall(CALLER, AGENT), false)
})

test('a lost stream is replaced by another', async () => {
  await using pair = new Pair()
  await pair.say([CALLER])
  pair.cut()
  await pair.say([FRIEND])
  assert.equal(pair.roster.mayCall(FRIEND, AGENT), true)
})

test('a relay that does not serve us says so, and we do not insist', async (t) => {
  await using pair = new Pair()
  await pair.say([])
  pair.agents.clear()
  pair.roster.enforce()
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const refusal = Promise.withResolvers<FarportError>()
  pair.refused.push = (error) => {
    refusal.resolve(error)
    return 1
  }
  pair.cut()
  pair.vouching.hurry()
  assert.equal((await refusal.promise).code, 'ERR_NOT_GRANTED')
  assert.match((await refusal.promise).message, /may=relay/)
})

test('an update round-trips, in as many messages as it takes', async () => {
  const peerIds = fc.uniqueArray(fc.nat(5_000).map(peer), { maxLength: 1_200 })
  const doors = fc.array(
    fc.record(
      { nameplate: fc.integer({ min: 100, max: 999 }).map(String), forMs: fc.nat(600_000) },
      { requiredKeys: ['forMs'] },
    ),
    { maxLength: 4 },
  )
  await fc.assert(
    fc.asyncProperty(peerIds, peerIds, fc.option(doors, { nil: undefined }), async (vouch, unvouch, open) => {
      const [a, b] = duplexPair()
      const update = { seq: 7, vouch, unvouch, ...(open && { doors: open.map((door) => ({ ...door })) }) }
      const read = readUpdate(b, soon())
      writeUpdate(a, update)
      assert.deepEqual(JSON.parse(JSON.stringify(await read)), JSON.parse(JSON.stringify(update)))
    }),
    { numRuns: 20 },
  )
})

const malformed = [
  { seq: 0, vouch: ['nobody'], unvouch: [], more: false },
  { seq: -1, vouch: [], unvouch: [], more: false },
  { seq: 0, vouch: Array.from({ length: 513 }, (_, i) => peer(i)), unvouch: [], more: false },
  { seq: 0, vouch: [], unvouch: [], doors: Array.from({ length: 5 }, () => ({ forMs: 1 })), more: false },
  { seq: 0, vouch: [], unvouch: [], doors: [{ nameplate: '1234', forMs: 1 }], more: false },
  { seq: 0, vouch: [], unvouch: [], doors: [{ nameplate: '123', forMs: 1e12 }], more: false },
  { version: 2 },
  null,
]
for (const message of malformed)
  test(`refuses ${JSON.stringify(message).slice(0, 70)}`, async () => {
    const roster = new Roster({ trusts: () => true, mayRelay: () => true })
    using reception = new Reception({ roster, stun: [], log })
    const [agent, relay] = duplexPair()
    const served = reception.serve(relay, { peerId: AGENT, remoteAddress: '/ip4/192.0.2.1/tcp/5' })
    writeHello(agent)
    await readWelcome(agent, soon())
    writeMessage(agent, message as object)
    await assert.rejects(readAck(agent, soon()), { code: 'ERR_PROTOCOL' })
    await served
    roster[Symbol.dispose]()
    agent.destroy()
  })

test('an update without an end is refused, whatever is in it', async () => {
  const [a, b] = duplexPair()
  const read = readUpdate(b, soon())
  read.catch(() => {})
  for (let i = 0; i < 16; i++) writeMessage(a, { seq: 0, vouch: [], unvouch: [], more: true })
  await assert.rejects(read, { code: 'ERR_PROTOCOL' })
})

test('hostile bytes end the stream, never the relay', async () => {
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(fc.uint8Array({ maxLength: 40 })), async (hello, chunks) => {
      const roster = new Roster({ trusts: () => true, mayRelay: () => true })
      using reception = new Reception({ roster, stun: [], log })
      const [agent, relay] = duplexPair()
      agent.on('error', () => {}).resume()
      const served = reception.serve(relay, { peerId: AGENT, remoteAddress: '/ip4/192.0.2.1/tcp/5' })
      if (hello) writeHello(agent)
      for (const chunk of chunks) agent.write(chunk)
      agent.end()
      await served
      assert.equal(roster.mayCall(CALLER, AGENT), false)
      roster[Symbol.dispose]()
    }),
  )
})

test('a hostile relay costs the agent a stream', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 5 }), async (chunks) => {
      const opened = Promise.withResolvers<{ ours: Duplex; theirs: Duplex }>()
      await using _vouching = new Vouching({
        open: async () => {
          const [ours, theirs] = duplexPair()
          opened.resolve({ ours, theirs })
          return ours
        },
        callers: () => ({ peerIds: [CALLER], doors: [] }),
        log,
      })
      const { ours, theirs: relay } = await opened.promise
      const closed = once(ours, 'close')
      relay.on('error', () => {}).resume()
      for (const chunk of chunks) relay.write(chunk)
      relay.end()
      await closed
    }),
    { numRuns: 30 },
  )
})

test('an agent that sends and never reads is held back', async () => {
  const roster = new Roster({ trusts: () => true, mayRelay: () => true })
  using reception = new Reception({ roster, stun: [], log })
  const [agent, relay] = duplexPair({ highWaterMark: 64 })
  const served = reception.serve(relay, { peerId: AGENT, remoteAddress: '/ip4/192.0.2.1/tcp/5' })
  writeHello(agent)
  for (let seq = 0; seq < 100; seq++) writeUpdate(agent, { seq, vouch: [], unvouch: [] })
  await readWelcome(agent, soon())
  // What it has not taken back it has not sent either: most of its own messages are still with it.
  assert.ok(agent.writableLength > 2_000)
  for (let seq = 0; seq < 5; seq++) assert.equal(await readAck(agent, soon()), seq)
  agent.destroy()
  await served
  roster[Symbol.dispose]()
})

test('a refusal comes whole before the end', async () => {
  const roster = new Roster({ trusts: () => false, mayRelay: () => false })
  using reception = new Reception({ roster, stun: [], log })
  const [agent, relay] = duplexPair()
  void reception.serve(relay, { peerId: AGENT, remoteAddress: '/ip4/192.0.2.1/tcp/5' })
  writeHello(agent)
  const said = (await readMessage(agent, soon())) as { ok: boolean; code: string }
  assert.deepEqual([said.ok, said.code], [false, 'ERR_NOT_GRANTED'])
  agent.resume().end()
  await once(agent, 'close')
  roster[Symbol.dispose]()
})
