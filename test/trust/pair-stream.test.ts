import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type Duplex, duplexPair } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { joinInvite, serveInvite } from '../../src/trust/pair-stream.ts'
import { PAIRING_TIMEOUT_MS, type PairingFailure } from '../../src/trust/pairing.ts'
import { inviteSentence, joinSentence } from '../../src/trust/pairing-sentences.ts'
import { CarrierPair, randomFrom } from '../support/carrier.ts'
import {
  ANNA,
  ANNA_TERMS,
  framed,
  INVITE_ID,
  MALLORY,
  SECRET,
  WORKSHOP,
  WORKSHOP_TERMS,
  Workshop,
  WRONG,
} from './pairing-ends.ts'

// Loaded when somebody pairs; mocked timers are not to wait for that.
import '../../src/trust/inviter.ts'
import '../../src/trust/joiner.ts'

const never = new AbortController().signal
const LINGER_MS = 2000
/** What the workshop says to all that fails. */
const FAILED = Buffer.from('000101', 'hex')
const HELLO = framed(1, ...INVITE_ID, ...Buffer.alloc(16))

const ANNAS_LINE = {
  name: 'anna',
  peerId: ANNA,
  addrs: [],
  ports: WORKSHOP_TERMS.ports,
  may: WORKSHOP_TERMS.may,
  expires: WORKSHOP_TERMS.expires,
}
const PAIRED = [
  ['ended', 'used'],
  ['paired', ANNAS_LINE],
]

/** A minute after whatever was before, so that nobody is there too often. */
function serve(workshop: Workshop, stream: Duplex, { joiner = ANNA, signal = never } = {}): Promise<void> {
  workshop.nowMs += 61_000
  return serveInvite(stream, { self: WORKSHOP, joiner, invites: workshop.invites, signal })
}

function join(stream: Duplex, options: Partial<Parameters<typeof joinInvite>[1]> = {}) {
  const anna = { self: ANNA, inviter: WORKSHOP, inviteId: INVITE_ID, secret: SECRET, terms: ANNA_TERMS }
  return joinInvite(stream, { ...anna, signal: never, ...options })
}

/** Both ends of one pairing, which both end. */
async function meet(workshop: Workshop, options: Partial<Parameters<typeof joinInvite>[1]> = {}) {
  using pair = new CarrierPair()
  const [served, joined] = await Promise.allSettled([serve(workshop, pair.b), join(pair.a, options)])
  assert.equal(served.status, 'fulfilled')
  assert.deepEqual([pair.a.destroyed, pair.b.destroyed], [true, true])
  return joined
}

function assertRefused(joined: PromiseSettledResult<unknown>, sentence: RegExp): void {
  const error = joined.status === 'rejected' ? joined.reason : undefined
  assert.ok(error instanceof FarportError, String(error))
  assert.equal(error.code, 'ERR_NOT_TRUSTED')
  assert.match(error.message, sentence)
  assertNoSecret(error)
}

function assertNoSecret(error: FarportError): void {
  for (let at: unknown = error; at instanceof Error; at = at.cause)
    for (const secret of [SECRET, WRONG])
      for (const form of ['latin1', 'hex', 'base64'] as const)
        assert.ok(!String(at.stack).includes(secret.toString(form)))
}

/** Lets `act` take the place of message M0 to M7, whoever sends it. */
function instead(pair: CarrierPair, index: number, act: () => void): void {
  let sent = 0
  for (const end of [pair.a, pair.b]) {
    const write = end.write.bind(end) as (bytes: Uint8Array) => boolean
    end.write = (bytes: Uint8Array) => {
      if (sent++ !== index) return write(bytes)
      act()
      return true
    }
  }
}

function timersRunning(): number {
  return process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length
}

/** As many turns of the event loop as anything in memory takes. */
async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await turn()
}

