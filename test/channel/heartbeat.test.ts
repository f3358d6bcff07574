import assert from 'node:assert/strict'
import { afterEach, beforeEach, mock, test } from 'node:test'
import { Heartbeat } from '../../src/channel/heartbeat.ts'

beforeEach(() => mock.timers.enable({ apis: ['setTimeout', 'Date'] }))
afterEach(() => mock.timers.reset())

/** A heartbeat and what it did, as "milliseconds what". */
function watched() {
  const started = Date.now()
  const events: string[] = []
  const at = (what: string) => events.push(`${Date.now() - started} ${what}`)
  const waiting: { since: number | undefined } = { since: undefined }
  const heartbeat = new Heartbeat({
    clock: Date.now,
    waitingSince: () => waiting.since,
    sendPing: (token) => at(`ping ${token}`),
    onRoundTrip: (ms) => at(`round trip ${ms}`),
    onSilent: () => at('silent'),
  })
  heartbeat.start()
  return { heartbeat, events, waiting }
}

/** In steps, so that a timer set within is heeded at its time. */
function pass(ms: number): void {
  for (let i = 0; i < ms; i += 10) mock.timers.tick(10)
}

test('idle: asks every 5 s, gives up after 15 s of silence', () => {
  const { heartbeat, events } = watched()
  pass(40)
  heartbeat.heard()
  heartbeat.pong(1)
  pass(5000)
  heartbeat.heard()
  heartbeat.pong(2)
  pass(30_000)
  assert.deepEqual(events, [
    '0 ping 1',
    '40 round trip 40',
    '5000 ping 2',
    '5040 round trip 40',
    '10000 ping 3',
    '20040 silent',
  ])
})

test('with bytes unacknowledged: asks after 1 s, gives up after 3 s, counted from the first of them', () => {
  const { heartbeat, events, waiting } = watched()
  heartbeat.pong(1)
  pass(2500)
  waiting.since = Date.now()
  pass(10_000)
  assert.deepEqual(events, ['0 ping 1', '0 round trip 0', '3500 ping 2', '5500 silent'])
})

test('anything heard is a sign of life', () => {
  const { heartbeat, events, waiting } = watched()
  waiting.since = Date.now()
  for (let i = 0; i < 20; i++) {
    pass(500)
    heartbeat.heard()
  }
  assert.deepEqual(events, ['0 ping 1'])
  pass(3000)
  assert.equal(events.at(-1), '13000 silent')
  heartbeat.stop()
})

test('the round trip is smoothed; an answer to nothing is none', () => {
  const { heartbeat, events } = watched()
  heartbeat.pong(7)
  pass(100)
  heartbeat.heard()
  heartbeat.pong(1)
  heartbeat.pong(1)
  pass(4910)
  pass(180)
  heartbeat.pong(2)
  heartbeat.stop()
  assert.deepEqual(events, ['0 ping 1', '100 round trip 100', '5000 ping 2', '5190 round trip 111.25'])
})

test('a slow path is given more time', () => {
  const { heartbeat, events, waiting } = watched()
  pass(2000)
  heartbeat.heard()
  heartbeat.pong(1)
  waiting.since = Date.now()
  pass(20_000)
  assert.deepEqual(events, ['0 ping 1', '2000 round trip 2000', '5000 ping 2', '10000 silent'])
})

test('a process that slept asks first, and waits anew before it gives up', () => {
  const { heartbeat, events, waiting } = watched()
  heartbeat.pong(1)
  waiting.since = Date.now()
  mock.timers.setTime(Date.now() + 3_600_000)
  pass(10_000)
  assert.deepEqual(events.slice(2), ['3600010 ping 2', '3603010 silent'])
})

test('once stopped it does nothing', () => {
  const { heartbeat, events } = watched()
  heartbeat.stop()
  pass(20_000)
  assert.deepEqual(events, ['0 ping 1'])
})
