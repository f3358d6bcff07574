import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import sodium from 'libsodium-wrappers-sumo'
import dh from 'noise-handshake/dh.js'
import { FarportError } from '../../src/errors.ts'
import type { Inviter } from '../../src/trust/inviter.ts'
import type { Joiner } from '../../src/trust/joiner.ts'
import { generateStaticKey, NoiseHandshake } from '../../src/trust/noise.ts'
import { inviteIdOf, type PairingEvent } from '../../src/trust/pairing.ts'
import type { Terms } from '../../src/trust/pairing-terms.ts'
import { formatTrustedPeer } from '../../src/trust/trusted-peers.ts'
import { generatorHash, oracleKey, pointOf } from './cpace-oracle.ts'
import { NoiseOracle } from './noise-oracle.ts'
import {
  ANNA,
  ANNA_TERMS,
  framed,
  INVITE_ID,
  joinerOf,
  MALLORY,
  pair,
  SECRET,
  verdict,
  WORKSHOP,
  WORKSHOP_TERMS,
  Workshop,
  WRONG,
} from './pairing-ends.ts'
import { channelOf, OracleSide, prologueOf, pskOf, sessionOf } from './pairing-oracle.ts'

/** Each costs milliseconds; fuzz.test.ts has the millions. */
const RUNS = 100
const GUESSES = Number(process.env.FARPORT_GUESSES ?? 100)

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const body = (frame: Uint8Array | undefined) => (frame ?? new Uint8Array(2)).subarray(2)
const NONE = new Uint8Array(0)
const XXPSK0 = 'Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b'
/** All that a stranger ever learns about why. */
const FAILED = '000101'

const TALK = { joiner: ANNA, inviter: WORKSHOP, inviteId: INVITE_ID, secret: SECRET }

/** What is sent, when that is all that happens. */
function sent(events: PairingEvent[]): Uint8Array {
  const [event] = events
  assert.equal(events.length, 1)
  assert.ok(event?.type === 'send', `${event?.type} instead of a message`)
  return body(event.bytes)
}

const push = (side: Joiner | Inviter, message: Uint8Array) => side.push(framed(...message))

/** Both fail, whoever is outside learns nothing, nobody is trusted, and the try is paid for. */
function assertFailure(workshop: Workshop, events: PairingEvent[], reason: string): void {
  const failure = events.at(-1)
  assert.equal(verdict(failure), reason)
  assert.deepEqual(workshop.recorded, [])
  for (const event of events) if (event.type === 'send') assert.equal(hex(event.bytes), FAILED)
}

test('with the right secret each gets a line about the other', async () => {
  using workshop = new Workshop()
  const { joiner, inviter, frames } = await pair(joinerOf(), workshop.inviter())
  assert.ok(joiner?.type === 'paired' && inviter?.type === 'paired')
  assert.equal(
    formatTrustedPeer(inviter.peer),
    `anna ${ANNA} ports=gps,plc-* may=use,configure expires=2029-12-31`,
  )
  assert.equal(formatTrustedPeer(joiner.peer), `workshop ${WORKSHOP} addr=${WORKSHOP_TERMS.addrs[0]}`)
  assert.deepEqual(joiner.allows, {
    ports: ['gps', 'plc-*'],
    may: ['watch', 'use', 'configure'],
    expires: WORKSHOP_TERMS.expires,
  })
  assert.deepEqual(inviter.allows, { ports: [], may: [] })
  assert.deepEqual(workshop.recorded, [inviter.peer])
  assert.deepEqual(workshop.told, [
    ['ended', 'used'],
    ['paired', inviter.peer],
  ])

  const lengths = frames.map((frame) => body(frame).length)
  assert.deepEqual(
    frames.map((frame) => Buffer.from(frame).readUInt16BE()),
    lengths,
  )
  assert.deepEqual(lengths.slice(0, 5), [25, 16, 64, 64, 48])
  assert.equal(hex(frames[0] as Uint8Array).slice(0, 22), `001901${hex(INVITE_ID)}`)
  assert.equal(hex(frames[7] as Uint8Array), '000100')
  const wire = Buffer.concat(frames).toString('latin1')
  for (const word of ['apple', 'brave', 'crane', 'anna', 'workshop', 'gps', 'relay.example'])
    assert.ok(!wire.includes(word), `${word} can be read on the wire`)
})

test('both may offer ports', async () => {
  using workshop = new Workshop()
  const terms: Terms = { name: 'anna', ports: ['*'], may: ['use'], addrs: ['/ip4/192.0.2.7/tcp/4001'] }
  const { joiner, inviter } = await pair(joinerOf({ terms }), workshop.inviter())
  assert.ok(joiner?.type === 'paired' && inviter?.type === 'paired')
  assert.deepEqual(inviter.allows, { ports: ['*'], may: ['watch', 'use'] })
  assert.deepEqual(
    formatTrustedPeer(joiner.peer),
    `workshop ${WORKSHOP} ports=* may=use addr=${WORKSHOP_TERMS.addrs[0]}`,
  )
  assert.match(formatTrustedPeer(inviter.peer), / addr=\/ip4\/192\.0\.2\.7\/tcp\/4001$/)
})