async function read(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

test('the right code: both have a line, and both hang up', async () => {
  using workshop = new Workshop()
  using pair = new CarrierPair()
  const timers = timersRunning()
  const [, joined] = await Promise.all([serve(workshop, pair.b), join(pair.a)])
  assert.equal(timersRunning(), timers)
  const { ports, may, expires, name, addrs } = WORKSHOP_TERMS
  assert.deepEqual(joined, {
    peer: { name, peerId: WORKSHOP, ports: [], may: [], addrs },
    allows: { ports, may, expires },
  })
  assert.deepEqual(workshop.told, PAIRED)
  for (const end of [pair.a, pair.b]) {
    assert.equal(end.destroyed, true)
    // Ended, not reset.
    assert.deepEqual([end.errored, end.readableEnded, end.writableFinished], [null, true, true])
  }
})

test('however the bytes are cut', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), async (seed) => {
      using workshop = new Workshop()
      using pair = new CarrierPair({ random: randomFrom(seed) })
      await Promise.all([serve(workshop, pair.b), join(pair.a)])
      assert.deepEqual(workshop.told, PAIRED)
    }),
    { numRuns: 20 },
  )
})

test('a wrong code costs a try, and the right one is still good', async () => {
  using workshop = new Workshop()
  assertRefused(await meet(workshop, { secret: WRONG }), /the code or ticket is wrong: check it/)
  assert.deepEqual(workshop.told, [['failed', 'wrong-secret', 2]])
  workshop.told.length = 0
  assert.equal((await meet(workshop)).status, 'fulfilled')
  assert.deepEqual(workshop.told, PAIRED)
})

test('after three wrong ones the right one is refused, in the words for any invite that is not there', async () => {
  using workshop = new Workshop()
  for (const left of [2, 1, 0]) {
    assertRefused(await meet(workshop, { secret: WRONG }), /is wrong/)
    assert.deepEqual(workshop.told.shift(), ['failed', 'wrong-secret', left])
  }
  assert.deepEqual(workshop.told.shift(), ['ended', 'burnt'])
  const burnt = await meet(workshop)
  const unknown = await meet(workshop, { inviteId: Buffer.from('code-999') })
  for (const joined of [burnt, unknown]) assertRefused(joined, /no such invite open for you/)
  assert.deepEqual(
    workshop.told.map(([event, reason]) => [event, reason]),
    [
      ['refused', 'invite-over'],
      ['refused', 'unknown-invite'],
    ],
  )
  assert.deepEqual(workshop.recorded, [])
})

for (const index of [0, 1, 2, 3, 4, 5, 6])
  test(`the connection is lost instead of M${index}: nobody is trusted, and the next one pairs`, async () => {
    using workshop = new Workshop()
    using pair = new CarrierPair()
    instead(pair, index, () => pair.cut())
    const [served, joined] = await Promise.allSettled([serve(workshop, pair.b), join(pair.a)])
    assert.equal(served.status, 'fulfilled')
    assertRefused(joined, index < 6 ? /lost before the pairing was done/ : /lost at the very end/)
    assert.deepEqual(workshop.told, index === 0 ? [] : [['failed', 'closed', 2]])
    assert.deepEqual(workshop.recorded, [])
    workshop.told.length = 0
    assert.equal((await meet(workshop)).status, 'fulfilled')
  })

test('the connection is lost instead of M7: the joiner is told that the other side may trust it', async () => {
  using workshop = new Workshop()
  using pair = new CarrierPair()
  instead(pair, 7, () => pair.cut())
  const [, joined] = await Promise.allSettled([serve(workshop, pair.b), join(pair.a)])
  assertRefused(joined, /at the very end of the pairing.*ask for a new invite/)
  assert.deepEqual(workshop.told, PAIRED)
})

