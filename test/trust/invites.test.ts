import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { FarportError } from '../../src/errors.ts'
import { type Attempt, INVITE_LIFETIME_MS, Invites } from '../../src/trust/invites.ts'
import { inviteIdOf, PairingError } from '../../src/trust/pairing.ts'
import type { TrustedPeer } from '../../src/trust/trusted-peers.ts'
import { ANNA, MALLORY, SECRET, WORKSHOP, WORKSHOP_TERMS } from './pairing-ends.ts'

const MINUTE_MS = 60_000
const ID = inviteIdOf('417')
const PEER: TrustedPeer = { name: 'anna', peerId: ANNA, ports: [], may: [], addrs: [] }

/** A book whose time is in our hands, and all it tells. */
function bookOf(
  t: TestContext,
  record = async (peer: TrustedPeer) => peer,
  isRevoked: (peerId: string) => boolean = () => false,
) {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const told: unknown[][] = []
  let nowMs = 1000
  const book = new Invites({ self: WORKSHOP, record, isRevoked, clock: () => nowMs })
  for (const event of ['failed', 'refused', 'paired', 'unrecorded', 'ended'] as const)
    book.on(event, (...args: unknown[]) => told.push([event, ...args]))
  t.after(() => book[Symbol.dispose]())
  let strangers = 0
  return {
    book,
    told,
    open: (nameplate = '417') =>
      book.open({ id: inviteIdOf(nameplate), secret: SECRET, terms: WORKSHOP_TERMS }),
    /** From somebody new, unless said otherwise. */
    begin: (nameplate = '417', source: { peerId: string; address?: string } = { peerId: `${++strangers}` }) =>
      book.begin(inviteIdOf(nameplate), source),
    pass(ms: number) {
      nowMs += ms
      t.mock.timers.tick(ms)
    },
    /** Time passes and no timer fires. */
    late(ms: number) {
      nowMs += ms
    },
  }
}

const refused = (reason: string) => (error: unknown) =>
  error instanceof PairingError && error.reason === reason
const usage = (pattern: RegExp) => (error: unknown) =>
  error instanceof FarportError && error.code === 'ERR_USAGE' && pattern.test(error.message)
const hex = (nameplate: string) => Buffer.from(inviteIdOf(nameplate)).toString('hex')
const isZero = ({ secret }: Attempt) => secret.every((byte) => byte === 0)

test('three tries, each paid before anything is known, then the invite is burnt', (t) => {
  const { open, begin, told, book } = bookOf(t)
  open()
  for (const left of [2, 1, 0]) {
    const attempt = begin()
    assert.equal(Buffer.from(attempt.secret).toString(), String(SECRET))
    attempt.fail('wrong-secret')
    assert.deepEqual(told.shift(), ['failed', hex('417'), 'wrong-secret', left, { peerId: `${3 - left}` }])
    assert.equal(isZero(attempt), left === 0)
  }
  assert.deepEqual(told, [['ended', hex('417'), 'burnt']])
  assert.equal(book.size, 0)
  assert.throws(() => begin(), refused('invite-over'))
})

test('one at a time', (t) => {
  const { open, begin } = bookOf(t)
  open()
  const first = begin()
  for (let i = 0; i < 50; i++) assert.throws(() => begin(), refused('busy'))
  first.fail('closed')
  // Those fifty cost nothing.
  begin().fail('closed')
  begin()
})

test('a try ends once', async (t) => {
  const { open, begin, told } = bookOf(t)
  open()
  const first = begin()
  first.fail('closed')
  const second = begin()
  first.fail('closed')
  await assert.rejects(first.commit(PEER), refused('invite-over'))
  assert.throws(() => begin(), refused('busy'))
  await second.commit(PEER)
  second.fail('closed')
  await assert.rejects(second.commit(PEER), refused('invite-over'))
  assert.deepEqual(
    told.map(([event]) => event),
    ['failed', 'refused', 'ended', 'paired'],
  )
})