test('however the stream is cut, the outcome is the same', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 70 }), async (size) => {
      using workshop = new Workshop()
      const inPieces = <T extends Joiner | Inviter>(side: T): T => {
        const whole = side.push.bind(side)
        side.push = (chunk) => {
          const events: PairingEvent[] = []
          for (let at = 0; at < chunk.length; at += size) events.push(...whole(chunk.subarray(at, at + size)))
          return events
        }
        return side
      }
      const { joiner, inviter } = await pair(inPieces(joinerOf()), inPieces(workshop.inviter()))
      assert.deepEqual([verdict(joiner), verdict(inviter)], ['paired', 'paired'])
    }),
    { numRuns: 20 },
  )
})

test('a wrong code: both fail, one try is gone; three, and the right one is refused', async () => {
  using workshop = new Workshop()
  for (const left of [2, 1, 0]) {
    const { joiner, inviter, frames } = await pair(joinerOf({ secret: WRONG }), workshop.inviter())
    assert.deepEqual([verdict(joiner), verdict(inviter)], ['refused', 'wrong-secret'])
    assert.equal(hex(frames.at(-1) as Uint8Array), FAILED)
    assert.deepEqual(workshop.told[2 - left], ['failed', 'wrong-secret', left])
  }
  assert.deepEqual(workshop.told[3], ['ended', 'burnt'])
  const { joiner, inviter } = await pair(joinerOf(), workshop.inviter())
  assert.deepEqual([verdict(joiner), verdict(inviter)], ['refused', 'invite-over'])
  assert.deepEqual(workshop.recorded, [])
})

test('a right code after two wrong ones', async () => {
  using workshop = new Workshop()
  await pair(joinerOf({ secret: WRONG }), workshop.inviter())
  await pair(joinerOf({ secret: WRONG }), workshop.inviter())
  const { joiner, inviter } = await pair(joinerOf(), workshop.inviter())
  assert.deepEqual([verdict(joiner), verdict(inviter)], ['paired', 'paired'])
})

test('an invite is good for one', async () => {
  using workshop = new Workshop()
  await pair(joinerOf(), workshop.inviter())
  const { joiner, inviter } = await pair(joinerOf({ self: MALLORY }), workshop.inviter(MALLORY))
  assert.deepEqual([verdict(joiner), verdict(inviter)], ['refused', 'invite-over'])
  assert.equal(workshop.recorded.length, 1)
})

const TURNED_AWAY: Record<string, [reason: string, (workshop: Workshop) => Inviter | Promise<Inviter>]> = {
  unknown: [
    'unknown-invite',
    (workshop) => {
      workshop.invites.cancel(INVITE_ID)
      // Long forgotten.
      for (let i = 100; i < 116; i++) {
        workshop.invites.open({ id: inviteIdOf(`${i}`), secret: SECRET, terms: WORKSHOP_TERMS })
        workshop.invites.cancel(inviteIdOf(`${i}`))
      }
      return workshop.inviter()
    },
  ],
  expired: ['invite-over', (workshop) => workshop.inviter(ANNA, 600_001)],
  used: [
    'invite-over',
    async (workshop) => {
      await pair(joinerOf({ self: MALLORY }), workshop.inviter(MALLORY))
      return workshop.inviter()
    },
  ],
  burnt: [
    'invite-over',
    (workshop) => {
      for (let i = 0; i < 3; i++) workshop.invites.begin(INVITE_ID, { peerId: `${i}` }).fail('wrong-secret')
      return workshop.inviter()
    },
  ],
  cancelled: [
    'invite-over',
    (workshop) => {
      workshop.invites.cancel(INVITE_ID)
      return workshop.inviter()
    },
  ],
  busy: [
    'busy',
    (workshop) => {
      push(workshop.inviter(MALLORY), body(start(joinerOf({ self: MALLORY }))))
      return workshop.inviter()
    },
  ],
  'too often': [
    'too-often',
    (workshop) => {
      push(workshop.inviter(), body(start(joinerOf())))
      return workshop.inviter(ANNA, 1_999)
    },
  ],
  shut: [
    'shut',
    (workshop) => {
      for (let i = 0; i < 20; i++) {
        if (workshop.invites.size === 0) workshop.open()
        workshop.invites.begin(INVITE_ID, { peerId: `${i}` }).fail('wrong-secret')
      }
      return workshop.inviter()
    },
  ],
}
for (const [name, [reason, inviterOf]] of Object.entries(TURNED_AWAY)) {
  test(`from outside all who are turned away look alike, and cost as little: ${name}`, async (t) => {
    using workshop = new Workshop()
    const inviter = await inviterOf(workshop)
    const hello = start(joinerOf())
    // What takes time: it must not tell one reason from another, so none of it is done for any.
    const drawing = t.mock.method(sodium, 'crypto_core_ristretto255_scalar_random')
    const multiplying = t.mock.method(sodium, 'crypto_scalarmult_ristretto255')
    const making = t.mock.method(dh, 'generateKeyPair')
    const events = inviter.push(hello)
    assert.deepEqual(events, [
      { type: 'send', bytes: Buffer.from(FAILED, 'hex') },
      { type: 'failed', reason },
    ])
    for (const { mock } of [drawing, multiplying, making]) assert.equal(mock.callCount(), 0)
    assert.deepEqual(workshop.told.at(-1)?.slice(0, 2), ['refused', reason])
  })
}