for (const index of [0, 1, 2, 3, 4, 5, 6])
  test(`silence instead of M${index}: over after 15 seconds, and not before`, async (t) => {
    using workshop = new Workshop()
    t.mock.timers.enable({ apis: ['setTimeout'] })
    using pair = new CarrierPair()
    instead(pair, index, () => {})
    let over = 0
    const ends = Promise.allSettled(
      [serve(workshop, pair.b), join(pair.a)].map((end) => end.finally(() => over++)),
    )
    await settle()
    t.mock.timers.tick(PAIRING_TIMEOUT_MS - 1)
    await settle()
    assert.equal(over, 0)
    t.mock.timers.tick(1)
    const [served, joined] = await ends
    assert.equal(served?.status, 'fulfilled')
    assertRefused(joined as PromiseSettledResult<unknown>, /in time/)
    assert.deepEqual(workshop.told, index === 0 ? [] : [['failed', 'timeout', 2]])
  })

test('a peer that never reads holds the invite for 15 seconds and the stream for two more', async (t) => {
  using workshop = new Workshop()
  t.mock.timers.enable({ apis: ['setTimeout'] })
  using pair = new CarrierPair({ capacityBytes: 1 })
  pair.a.write(HELLO)
  const served = serve(workshop, pair.b)
  await settle()
  t.mock.timers.tick(PAIRING_TIMEOUT_MS)
  await settle()
  assert.deepEqual(workshop.told, [['failed', 'timeout', 2]])
  assert.equal(pair.b.destroyed, false)
  assert.ok(pair.b.writableLength < 64, `${pair.b.writableLength} bytes`)
  t.mock.timers.tick(LINGER_MS)
  await served
  assert.equal(pair.b.destroyed, true)
})

test('a peer that never stops talking is heard out for two seconds', async (t) => {
  using workshop = new Workshop()
  t.mock.timers.enable({ apis: ['setTimeout'] })
  using pair = new CarrierPair()
  const served = serve(workshop, pair.b)
  let talking = true
  const talked = (async () => {
    for (; !pair.a.destroyed && talking; await turn()) pair.a.write(Buffer.alloc(1024))
  })()
  await settle()
  assert.equal(pair.b.destroyed, false)
  assert.ok(pair.b.readableLength <= 64 * 1024)
  t.mock.timers.tick(LINGER_MS)
  await served
  assert.equal(pair.b.destroyed, true)
  talking = false
  await talked
})

const nonsense: [string, Uint8Array, unknown[][]][] = [
  ['a message longer than any', Buffer.from('0401', 'hex'), []],
  ['an empty message', Buffer.from('0000', 'hex'), []],
  ['another version', framed(2, ...INVITE_ID, ...Buffer.alloc(16)), []],
  ['two messages too many', Buffer.concat([HELLO, HELLO]), [['failed', 'malformed', 2]]],
]
for (const [what, bytes, told] of nonsense)
  test(`${what} is answered like all that fails`, async () => {
    using workshop = new Workshop()
    using pair = new CarrierPair()
    pair.a.end(bytes)
    const [answer] = await Promise.all([read(pair.a), serve(workshop, pair.b)])
    assert.deepEqual(answer.subarray(-3), FAILED)
    assert.deepEqual(workshop.told, told)
  })

test('whatever comes, the inviter ends in peace and records nobody', async () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 3000 }),
    fc.uint8Array({ maxLength: 400 }).map((rest) => Buffer.concat([HELLO, rest])),
  )
  await fc.assert(
    fc.asyncProperty(bytes, fc.boolean(), async (sent, polite) => {
      using workshop = new Workshop()
      using pair = new CarrierPair()
      pair.a.resume()
      if (polite) pair.a.end(sent)
      else pair.a.write(sent, () => pair.a.destroy())
      await serve(workshop, pair.b)
      assert.deepEqual([workshop.recorded, pair.b.destroyed], [[], true])
    }),
    { numRuns: 50 },
  )
})