test('spent, secret overwritten, and only then recorded; told under the name it got', async (t) => {
  let attempt: Attempt | undefined
  const { book, open, begin, told } = bookOf(t, async (peer) => {
    assert.ok(attempt !== undefined && isZero(attempt))
    assert.equal(book.size, 0)
    assert.deepEqual(told, [['ended', hex('417'), 'used']])
    return { ...peer, name: 'anna-2' }
  })
  open()
  attempt = begin()
  assert.equal((await attempt.commit(PEER)).name, 'anna-2')
  assert.deepEqual(told[1], ['paired', hex('417'), { ...PEER, name: 'anna-2' }])
  assert.throws(() => begin(), refused('invite-over'))
})

test('what can’t be recorded is told, and the invite stays spent', async (t) => {
  const readOnly = new Error('EROFS')
  const { open, begin, told, book } = bookOf(t, () => Promise.reject(readOnly))
  open()
  await assert.rejects(begin().commit(PEER), readOnly)
  assert.deepEqual(told.at(-1), ['unrecorded', hex('417'), readOnly])
  assert.equal(book.size, 0)
})

test('ends after ten minutes by itself, with its secret', (t) => {
  const { open, begin, pass, told, book } = bookOf(t)
  open()
  const attempt = begin()
  attempt.fail('closed')
  pass(INVITE_LIFETIME_MS - 1)
  assert.equal(book.size, 1)
  assert.ok(!isZero(attempt))
  pass(1)
  assert.equal(book.size, 0)
  assert.ok(isZero(attempt))
  assert.deepEqual(told.at(-1), ['ended', hex('417'), 'expired'])
  assert.throws(() => begin(), refused('invite-over'))
})

test('an id that is used again has its own ten minutes', (t) => {
  const { open, begin, pass, book } = bookOf(t)
  open()
  book.cancel(ID)
  pass(INVITE_LIFETIME_MS / 2)
  open()
  pass(INVITE_LIFETIME_MS / 2)
  begin()
  pass(INVITE_LIFETIME_MS / 2)
  assert.equal(book.size, 0)
})

test('is over when its time is, also where the timer is late', async (t) => {
  const { open, begin, late, told } = bookOf(t)
  open()
  late(INVITE_LIFETIME_MS)
  assert.throws(() => begin(), refused('invite-over'))
  open('418')
  const attempt = begin('418')
  late(INVITE_LIFETIME_MS)
  await assert.rejects(attempt.commit(PEER), refused('invite-over'))
  assert.deepEqual(
    told.filter(([event]) => event === 'ended').map(([, , how]) => how),
    ['expired', 'expired'],
  )
})

test('a clock on the wall that is set changes nothing', (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: Date.UTC(2026, 10, 22) })
  const book = new Invites({ self: WORKSHOP, record: async (peer) => peer })
  t.after(() => book[Symbol.dispose]())
  for (const [i, day] of [23, 21].entries()) {
    const id = inviteIdOf(`00${i}`)
    book.open({ id, secret: SECRET, terms: WORKSHOP_TERMS })
    t.mock.timers.setTime(Date.UTC(2026, 10, day))
    book.begin(id, { peerId: `${i}` }).fail('wrong-secret')
    // Nor does it make a source's two seconds any shorter.
    assert.throws(() => book.begin(id, { peerId: `${i}` }), refused('too-often'))
    assert.equal(book.size, i + 1)
  }
})

test('a revoked peer is turned away before its try costs anybody anything', (t) => {
  const { open, begin, told } = bookOf(
    t,
    async (peer) => peer,
    (peerId) => peerId === MALLORY,
  )
  open()
  const source = { peerId: MALLORY, address: '192.0.2.7' }
  for (let i = 0; i < 30; i++) assert.throws(() => begin('417', source), refused('revoked'))
  assert.deepEqual(told.at(-1), ['refused', hex('417'), 'revoked', source])
  // Neither the invite has paid, nor the address.
  begin('417', { peerId: ANNA, address: '192.0.2.7' }).fail('wrong-secret')
  assert.deepEqual(told.at(-1)?.slice(0, 4), ['failed', hex('417'), 'wrong-secret', 2])
})