test('of fifty guesses at once one gets to speak', () => {
  using workshop = new Workshop()
  const hello = start(joinerOf())
  const answers = Array.from({ length: 50 }, (_, i) => {
    const joiner = `12D3KooW${i}`
    return workshop.inviter(joiner, 0).push(hello)
  })
  assert.equal(answers.filter(([event]) => event?.type === 'send' && event.bytes.length === 18).length, 1)
  assert.equal(answers.filter((events) => verdict(events.at(-1)) === 'busy').length, 49)
})

function start(joiner: Joiner): Uint8Array {
  const [event] = joiner.start()
  assert.ok(event?.type === 'send')
  return event.bytes
}

test('whoever goes away after any message: the joiner trusts nobody before M7, the inviter nobody before M6', async () => {
  for (let index = 0; index < 8; index++) {
    using workshop = new Workshop()
    const { joiner, inviter } = await pair(joinerOf(), workshop.inviter(), (frame, i) =>
      i === index ? 'cut' : frame,
    )
    assert.equal(verdict(joiner), 'closed', `M${index}`)
    if (index === 7) {
      // M7 alone is lost: the one half that may remain.
      assert.equal(verdict(inviter), 'paired')
      assert.equal(workshop.recorded.length, 1)
      continue
    }
    assert.equal(verdict(inviter), 'closed', `M${index}`)
    assert.deepEqual(workshop.recorded, [])
    // Nothing reached the inviter in the first case; otherwise the try is paid for, and the next one can begin.
    assert.deepEqual(workshop.told, index === 0 ? [] : [['failed', 'closed', 2]])
    const again = await pair(joinerOf(), workshop.inviter())
    assert.deepEqual([verdict(again.joiner), verdict(again.inviter)], ['paired', 'paired'])
  }
})

test('time that runs out is charged too, and the other side is told', () => {
  using workshop = new Workshop()
  const inviter = workshop.inviter()
  inviter.push(start(joinerOf()))
  assertFailure(workshop, inviter.end('timeout'), 'timeout')
  assert.deepEqual(workshop.told, [['failed', 'timeout', 2]])
  assert.deepEqual(inviter.end('closed'), [])
  assert.deepEqual(inviter.push(framed(1, 2, 3)), [])
})

test('somebody in between, with another PeerID on either side, gets nowhere', async () => {
  const ends = [
    { name: 'as the workshop towards anna', joinerSees: MALLORY, workshopSees: ANNA },
    { name: 'as anna towards the workshop', joinerSees: WORKSHOP, workshopSees: MALLORY },
    { name: 'on both sides', joinerSees: MALLORY, workshopSees: MALLORY },
  ]
  for (const { name, joinerSees, workshopSees } of ends) {
    using workshop = new Workshop()
    const joiner = joinerOf({ inviter: joinerSees })
    const outcome = await pair(joiner, workshop.inviter(workshopSees))
    assert.deepEqual([verdict(outcome.joiner), verdict(outcome.inviter)], ['refused', 'wrong-secret'], name)
    assert.deepEqual(workshop.recorded, [])
  }
})

test('a relay that leads a ticket to another peer is noticed before a byte is sent', () => {
  const joiner = joinerOf({ inviter: MALLORY, expected: WORKSHOP })
  assert.deepEqual(joiner.start(), [{ type: 'failed', reason: 'wrong-peer' }])
  assert.equal(joinerOf({ expected: WORKSHOP }).start()[0]?.type, 'send')
})

