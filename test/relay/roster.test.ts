import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { MAX_DOOR_MS, MAX_VOUCHES, Roster } from '../../src/relay/roster.ts'
import { sourceOf } from '../../src/relay/source.ts'
import { peer } from './peers.ts'

const [AGENT, OTHER, CALLER, STRANGER] = [peer(1), peer(2), peer(3), peer(4)]
const HOME = '192.0.2.1'

function setUp() {
  const agents = new Set([AGENT, OTHER])
  const time = { now: 0 }
  const roster = new Roster({
    trusts: (peerId) => agents.has(peerId),
    mayRelay: (peerId) => agents.has(peerId),
    clock: () => time.now,
  })
  const lost: string[] = []
  roster.on('lost', (peerIds) => lost.push(...peerIds))
  return { agents, roster, lost, time }
}

const says = (vouch: string[], doors: { nameplate?: string; forMs: number }[] = []) => ({
  vouch,
  unvouch: [],
  doors,
})

const unfit = (error: unknown) => error instanceof FarportError && error.code === 'ERR_UNFIT'

test('whom an agent vouches for gets in and may call that agent, and no other', () => {
  const { roster } = setUp()
  assert.equal(roster.admits(CALLER), false)
  roster.begin(AGENT).replace(says([CALLER]))
  roster.begin(OTHER).replace(says([]))
  assert.equal(roster.admits(CALLER), true)
  assert.equal(roster.mayCall(CALLER, AGENT), true)
  assert.equal(roster.mayCall(CALLER, OTHER), false)
  assert.equal(roster.mayCall(AGENT, OTHER), false)
  assert.equal(roster.mayCall(AGENT, CALLER), false)
  assert.equal(roster.mayReserve(CALLER), false)
  assert.equal(roster.mayReserve(AGENT), true)
  assert.equal(roster.admits(STRANGER), false)
})

test('a peer that is trusted without may=relay may not vouch', () => {
  const { roster } = setUp()
  assert.throws(
    () => roster.begin(CALLER),
    (error) =>
      error instanceof FarportError && error.code === 'ERR_NOT_GRANTED' && /may=relay/.test(error.message),
  )
})

test('a vouch that is taken back is lost at once, also for a peer that another agent vouches for', () => {
  const { roster, lost } = setUp()
  const one = roster.begin(AGENT)
  one.replace(says([CALLER]))
  roster.begin(OTHER).replace(says([CALLER]))
  one.change({ vouch: [], unvouch: [CALLER, STRANGER] })
  assert.deepEqual(lost, [CALLER])
  assert.equal(roster.mayCall(CALLER, AGENT), false)
  assert.equal(roster.mayCall(CALLER, OTHER), true)
  assert.equal(roster.admits(CALLER), true)
})

test('an agent that comes back replaces what it said, and its old session has no say any more', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { roster, lost } = setUp()
  const old = roster.begin(AGENT)
  old.replace(says([CALLER, STRANGER]))
  const session = roster.begin(AGENT)
  assert.equal(roster.mayCall(STRANGER, AGENT), true)
  session.replace(says([CALLER]))
  assert.deepEqual(lost, [STRANGER])
  assert.throws(() => old.change(says([STRANGER])), FarportError)
  old.end()
  t.mock.timers.tick(3_600_000)
  assert.equal(roster.mayCall(CALLER, AGENT), true)
})

test('what an agent said stands for a minute after it is gone, no longer', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { roster, lost } = setUp()
  const session = roster.begin(AGENT)
  session.replace(says([CALLER]))
  session.end()
  t.mock.timers.tick(59_000)
  assert.equal(roster.mayCall(CALLER, AGENT), true)
  t.mock.timers.tick(2_000)
  assert.equal(roster.admits(CALLER), false)
  assert.equal(roster.mayCall(CALLER, AGENT), false)
  assert.deepEqual(lost, [CALLER])
})

test('an agent that the owner no longer lets relay loses everything at once, with those it vouched for', () => {
  const { agents, roster, lost } = setUp()
  const session = roster.begin(AGENT)
  session.replace(says([CALLER], [{ nameplate: '734', forMs: 60_000 }]))
  agents.delete(AGENT)
  // Also before enforce() is called.
  assert.equal(roster.mayCall(CALLER, AGENT), false)
  assert.deepEqual(roster.find('734'), [])
  roster.enforce()
  assert.deepEqual(lost.toSorted(), [AGENT, CALLER].toSorted())
  assert.equal(roster.admits(CALLER), false)
  assert.equal(roster.admits(AGENT), false)
  assert.throws(() => session.change(says([CALLER])), FarportError)
})

test('a door lets strangers in to that agent, and is found by its nameplate, until it closes', () => {
  const { roster, time } = setUp()
  const session = roster.begin(AGENT)
  session.replace(says([], [{ nameplate: '734', forMs: 60_000 }, { forMs: 1_000 }]))
  roster.begin(OTHER).replace(says([]))
  assert.deepEqual(roster.find('734'), [AGENT])
  assert.deepEqual(roster.find('735'), [])
  assert.equal(roster.admits(STRANGER), true)
  assert.equal(roster.mayCall(STRANGER, AGENT), true)
  assert.equal(roster.mayCall(STRANGER, OTHER), false)
  assert.equal(roster.mayReserve(STRANGER), false)
  time.now = 60_000
  assert.deepEqual(roster.find('734'), [])
  assert.equal(roster.admits(STRANGER), false)
  assert.equal(roster.mayCall(STRANGER, AGENT), false)

  session.change({ vouch: [], unvouch: [], doors: [{ nameplate: '111', forMs: 1_000 }] })
  assert.deepEqual(roster.find('111'), [AGENT])
  session.change({ vouch: [CALLER], unvouch: [] })
  assert.deepEqual(roster.find('111'), [AGENT])
  session.change({ vouch: [], unvouch: [], doors: [] })
  assert.deepEqual(roster.find('111'), [])
})