test('whatever comes, the joiner trusts nobody and says so in one way', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), fc.boolean(), async (bytes, nonce) => {
      using pair = new CarrierPair()
      pair.b.resume()
      pair.b.end(nonce ? Buffer.concat([framed(...Buffer.alloc(16)), bytes]) : bytes)
      const [joined] = await Promise.allSettled([join(pair.a)])
      assertRefused(joined, /./)
    }),
    { numRuns: 50 },
  )
})

test('another PeerID from the same address is too soon there', async () => {
  using workshop = new Workshop()
  for (const joiner of [ANNA, MALLORY]) {
    using pair = new CarrierPair()
    pair.a.end(HELLO)
    const options = { self: WORKSHOP, joiner, invites: workshop.invites, address: '192.0.2.7', signal: never }
    await Promise.all([serveInvite(pair.b, options), read(pair.a)])
  }
  assert.deepEqual(workshop.told, [
    ['failed', 'closed', 2],
    ['refused', 'too-often', { peerId: MALLORY, address: '192.0.2.7' }],
  ])
})

test('one identity at both ends does not pair with itself, and pays nothing', async () => {
  using workshop = new Workshop()
  using pair = new CarrierPair()
  const itself = { self: WORKSHOP, inviter: WORKSHOP }
  const [, joined] = await Promise.allSettled([
    serve(workshop, pair.b, { joiner: WORKSHOP }),
    join(pair.a, itself),
  ])
  assertRefused(joined, /this very machine/)
  // Nor when the joiner does not mind.
  using other = new CarrierPair()
  other.a.end(HELLO)
  await Promise.all([serve(workshop, other.b, { joiner: WORKSHOP }), read(other.a)])
  assert.deepEqual(workshop.told, [])
})

test('a ticket of someone else is not even shown', async () => {
  using pair = new CarrierPair()
  pair.b.end()
  const [said, joined] = await Promise.all([
    read(pair.b),
    Promise.allSettled([join(pair.a, { expected: MALLORY })]),
  ])
  assertRefused(joined[0], /not the one who made the ticket/)
  assert.equal(said.length, 0)
})

test('a line that can not be written: the joiner is refused, the invite is spent', async () => {
  using workshop = new Workshop()
  const full = new FarportError('ERR_HOME', 'the disk is full')
  workshop.record = () => Promise.reject(full)
  assertRefused(await meet(workshop), /could not note down/)
  assert.deepEqual(workshop.told, [
    ['ended', 'used'],
    ['unrecorded', full],
  ])
})

test('the signal ends either side at once, whatever it waits for', async () => {
  using workshop = new Workshop()
  for (const [left, who] of ['joiner', 'inviter'].entries()) {
    using pair = new CarrierPair()
    instead(pair, 3, () => stop.abort(new Error('enough')))
    const stop = new AbortController()
    const [, joined] = await Promise.allSettled([
      serve(workshop, pair.b, who === 'inviter' ? { signal: stop.signal } : {}),
      join(pair.a, who === 'joiner' ? { signal: stop.signal } : {}),
    ])
    assert.deepEqual(workshop.told.shift(), ['failed', 'closed', 1 + 1 - left])
    if (who === 'inviter') assertRefused(joined, /connection was lost/)
    else assert.equal(joined.status === 'rejected' && joined.reason.message, 'enough')
  }
})

test('who is stopped before the start says nothing', async () => {
  using pair = new CarrierPair()
  instead(pair, 0, () => assert.fail('a try was paid'))
  await assert.rejects(join(pair.a, { signal: AbortSignal.abort(new Error('enough')) }), /enough/)
  assert.equal(pair.a.destroyed, true)
})

test('a joiner that has proven itself is recorded, though the inviter is stopped while writing', async () => {
  using workshop = new Workshop()
  using pair = new CarrierPair()
  const stop = new AbortController()
  const disk = Promise.withResolvers<void>()
  const recorded = once(workshop.invites, 'ended')
  workshop.record = async (peer) => {
    await disk.promise
    return peer
  }
  const ends = Promise.allSettled([serve(workshop, pair.b, { signal: stop.signal }), join(pair.a)])
  await recorded
  stop.abort()
  await settle()
  disk.resolve()
  await ends
  assert.deepEqual(workshop.told, PAIRED)
})