test('a flipped bit in any byte of any message ends it', async () => {
  const { frames } = await (async () => {
    using workshop = new Workshop()
    return await pair(joinerOf(), workshop.inviter())
  })()
  for (const [index, frame] of frames.entries()) {
    for (let at = 0; at < frame.length; at++) {
      using workshop = new Workshop()
      const { joiner, inviter } = await pair(joinerOf(), workshop.inviter(), (bytes, i) => {
        if (i !== index) return bytes
        const altered = Uint8Array.from(bytes)
        altered[at] = (altered[at] as number) ^ (1 << (at % 8))
        return altered
      })
      const where = `M${index}, byte ${at}`
      assert.equal(joiner?.type, 'failed', where)
      // What happens to M7 can't take back what the inviter has done.
      assert.equal(inviter?.type, index === 7 ? 'paired' : 'failed', where)
      assert.equal(workshop.recorded.length, index === 7 ? 1 : 0, where)
    }
  }
})

test('a message that is short, long, empty, too long for any or one too many ends it', async () => {
  const ways: Record<string, (frame: Uint8Array) => Uint8Array> = {
    empty: () => framed(),
    'a byte short': (frame) => framed(...body(frame).subarray(0, -1)),
    'a byte long': (frame) => framed(...body(frame), 0),
    '1024 bytes': () => framed(...new Uint8Array(1024)),
    '1025 bytes': () => framed(...new Uint8Array(1025)),
    'a length of 65535': () => Uint8Array.of(255, 255, 0),
    'cut off': (frame) => frame.subarray(0, -1),
    nothing: () => new Uint8Array(0),
    'with another behind it': (frame) => Buffer.concat([frame, frame]),
  }
  for (const [name, change] of Object.entries(ways)) {
    for (let index = 0; index < 8; index++) {
      using workshop = new Workshop()
      const { joiner, inviter } = await pair(joinerOf(), workshop.inviter(), (frame, i) =>
        i === index ? change(frame) : frame,
      )
      const where = `M${index} ${name}`
      // Behind the last message nobody listens any more.
      if (index === 7 && name === 'with another behind it') assert.equal(joiner?.type, 'paired')
      else assert.equal(joiner?.type, 'failed', where)
      assert.equal(inviter?.type, index === 7 ? 'paired' : 'failed', where)
      assert.equal(workshop.recorded.length, index === 7 ? 1 : 0, where)
    }
  }
})

const NO_POINTS = {
  identity: '00'.repeat(32),
  'the identity of Ed25519': `01${'00'.repeat(31)}`,
  'not canonical': `f3${'ff'.repeat(30)}7f`,
  'of order eight on Ed25519': '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
}
for (const [name, point] of Object.entries(NO_POINTS)) {
  test(`a share that is no element (${name}) ends it on either side`, async () => {
    for (const index of [2, 3]) {
      using workshop = new Workshop()
      const { joiner, inviter } = await pair(joinerOf(), workshop.inviter(), (frame, i) =>
        i === index ? framed(...Buffer.from(point, 'hex'), ...body(frame).subarray(32)) : frame,
      )
      const expected = index === 2 ? ['refused', 'malformed'] : ['malformed', 'refused']
      assert.deepEqual([verdict(joiner), verdict(inviter)], expected)
    }
  })
}

test('whoever echoes the joiner is not the inviter', () => {
  const shares = (mine: Uint8Array) => [
    mine,
    Buffer.concat([mine.subarray(0, 32), generateStaticKey().publicKey]),
    Buffer.concat([new OracleSide(TALK).announced.publicKey, mine.subarray(32)]),
  ]
  for (const way of [0, 1, 2]) {
    const joiner = joinerOf()
    const hello = sent(joiner.start())
    const m2 = sent(push(joiner, hello.subarray(9)))
    const events = push(joiner, shares(m2)[way] as Uint8Array)
    assert.equal(verdict(events.at(-1)), 'reflected')
  }
})

test('nobody pairs with itself', async () => {
  using workshop = new Workshop()
  const joiner = joinerOf({ self: WORKSHOP })
  assert.deepEqual(joiner.start(), [{ type: 'failed', reason: 'self' }])
  const events = workshop.inviter(WORKSHOP).push(start(joinerOf()))
  assertFailure(workshop, events, 'self')
  assert.deepEqual(workshop.told, [])
})

test('a recording played back to either side opens nothing', async () => {
  let frames: Uint8Array[]
  {
    using workshop = new Workshop()
    frames = (await pair(joinerOf(), workshop.inviter())).frames
  }
  using workshop = new Workshop()
  const inviter = workshop.inviter()
  const played = [0, 2, 4, 6].flatMap((index) => inviter.push(frames[index] as Uint8Array))
  assert.equal(verdict(played.at(-1)), 'wrong-secret')
  assert.deepEqual(workshop.recorded, [])

  const joiner = joinerOf()
  joiner.start()
  const heard = [1, 3, 5, 7].flatMap((index) => joiner.push(frames[index] as Uint8Array))
  assert.equal(verdict(heard.at(-1)), 'wrong-secret')
})

