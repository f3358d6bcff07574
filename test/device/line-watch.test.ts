import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { SerialCounters } from '../../src/device/libc.ts'
import { LineWatch } from '../../src/device/line-watch.ts'
import type { InputLines } from '../../src/serial/port.ts'

const LINES = ['cts', 'dsr', 'ri', 'dcd'] as const

/** A driver that counts every edge. */
function driver() {
  const lines: InputLines = { cts: false, dsr: false, ri: false, dcd: false }
  const counters: SerialCounters = {
    cts: 0,
    dsr: 0,
    ri: 0,
    dcd: 0,
    framing: 0,
    overrun: 0,
    parity: 0,
    break: 0,
    bufferOverrun: 0,
  }
  return {
    lines,
    counters,
    asked: 0,
    device() {
      return {
        lines: () => {
          this.asked++
          return { ...lines }
        },
        counters: () => ({ ...counters }),
      }
    },
    toggle(line: keyof InputLines) {
      lines[line] = !lines[line]
      counters[line] = (counters[line] + 1) | 0
    },
  }
}

test('no edge is lost or told twice, however looks fall between edges', () => {
  const events = fc.array(fc.oneof(fc.constantFrom(...LINES), fc.constant('look' as const)))
  fc.assert(
    fc.property(events, (happenings) => {
      const d = driver()
      const watch = new LineWatch(d.device(), () => 0)
      const seen = { cts: 0, dsr: 0, ri: 0, dcd: 0 }
      for (const happening of [...happenings, 'look' as const]) {
        if (happening !== 'look') d.toggle(happening)
        else {
          const { lines } = watch.look()
          for (const line of LINES) seen[line] += lines?.changes[line] ?? 0
          if (lines) assert.deepEqual(lines.now, d.lines)
        }
      }
      for (const line of LINES) assert.equal(seen[line], d.counters[line])
      assert.deepEqual(watch.lines, d.lines)
    }),
  )
})

test('counts may wrap', () => {
  const d = driver()
  d.counters.cts = 0x7fff_ffff
  const watch = new LineWatch(d.device())
  d.toggle('cts')
  d.toggle('cts')
  assert.equal(d.counters.cts, -0x7fff_ffff)
  assert.equal(watch.look().lines?.changes.cts, 2)
})

test('an edge that falls between asking for counts and for levels is told once', () => {
  const d = driver()
  const device = d.device()
  let late = true
  const watch = new LineWatch({
    counters: device.counters,
    lines() {
      const lines = device.lines()
      if (d.asked > 1 && late) {
        late = false
        d.toggle('cts')
      }
      return lines
    },
  })
  assert.equal(watch.look().lines?.changes.cts, 1)
  assert.equal(watch.look().lines, undefined)
})

test('levels that are slow to ask for are asked for seldom, but at once when a count moves', () => {
  const d = driver()
  const device = d.device()
  let now = 0
  const watch = new LineWatch(
    {
      counters: device.counters,
      lines() {
        now += 1
        return device.lines()
      },
    },
    () => now,
  )
  watch.look()
  const { asked } = d
  for (let i = 0; i < 4; i++) {
    now += 10
    watch.look()
  }
  assert.equal(d.asked, asked)
  d.toggle('dcd')
  assert.equal(watch.look().lines?.changes.dcd, 1)
  assert.equal(d.asked, asked + 1)
  now += 100
  watch.look()
  assert.equal(d.asked, asked + 2)
})

test('a device with neither lines nor counts has nothing to tell', () => {
  const watch = new LineWatch({ lines: () => undefined, counters: () => undefined })
  assert.deepEqual(watch.look(), {})
})