test('no door stays open longer than an invite lasts', () => {
  const { roster, time } = setUp()
  roster.begin(AGENT).replace(says([], [{ forMs: Number.MAX_SAFE_INTEGER }]))
  time.now = MAX_DOOR_MS
  assert.equal(roster.admits(STRANGER), false)
})

test('strangers are few, fewer still from one place, and leave in time', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { roster, lost } = setUp()
  roster.begin(AGENT).replace(says([], [{ forMs: 600_000 }]))
  const crowd = Array.from({ length: 40 }, (_, i) => peer(100 + i))
  assert.equal(crowd.filter((one) => roster.enter(one, HOME)).length, 4)
  assert.equal(crowd.filter((one, i) => roster.enter(one, `198.51.100.${i}`)).length, 32)
  assert.equal(roster.admits(STRANGER), false)
  // Those who are in may come a second time, with a second connection.
  assert.equal(roster.admits(crowd[0] as string), true)
  roster.leave(crowd[0] as string)
  roster.leave(crowd[0] as string)
  assert.equal(roster.admits(STRANGER), true)
  t.mock.timers.tick(20_000)
  assert.equal(lost.length, 31)
  assert.equal(roster.enter(STRANGER, HOME), true)
})

test('a stranger that has paired stays', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { roster, lost } = setUp()
  const session = roster.begin(AGENT)
  session.replace(says([], [{ forMs: 600_000 }]))
  assert.equal(roster.enter(STRANGER, HOME), true)
  session.change({ vouch: [STRANGER], unvouch: [], doors: [] })
  t.mock.timers.tick(600_000)
  assert.deepEqual(lost, [])
  assert.equal(roster.mayCall(STRANGER, AGENT), true)
})

test('an agent gets so much and no more, and keeps what it had', () => {
  const { roster } = setUp()
  const session = roster.begin(AGENT)
  const most = Array.from({ length: MAX_VOUCHES }, (_, i) => peer(1_000 + i))
  session.replace(says(most))
  assert.throws(() => session.change({ vouch: [CALLER], unvouch: [] }), unfit)
  assert.throws(
    () => session.change({ vouch: [], unvouch: [], doors: Array.from({ length: 5 }, () => ({ forMs: 1 })) }),
    unfit,
  )
  assert.equal(roster.mayCall(CALLER, AGENT), false)
  session.change({ vouch: [CALLER], unvouch: [most[0] as string] })
  assert.equal(roster.mayCall(CALLER, AGENT), true)
})

test('however agents come, speak and go: who may call whom is what was said last', () => {
  const everyone = [AGENT, OTHER, CALLER, STRANGER, peer(5)]
  const step = fc.record({
    agent: fc.constantFrom(AGENT, OTHER),
    does: fc.constantFrom('begin', 'change', 'revoke', 'grant'),
    vouch: fc.subarray(everyone),
    unvouch: fc.subarray(everyone),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const { agents, roster } = setUp()
      const sessions = new Map<string, ReturnType<Roster['begin']>>()
      const truth = new Map<string, Set<string>>()
      for (const { agent, does, vouch, unvouch } of steps) {
        switch (does) {
          case 'begin':
            if (!agents.has(agent)) break
            sessions.set(agent, roster.begin(agent))
            sessions.get(agent)?.replace({ vouch, unvouch, doors: [] })
            truth.set(agent, new Set(vouch))
            break
          case 'change':
            if (!truth.has(agent)) break
            sessions.get(agent)?.change({ vouch, unvouch })
            for (const one of unvouch) truth.get(agent)?.delete(one)
            for (const one of vouch) truth.get(agent)?.add(one)
            break
          case 'revoke':
            agents.delete(agent)
            roster.enforce()
            truth.delete(agent)
            break
          case 'grant':
            agents.add(agent)
            break
        }
        for (const source of everyone) {
          const vouched = [...truth.values()].some((callers) => callers.has(source))
          assert.equal(roster.admits(source), agents.has(source) || vouched)
          for (const destination of everyone)
            assert.equal(roster.mayCall(source, destination), truth.get(destination)?.has(source) ?? false)
        }
      }
      roster[Symbol.dispose]()
    }),
  )
})

test('an IPv6 subscriber is one source, an IPv4 address another', () => {
  assert.equal(sourceOf('/ip4/192.0.2.1/tcp/4001'), '192.0.2.1')
  const same = ['2001:db8:1:2::1', '2001:db8:1:2:ffff::', '2001:0db8:1:2:3:4:5:6'].map((host) =>
    sourceOf(`/ip6/${host}/tcp/1`),
  )
  assert.equal(new Set(same).size, 1)
  assert.notEqual(sourceOf('/ip6/2001:db8:1:3::1/tcp/1'), same[0])
  assert.equal(sourceOf('/ip6/::1/tcp/1'), sourceOf('/ip6/::2/tcp/1'))
})