test('an implementation from the comment in pairing.ts alone can join', async () => {
  using workshop = new Workshop()
  const inviter = workshop.inviter()
  const joiner = new OracleSide(TALK)
  joiner.keep(sent(push(inviter, joiner.hello())))
  joiner.keep(sent(push(inviter, joiner.share())))
  const noise = joiner.begin('initiator')
  const m5 = sent(push(inviter, noise.write()))
  assert.deepEqual(JSON.parse(Buffer.from(noise.read(m5)).toString()), WORKSHOP_TERMS)
  const m6 = noise.write(Buffer.from('{"name":"anna","ports":[],"may":[],"addrs":[],"colour":"red"}'))
  assert.deepEqual(push(inviter, m6), [{ type: 'commit' }])
  const [m7, paired] = await inviter.commit()
  assert.ok(m7?.type === 'send' && paired?.type === 'paired')
  assert.equal(hex(body(m7.bytes)), '00')
})

test('another version is told apart at home', () => {
  using workshop = new Workshop()
  const hello = new OracleSide(TALK).hello()
  hello[0] = 2
  assertFailure(workshop, push(workshop.inviter(), hello), 'version')
  assert.deepEqual(workshop.told, [])
})

test('a payload where version 1 has none ends it', () => {
  using workshop = new Workshop()
  const inviter = workshop.inviter()
  const joiner = new OracleSide(TALK)
  joiner.keep(sent(push(inviter, joiner.hello())))
  joiner.keep(sent(push(inviter, joiner.share())))
  const m4 = joiner.begin('initiator').write(Buffer.from('more'))
  assertFailure(workshop, push(inviter, m4), 'malformed')
})

/** Up to M4, from an inviter that may cheat. */
function inviting(cheat: (side: OracleSide) => void = () => {}) {
  const inviter = new OracleSide(TALK)
  cheat(inviter)
  const joiner = joinerOf()
  inviter.keep(sent(joiner.start()))
  inviter.keep(sent(push(joiner, inviter.keep(inviter.nonce))))
  const m4 = sent(push(joiner, inviter.share()))
  return { joiner, inviter, m4 }
}

test('an implementation from the comment in pairing.ts alone can invite', () => {
  const { joiner, inviter, m4 } = inviting()
  const noise = inviter.begin('responder')
  assert.equal(noise.read(m4).length, 0)
  const said = { name: 'workshop', ports: ['gps'], may: ['use', 'fly'], addrs: [], motd: 'hello' }
  const m6 = sent(push(joiner, noise.write(Buffer.from(JSON.stringify(said)))))
  assert.deepEqual(JSON.parse(Buffer.from(noise.read(m6)).toString()), ANNA_TERMS)
  const [paired, ...more] = joiner.push(Buffer.concat([framed(0), framed(0)]))
  assert.deepEqual(more, [])
  assert.ok(paired?.type === 'paired')
  assert.deepEqual(paired.allows, { ports: ['gps'], may: ['watch', 'use'] })
})

test('the static key that is proven must be the one announced, on either side', () => {
  using workshop = new Workshop()
  const inviter = workshop.inviter()
  const evil = new OracleSide(TALK)
  evil.staticKey = generateStaticKey()
  evil.keep(sent(push(inviter, evil.hello())))
  evil.keep(sent(push(inviter, evil.share())))
  const noise = evil.begin('initiator')
  noise.read(sent(push(inviter, noise.write())))
  assertFailure(workshop, push(inviter, noise.write(Buffer.from(JSON.stringify(ANNA_TERMS)))), 'static-key')

  const {
    joiner,
    inviter: liar,
    m4,
  } = inviting((side) => {
    side.staticKey = generateStaticKey()
  })
  const answer = liar.begin('responder')
  answer.read(m4)
  const events = push(joiner, answer.write(Buffer.from(JSON.stringify(WORKSHOP_TERMS))))
  assert.equal(verdict(events.at(-1)), 'static-key')
})

