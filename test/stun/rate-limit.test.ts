import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { RateLimit } from '../../src/stun/rate-limit.ts'

const rate = (perSecond: number, burst = perSecond) => ({ perSecond, burst })

test('a source gets its burst at once, then its rate', () => {
  let nowMs = 0
  const limit = new RateLimit({
    perSource: rate(10, 3),
    total: rate(1000),
    maxSources: 8,
    nowMs: () => nowMs,
  })
  const passed = () => Array.from({ length: 6 }, () => limit.take('a')).filter(Boolean).length
  assert.equal(passed(), 3)
  nowMs += 99
  assert.equal(passed(), 0)
  nowMs += 101
  assert.equal(passed(), 2)
  nowMs += 60_000
  assert.equal(passed(), 3)
})

test('who asks too much takes nothing from the others', () => {
  const limit = new RateLimit({ perSource: rate(2), total: rate(4), maxSources: 8, nowMs: () => 0 })
  for (let n = 0; n < 100; n++) limit.take('loud')
  assert.deepEqual([limit.take('quiet'), limit.take('quiet')], [true, true])
})

test('however many sources there are, the rate in all holds and the table stays small', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(50), fc.nat(40)), { maxLength: 300 }), (events) => {
      let nowMs = 0
      const limit = new RateLimit({ perSource: rate(5), total: rate(20), maxSources: 10, nowMs: () => nowMs })
      let passed = 0
      for (const [source, waitMs] of events) {
        nowMs += waitMs
        if (limit.take(`${source}`)) passed++
        assert.ok(limit.sources <= 10)
      }
      assert.ok(passed <= 20 + (nowMs * 20) / 1000 + 1e-6)
    }),
  )
})