test('cancelling ends it at once, also while it is being tried', async (t) => {
  const { open, begin, book, told } = bookOf(t)
  open()
  const attempt = begin()
  book.cancel(ID)
  book.cancel(ID)
  assert.ok(isZero(attempt))
  await assert.rejects(attempt.commit(PEER), refused('invite-over'))
  attempt.fail('closed')
  assert.deepEqual(told, [['ended', hex('417'), 'cancelled']])
})

test('closing the book overwrites all its secrets', (t) => {
  const { open, begin, book } = bookOf(t)
  open('001')
  open('002')
  const attempts = [begin('001'), begin('002')]
  book[Symbol.dispose]()
  assert.deepEqual(attempts.map(isZero), [true, true])
  assert.equal(book.size, 0)
})

test('four may be open; the id of one that is open is taken', (t) => {
  const { open, book } = bookOf(t)
  for (const nameplate of ['001', '002', '003']) open(nameplate)
  assert.throws(() => open('002'), usage(/open already/))
  open('004')
  assert.throws(() => open('005'), usage(/4 invites/))
  book.cancel(inviteIdOf('001'))
  open('001')
  assert.equal(book.size, 4)
})

test('terms that nobody could be told are refused before there is an invite', (t) => {
  const { book } = bookOf(t)
  const terms = { ...WORKSHOP_TERMS, ports: ['../ttyS0'] }
  assert.throws(() => book.open({ id: ID, secret: SECRET, terms }), usage(/ttyS0/))
  assert.equal(book.size, 0)
})

test('an id or a secret that is none is a fault of ours', (t) => {
  const { book } = bookOf(t)
  const terms = WORKSHOP_TERMS
  assert.throws(() => book.open({ id: ID.subarray(1), secret: SECRET, terms }), RangeError)
  assert.throws(() => book.open({ id: ID, secret: new Uint8Array(0), terms }), RangeError)
  for (const wrong of ['12', '1234', 'abc', '1 2']) assert.throws(() => inviteIdOf(wrong), RangeError)
  assert.equal(Buffer.from(inviteIdOf('007')).toString(), 'code-007')
})

test('the secret is the book’s own copy', (t) => {
  const { book, begin } = bookOf(t)
  const mine = Buffer.from(SECRET)
  book.open({ id: ID, secret: mine, terms: WORKSHOP_TERMS })
  mine.fill(0)
  assert.equal(Buffer.from(begin().secret).toString(), String(SECRET))
  book.cancel(ID)
  assert.equal(String(SECRET), 'apple-brave-crane')
})

test('a source may try every two seconds, and ten times in ten minutes', (t) => {
  for (const source of [{ peerId: ANNA }, { peerId: ANNA, address: '192.0.2.7' }]) {
    const { begin, late } = bookOf(t)
    const guess = () => begin('000', source)
    for (let i = 0; i < 10; i++) {
      assert.throws(guess, refused('unknown-invite'))
      late(1_999)
      assert.throws(guess, refused('too-often'))
      late(1)
    }
    assert.throws(guess, refused('too-often'))
    late(10 * MINUTE_MS - 10 * 2_000 - 1)
    assert.throws(guess, refused('too-often'))
    late(1)
    assert.throws(guess, refused('unknown-invite'))
    t.mock.timers.reset()
  }
})

test('a try that ends in a pairing is no guess: the same source may pair again at once', async (t) => {
  const { open, begin } = bookOf(t)
  const anna = { peerId: ANNA, address: '192.0.2.7' }
  for (let i = 0; i < 12; i++) {
    open()
    await begin('417', anna).commit(PEER)
  }
  open()
  begin('417', anna).fail('wrong-secret')
  assert.throws(() => begin('417', anna), refused('too-often'))
})