const HOSTILE_TERMS: Record<string, unknown> = {
  'a name with a line break': { ...ANNA_TERMS, name: `anna\nmallory ${MALLORY} ports=*` },
  'a name with options': { ...ANNA_TERMS, name: `anna ${ANNA} ports=*` },
  'a name that hides the rest': { ...ANNA_TERMS, name: '#anna' },
  'a name like a PeerID': { ...ANNA_TERMS, name: MALLORY },
  'a name with an escape sequence': { ...ANNA_TERMS, name: 'anna\u001b[2J' },
  'a name of 65 letters': { ...ANNA_TERMS, name: 'a'.repeat(65) },
  'no name': { ...ANNA_TERMS, name: '' },
  'a path for a port': { ...ANNA_TERMS, ports: ['../ttyS0'], may: ['use'] },
  'ports in one text': { ...ANNA_TERMS, ports: ['gps,plc'], may: ['use'] },
  'an address of somebody else': { ...ANNA_TERMS, addrs: [`/ip4/192.0.2.7/tcp/1/p2p/${MALLORY}`] },
  'an address that is none': { ...ANNA_TERMS, addrs: ['/unix/tmp/x'] },
  'addresses in one text': { ...ANNA_TERMS, addrs: ['/ip4/192.0.2.7/tcp/1,/ip4/192.0.2.8/tcp/1'] },
  'an expiry beyond all dates': { ...ANNA_TERMS, expires: 8.64e15 },
  'an expiry that is text': { ...ANNA_TERMS, expires: '2030-01-01' },
  'an expiry with a fraction': { ...ANNA_TERMS, expires: 0.5 },
  'numbers for names': { name: 1, ports: 2, may: 3, addrs: 4 },
  'a list': [],
  nothing: null,
}
for (const [name, terms] of Object.entries(HOSTILE_TERMS)) {
  test(`terms that trusted_peers would not take end it, also from one with the secret: ${name}`, () => {
    using workshop = new Workshop()
    assertFailure(workshop, joinWith(workshop, Buffer.from(JSON.stringify(terms))), 'terms')
    assert.deepEqual(workshop.told, [['failed', 'terms', 2]])
  })
}

test('terms that are no JSON, no UTF-8 or nothing end it', () => {
  for (const bytes of [Buffer.from('{"name":'), Buffer.from('"\xff"', 'latin1'), Buffer.alloc(0)]) {
    using workshop = new Workshop()
    assertFailure(workshop, joinWith(workshop, bytes), 'terms')
  }
})

/** What the inviter makes of a joiner that has the secret and says this. */
function joinWith(workshop: Workshop, terms: Uint8Array): PairingEvent[] {
  const inviter = workshop.inviter()
  const joiner = new OracleSide(TALK)
  joiner.keep(sent(push(inviter, joiner.hello())))
  joiner.keep(sent(push(inviter, joiner.share())))
  const noise = joiner.begin('initiator')
  noise.read(sent(push(inviter, noise.write())))
  return push(inviter, noise.write(terms))
}

test('our own terms are held to the same rules, and to what a message can carry', () => {
  const usage = (error: unknown) => error instanceof FarportError && error.code === 'ERR_USAGE'
  for (const terms of Object.values(HOSTILE_TERMS).slice(0, 11))
    assert.throws(() => joinerOf({ terms: terms as Terms }), usage)
  const ports = Array.from({ length: 40 }, (_, i) => `port-${i}-`.padEnd(20, 'x'))
  assert.throws(() => joinerOf({ terms: { ...ANNA_TERMS, ports, may: ['use'] } }), usage)
})

test('the longest terms there can be fit in their messages', async () => {
  const base = { ...ANNA_TERMS, may: ['use'] as const, ports: [''] }
  const withPorts = (count: number, last: number): Terms => ({
    ...base,
    ports: [...Array(count).fill('p'.repeat(64)), 'q'.repeat(last)],
  })
  let longest = withPorts(1, 1)
  for (let count = 1; count < 15; count++)
    for (let last = 1; last <= 64; last++) {
      const terms = withPorts(count, last)
      if (Buffer.from(JSON.stringify({ ...terms, may: ['watch', 'use'] })).length === 928) longest = terms
    }
  assert.ok(longest.ports.length > 10)
  using workshop = new Workshop()
  workshop.invites.cancel(INVITE_ID)
  workshop.invites.open({ id: INVITE_ID, secret: SECRET, terms: { ...longest, name: 'room' } })
  const { joiner, inviter } = await pair(joinerOf({ terms: longest }), workshop.inviter())
  assert.deepEqual([verdict(joiner), verdict(inviter)], ['paired', 'paired'])
})

test('the invite is spent before the line is written, and M7 comes after it', async () => {
  using workshop = new Workshop()
  const written = Promise.withResolvers<void>()
  let openWhenWriting: number | undefined
  workshop.record = async (peer) => {
    openWhenWriting = workshop.invites.size
    await written.promise
    return { ...peer, name: 'anna-2' }
  }
  const inviter = workshop.inviter()
  const joiner = joinerOf()
  let said = sent(joiner.start())
  for (let i = 0; i < 3; i++) said = sent(push(joiner, sent(push(inviter, said))))
  assert.deepEqual(push(inviter, said), [{ type: 'commit' }])
  const committing = inviter.commit()
  assert.equal(openWhenWriting, 0)
  // Whatever the joiner does now changes nothing.
  assert.deepEqual(inviter.push(framed(9, 9, 9)), [])
  assert.deepEqual(inviter.end('closed'), [])
  await assert.rejects(inviter.commit())
  assert.equal(await Promise.race([committing, Promise.resolve('waiting')]), 'waiting')
  written.resolve()
  const [done, paired] = await committing
  assert.ok(done?.type === 'send' && paired?.type === 'paired')
  assert.equal(paired.peer.name, 'anna-2')
})

