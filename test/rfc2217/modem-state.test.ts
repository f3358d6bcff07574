import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { InputLines } from '../../src/rfc2217/line.ts'
import { changesBetween, deltasBetween } from '../../src/rfc2217/modem-state.ts'
import { ALL_LOW } from './port.ts'

const LINES = ['cts', 'dsr', 'ri', 'dcd'] as const

test('without counts, the levels say what changed', () => {
  const before = { cts: true, dsr: false, ri: true, dcd: false }
  const now = { cts: false, dsr: true, ri: false, dcd: false }
  assert.deepEqual(deltasBetween(before, now), { cts: true, dsr: true, ri: true, dcd: false })
  assert.deepEqual(deltasBetween(now, before).ri, false, 'a ring that begins has no delta')
})

test('a state without deltas that differs from the last one still counts its edges', () => {
  const now = { cts: true, dsr: false, ri: true, dcd: false }
  assert.deepEqual(changesBetween(ALL_LOW, { lines: now, deltas: ALL_LOW }), {
    cts: 1,
    dsr: 0,
    ri: 1,
    dcd: 0,
  })
})

test('the first state counts the edges it tells of, and no others', () => {
  const lines = { cts: true, dsr: true, ri: false, dcd: false }
  const deltas = { ...ALL_LOW, cts: true }
  assert.deepEqual(changesBetween(undefined, { lines, deltas }), { cts: 1, dsr: 0, ri: 0, dcd: 0 })
})

test('edges survive the wire as far as its bits can tell', () => {
  const levels = fc.record({ cts: fc.boolean(), dsr: fc.boolean(), ri: fc.boolean(), dcd: fc.boolean() })
  const counts = fc.record({ cts: fc.nat(9), dsr: fc.nat(9), ri: fc.nat(9), dcd: fc.nat(9) })
  fc.assert(
    fc.property(levels, counts, (before, edges) => {
      const now: InputLines = { ...before }
      for (const line of LINES) if (edges[line] % 2 === 1) now[line] = !before[line]
      const told = changesBetween(before, { lines: now, deltas: deltasBetween(before, now, edges) })
      for (const line of LINES) {
        assert.equal(told[line] > 0, edges[line] > 0, `${line} changed`)
        assert.equal(told[line] % 2, edges[line] % 2, `${line} ends where it does`)
        assert.ok(told[line] <= edges[line], `${line} has no edge that was not there`)
      }
    }),
  )
})