test('a fault of our own ends the stream, and nothing else', async (t: TestContext) => {
  using workshop = new Workshop()
  workshop.invites.on('failed', () => {
    throw new Error('a bug')
  })
  using pair = new CarrierPair()
  t.after(() => pair.cut())
  const [served] = await Promise.allSettled([serve(workshop, pair.b), join(pair.a, { secret: WRONG })])
  assert.equal(served.status, 'fulfilled')
  assert.equal(pair.b.errored?.message, 'a bug')
})

type InviteNews = Parameters<typeof inviteSentence>[0]

/** So that the compiler knows when one is missing here. */
const reasons = Object.keys({
  'wrong-secret': 0,
  refused: 0,
  closed: 0,
  timeout: 0,
  malformed: 0,
  version: 0,
  reflected: 0,
  'static-key': 0,
  terms: 0,
  self: 0,
  'wrong-peer': 0,
  'not-recorded': 0,
  'unknown-invite': 0,
  'invite-over': 0,
  busy: 0,
  'too-often': 0,
  shut: 0,
  revoked: 0,
} satisfies Record<PairingFailure, 0>) as PairingFailure[]

test('there is a sentence for whatever happens', () => {
  const news = reasons.flatMap((reason): InviteNews[] => [
    ...[2, 1, 0].map((triesLeft) => ({ type: 'failed' as const, reason, triesLeft })),
    { type: 'refused', reason, peerId: MALLORY },
  ])
  const ends = (['used', 'expired', 'burnt', 'cancelled', 'shut'] as const).map((how): InviteNews => {
    return { type: 'ended', how }
  })
  const sentences = [
    ...reasons.flatMap((reason) => [0, 1, 2, 3, 4].map((sent) => joinSentence(reason, sent))),
    ...[...news, ...ends].map(inviteSentence),
  ]
  for (const sentence of sentences)
    assert.match(sentence, /^(?!.*(undefined|object))[a-zA-Z0-9][ -~]{15,}[^.]$/)
})

test('what is said on the inviter’s screen', () => {
  const said: [InviteNews, string][] = [
    [
      { type: 'failed', reason: 'wrong-secret', triesLeft: 2 },
      'someone tried a wrong code or ticket: 2 tries left',
    ],
    [{ type: 'failed', reason: 'closed', triesLeft: 1 }, 'someone began to pair and went away: 1 try left'],
    [
      { type: 'failed', reason: 'timeout', triesLeft: 0 },
      'someone began to pair and did not go on: that was the last try',
    ],
    [
      { type: 'refused', reason: 'too-often', peerId: MALLORY },
      `${MALLORY} was turned away: it tried too often`,
    ],
    [
      { type: 'paired', peer: { name: 'anna', peerId: ANNA, ports: [], may: [], addrs: [] } },
      `paired with anna (${ANNA}): it may use none of our ports`,
    ],
    [
      { type: 'unrecorded', error: new Error('something inside') },
      'a peer had the right secret, but its line of trusted_peers could not be written, so neither of you trusts the other. Mend that and make a new invite',
    ],
  ]
  for (const [news, sentence] of said) assert.equal(inviteSentence(news), sentence)
})

test('a stream that breaks before anything is read of it breaks nothing else', async () => {
  using workshop = new Workshop()
  const [near, far] = duplexPair()
  const ends = Promise.allSettled([serve(workshop, near), join(far)])
  // Nobody but the two listens for their errors.
  for (const end of [near, far]) end.destroy(new Error('reset'))
  const [served, joined] = await ends
  assert.equal(served.status, 'fulfilled')
  assertRefused(joined, /the connection was lost/)
})