test('a line that can’t be written: the joiner is told, the invite is spent all the same', async () => {
  using workshop = new Workshop()
  const full = new Error('ENOSPC')
  workshop.record = async () => {
    throw full
  }
  const { joiner, inviter } = await pair(joinerOf(), workshop.inviter())
  assert.equal(verdict(joiner), 'refused')
  assert.deepEqual(inviter, { type: 'failed', reason: 'not-recorded', cause: full })
  assert.deepEqual(workshop.told, [
    ['ended', 'used'],
    ['unrecorded', full],
  ])
})

test('an invite cancelled while somebody tries it is cancelled', async () => {
  for (const index of [1, 3, 5]) {
    using workshop = new Workshop()
    const { joiner, inviter } = await pair(joinerOf(), workshop.inviter(), (frame, i) => {
      if (i === index) workshop.invites.cancel(INVITE_ID)
      return frame
    })
    assert.deepEqual([verdict(joiner), verdict(inviter)], ['refused', 'invite-over'])
    assert.deepEqual([workshop.recorded, workshop.told], [[], [['ended', 'cancelled']]])
  }
})

test('of the secrets of a pairing nothing is left, however it ends', async (t) => {
  const from = Uint8Array.from
  for (const cut of [0, 1, 2, 3, 4, 5, 6, 7, 8]) {
    const secrets: Uint8Array[] = []
    const copying = t.mock.method(Uint8Array, 'from', (source: Uint8Array) => {
      const copy = from.call(Uint8Array, source)
      if (hex(copy) === hex(SECRET)) secrets.push(copy)
      return copy
    })
    const make = dh.generateKeyPair
    const making = t.mock.method(dh, 'generateKeyPair', () => {
      const pair = make()
      secrets.push(pair.secretKey)
      return pair
    })
    const draw = sodium.crypto_core_ristretto255_scalar_random
    const drawing = t.mock.method(sodium, 'crypto_core_ristretto255_scalar_random', () => {
      const scalar = draw() as Uint8Array
      secrets.push(scalar)
      return scalar
    })
    {
      using workshop = new Workshop()
      await pair(joinerOf(), workshop.inviter(), (frame, i) => (i === cut ? 'cut' : frame))
    }
    copying.mock.restore()
    making.mock.restore()
    drawing.mock.restore()
    // The code on both sides; then a scalar, a static and an ephemeral key each.
    assert.equal(secrets.length, [2, 3, 5, 6, 7, 8, 8, 8, 8][cut])
    for (const secret of secrets)
      assert.ok(
        secret.every((byte) => byte === 0),
        `cut at M${cut}`,
      )
  }
})

test('commit before anybody has proven anything throws', async () => {
  using workshop = new Workshop()
  const inviter = workshop.inviter()
  await assert.rejects(inviter.commit(), /no joiner/)
  inviter.push(start(joinerOf()))
  await assert.rejects(inviter.commit(), /no joiner/)
  assert.deepEqual(workshop.recorded, [])
})

test('a joiner starts once', () => {
  const joiner = joinerOf()
  joiner.start()
  assert.throws(() => joiner.start(), /begun/)
})

// The dictionary attack: whoever has recorded a conversation tries one code after the other, at home, on what was said.

function* dictionary(): Generator<Buffer> {
  for (let i = 1; i < GUESSES; i++) yield Buffer.from(`word-${i}-crane`)
  yield SECRET
}

function opens(psk: Uint8Array, prologue: Uint8Array, message: Uint8Array): boolean {
  const noise = new NoiseOracle(XXPSK0, { initiator: false, prologue, psks: [psk] })
  try {
    noise.read(message)
    return true
  } catch {
    return false
  }
}

/** The codes of the dictionary under which the first Noise message opens. */
function found(
  pskFor: (code: Uint8Array) => Uint8Array[],
  prologue: Uint8Array,
  message: Uint8Array,
): string[] {
  const codes: string[] = []
  for (const code of dictionary())
    if (pskFor(code).some((psk) => opens(psk, prologue, message))) codes.push(String(code))
  return codes
}

test('a dictionary finds the code in a recording of XXpsk0 alone', () => {
  const pskFor = (code: Uint8Array) => createHash('sha256').update(code).digest()
  const prologue = Buffer.from('anything known')
  const psk = pskFor(SECRET)
  const noise = new NoiseHandshake({ role: 'initiator', psk, prologue, staticKey: generateStaticKey() })
  assert.deepEqual(
    found((code) => [pskFor(code)], prologue, noise.write()),
    [String(SECRET)],
  )
})