test('an address is counted whatever PeerIDs come from it, and a PeerID wherever it comes from', (t) => {
  const { begin } = bookOf(t)
  assert.throws(() => begin('000', { peerId: ANNA, address: '192.0.2.7' }), refused('unknown-invite'))
  assert.throws(() => begin('000', { peerId: MALLORY, address: '192.0.2.7' }), refused('too-often'))
  assert.throws(() => begin('000', { peerId: ANNA, address: '192.0.2.8' }), refused('too-often'))
  assert.throws(() => begin('000', { peerId: ANNA }), refused('too-often'))
  // Behind a relay all have its address, so there only the PeerID counts.
  assert.throws(() => begin('000', { peerId: MALLORY }), refused('unknown-invite'))
})

test('being too often there takes no try off an invite', (t) => {
  const { open, begin, told } = bookOf(t)
  open()
  begin('417', { peerId: MALLORY }).fail('wrong-secret')
  for (let i = 0; i < 5; i++) assert.throws(() => begin('417', { peerId: MALLORY }), refused('too-often'))
  begin('417', { peerId: ANNA }).fail('closed')
  assert.deepEqual(told.filter(([event]) => event === 'failed').at(-1), [
    'failed',
    hex('417'),
    'closed',
    1,
    { peerId: ANNA },
  ])
})

test('sources beyond a thousand are forgotten, the one unheard of for longest first', (t) => {
  const { begin, late } = bookOf(t)
  const tryAs = (peerId: string) => {
    try {
      begin('000', { peerId })
    } catch (error) {
      return (error as PairingError).reason
    }
    return undefined
  }
  assert.equal(tryAs('first'), 'unknown-invite')
  assert.equal(tryAs('second'), 'unknown-invite')
  late(2_000)
  assert.equal(tryAs('first'), 'unknown-invite')
  for (let i = 0; i < 1022; i++) tryAs(`${i}`)
  assert.equal(tryAs('first'), 'too-often')
  tryAs('one more')
  assert.equal(tryAs('first'), 'too-often')
  tryAs('and one more')
  assert.equal(tryAs('first'), 'unknown-invite')
})

test('twenty failures within an hour shut pairing, until a person opens it again', (t) => {
  const { open, begin, late, told, book } = bookOf(t)
  /** Opens invites and lets them be guessed at. */
  const failures = (count: number) => {
    for (let i = 0; i < count; i++) {
      if (book.size === 0) open()
      begin().fail('wrong-secret')
    }
  }
  failures(19)
  open('001')
  const bystander = begin('001')
  assert.equal(book.shut, false)
  failures(1)
  assert.equal(book.shut, true)
  assert.equal(book.size, 0)
  assert.ok(isZero(bystander))
  assert.deepEqual(told.filter(([event]) => event === 'ended').at(-1), ['ended', hex('001'), 'shut'])
  assert.throws(() => open('002'), usage(/shut/))
  assert.throws(() => begin('001'), refused('shut'))
  late(24 * 60 * MINUTE_MS)
  assert.throws(() => open('002'), usage(/shut/))

  book.reopen()
  open('002')
  begin('002').fail('wrong-secret')
  assert.equal(book.shut, false)
})

test('failures of more than an hour ago don’t count', (t) => {
  const { open, begin, pass, book } = bookOf(t)
  for (let i = 0; i < 60; i++) {
    if (book.size === 0) open()
    begin().fail('wrong-secret')
    // 19 in an hour.
    pass(3.3 * MINUTE_MS)
  }
  assert.equal(book.shut, false)
})

test('the end of an invite is remembered for the log, but not of all there ever were', (t) => {
  const { open, begin, book } = bookOf(t)
  for (let i = 100; i < 117; i++) {
    open(`${i}`)
    book.cancel(inviteIdOf(`${i}`))
  }
  assert.throws(() => begin('100'), refused('unknown-invite'))
  assert.throws(() => begin('101'), refused('invite-over'))
  open('101')
  begin('101')
})

test('who was turned away is told, with the reason and where from', (t) => {
  const { begin, told } = bookOf(t)
  const source = { peerId: MALLORY, address: '192.0.2.7' }
  assert.throws(() => begin('999', source), refused('unknown-invite'))
  assert.deepEqual(told, [['refused', hex('999'), 'unknown-invite', source]])
})