/** The psks for all products that can be had from what was said, and for those that a guess adds, without a scalar. */
function pskWithoutScalar(said: Uint8Array[]) {
  const session = sessionOfAll(said)
  const channel = channelOf(TALK)
  const ya = (said[2] as Uint8Array).subarray(0, 32)
  const yb = (said[3] as Uint8Array).subarray(0, 32)
  // By libsodium, which makes a million guesses bearable.
  const { crypto_core_ristretto255_add: add, crypto_core_ristretto255_sub: subtract } = sodium
  const pskOfProduct = (product: Uint8Array) => pskFrom(said, session, product)
  return {
    guessless: [ya, yb, add(ya, yb), subtract(ya, yb)].map(pskOfProduct),
    guessed(code: Uint8Array): Uint8Array[] {
      const g: Uint8Array = sodium.crypto_core_ristretto255_from_hash(
        generatorHash({ password: code, channel, session }),
      )
      return [g, add(ya, g), add(yb, g)].map(pskOfProduct)
    },
  }
}

/** That neither the recording alone nor any guess opens the first message. */
function assertNothingFound(said: Uint8Array[], m4: Uint8Array): void {
  const prologue = prologueOf(TALK, said)
  const { guessless, guessed } = pskWithoutScalar(said)
  assert.deepEqual(
    guessless.filter((psk) => opens(psk, prologue, m4)),
    [],
  )
  assert.deepEqual(found(guessed, prologue, m4), [])
}

const sessionOfAll = (said: Uint8Array[]) =>
  sessionOf((said[0] as Uint8Array).subarray(9), said[1] as Uint8Array)

function pskFrom(said: Uint8Array[], session: Uint8Array, product: Uint8Array): Uint8Array {
  const parts = [said[2], said[3]].flatMap((message = NONE) => [
    message.subarray(0, 32),
    message.subarray(32),
  ])
  return pskOf(oracleKey(session, product, parts))
}

test('a dictionary finds nothing in a recording of a pairing', async () => {
  using workshop = new Workshop()
  const { joiner, frames } = await pair(joinerOf(), workshop.inviter())
  assert.equal(verdict(joiner), 'paired')
  const said = frames.slice(0, 4).map(body)
  assertNothingFound(said, body(frames[4]))
})

test('a false inviter can test the one code it has guessed, and no other', () => {
  for (const guess of [SECRET, WRONG]) {
    const { inviter, m4 } = inviting((side) => {
      side.talk.secret = guess
    })
    const said = inviter.said
    const mine = pointOf((said[2] as Uint8Array).subarray(0, 32))
      .multiply(inviter.scalar)
      .toBytes()
    // Its guess is in the share it has sent; the key it gets is the same for every code it thinks of afterwards.
    const psk = pskFrom(said, sessionOfAll(said), mine)
    const byScalar = found(() => [psk], prologueOf(TALK, said), m4)
    assert.equal(byScalar.length, guess === SECRET ? GUESSES : 0)
    assertNothingFound(said, m4)
  }
})

test('whatever comes, at any time: no error but the events, nobody trusted, never more than a message kept', async () => {
  const chunk = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    fc.uint8Array({ maxLength: 80 }).map((bytes) => framed(...bytes)),
    fc
      .constantFrom(16, 25, 48, 64, 96)
      .chain((length) =>
        fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => framed(...bytes)),
      ),
    fc.uint8Array({ minLength: 1, maxLength: 1 }).map((bytes) => framed(...bytes)),
    fc.constant(new Uint8Array(70_000)),
  )
  await fc.assert(
    fc.asyncProperty(fc.nat(7), fc.array(chunk, { maxLength: 6 }), async (index, chunks) => {
      using workshop = new Workshop()
      const joiner = joinerOf()
      const inviter = workshop.inviter()
      const outcome = await pair(joiner, inviter, (frame, i) =>
        i < index ? frame : (chunks[i - index] ?? new Uint8Array(0)),
      )
      // M7 only says that it is done; who forges it makes the joiner trust whom it has proven, and nobody else anything.
      const forged = hex(chunks[7 - index] ?? new Uint8Array(0)).startsWith('000100')
      if (index === 7) assert.equal(outcome.joiner?.type, forged ? 'paired' : 'failed')
      else assert.ok(outcome.joiner?.type === 'failed' || (index === 6 && forged))
      assert.equal(outcome.inviter?.type, index === 7 ? 'paired' : 'failed')
      assert.equal(workshop.recorded.length, index === 7 ? 1 : 0)
      for (const bytes of chunks) {
        assert.deepEqual(joiner.push(bytes), [])
        assert.deepEqual(inviter.push(bytes), [])
      }
    }),
    { numRuns: RUNS },
  )
})
