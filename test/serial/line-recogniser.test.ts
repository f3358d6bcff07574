import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Action, LineRecogniser, PATTERN_MS } from '../../src/serial/line-recogniser.ts'
import { parseReset, type ResetProfile } from '../../src/serial/line-sequence.ts'
import type { OutputLines } from '../../src/serial/port.ts'

const profile = (text: string) => parseReset(text) as ResetProfile

/** A port behind a recogniser, with the time that a test tells. `runs` counts sequences. */
class Board {
  readonly recogniser: LineRecogniser
  readonly #profile: ResetProfile
  lines: OutputLines
  runs = 0
  nowMs = 0

  constructor(reset: string, lines: OutputLines = { dtr: true, rts: true }) {
    this.#profile = profile(reset)
    this.recogniser = new LineRecogniser(this.#profile, lines)
    this.lines = { ...lines }
  }

  /** `D0 R1` are steps of their own, `D0R1` is one. */
  client(steps: string, betweenMs = 50): this {
    for (const step of steps.split(' ')) {
      const change: Partial<OutputLines> = {}
      for (const [, line, on] of step.matchAll(/([DR])([01])/g))
        change[line === 'D' ? 'dtr' : 'rts'] = on === '1'
      this.#do(this.recogniser.setLines(change, this.nowMs))
      this.nowMs += betweenMs
    }
    return this
  }

  baud(rate: number): this {
    this.#do(this.recogniser.setBaudRate(rate, this.nowMs))
    return this
  }

  wait(ms: number): this {
    this.nowMs += ms
    this.#do(this.recogniser.expire(this.nowMs))
    return this
  }

  get shown(): string {
    return `${Number(this.lines.dtr)}${Number(this.lines.rts)}`
  }

  #do(action: Action): void {
    if (action.type === 'set') this.lines = { ...this.lines, ...action.change }
    if (action.type !== 'run') return
    this.runs++
    for (const step of this.#profile.steps)
      if (step.type === 'lines') this.lines = { ...this.lines, ...step.change }
    this.lines = { ...this.lines, ...action.afterwards }
  }
}

/** The steps of flashing programs, as they come over RFC 2217. */
const CLASSIC = 'D0 R1 D0 D1 R0 D1 D0'
const TIGHT = 'D0R0 D1R1 D0R1 D1R0 D0R0 D0'
const MERGED = 'D0R1 D0 D1R0 D1 D0'
const HARD = 'R1 R0'
const USB = 'R0 D0 D1 R0 D1 R1 D0 R1 D0 D0 R0'

test('the steps that lead into the loader run the sequence once, however they come', () => {
  for (const steps of [CLASSIC, TIGHT, MERGED]) {
    const board = new Board('esp32').client(steps)
    assert.deepEqual([board.runs, board.shown], [1, '00'], steps)
    board.client(steps).client(steps)
    assert.deepEqual([board.runs, board.shown], [3, '00'], steps)
  }
})

test('the steps before it go through, those behind it have no effect', () => {
  const board = new Board('esp32')
  assert.equal(board.client('D0').shown, '01')
  assert.equal(board.runs, 0)
  assert.equal(board.client('D1').shown, '00')
  assert.equal(board.runs, 1)
  for (const step of ['D1', 'R0', 'D1', 'D0']) assert.equal(board.client(step).shown, '00', step)
  assert.deepEqual(board.recogniser.outputs, { dtr: false, rts: false })
  assert.equal(board.client('R1').shown, '01')
})

test('the client is told the lines as it has set them', () => {
  const board = new Board('esp32').client('D0 D1')
  assert.deepEqual(board.recogniser.outputs, { dtr: true, rts: true })
})

test('a reset into the program, an opening and a closing are none', () => {
  const others = [HARD, 'D0R0 D1 R1', 'D1R1', 'D0 R0', 'R0 D0', USB]
  for (const steps of others) {
    const board = new Board('esp32').client(steps)
    assert.equal(board.runs, 0, steps)
    assert.deepEqual(board.lines, board.recogniser.outputs, steps)
  }
})

test('a chip that is held in reset for long comes out of it as the client says', () => {
  const board = new Board('esp32').client('D0').wait(PATTERN_MS).client('D1')
  assert.deepEqual([board.runs, board.shown], [0, '11'])
})

test('a client that does something else gets it', () => {
  const board = new Board('esp32').client('D0 D1 D0')
  assert.deepEqual([board.runs, board.shown], [1, '01'])
  board.client('D1 R0 D0')
  assert.deepEqual([board.runs, board.shown], [2, '00'])
})

test('a client that goes no further gets its lines after a while', () => {
  const board = new Board('esp32').client('D0 D1 R0')
  assert.equal(board.wait(PATTERN_MS - 101).shown, '00')
  assert.equal(board.wait(1).shown, '10')
})

test('a chip with USB of its own is reset by the steps for the other circuit', () => {
  const board = new Board('esp32-usb').client(CLASSIC)
  assert.deepEqual([board.runs, board.shown], [1, '00'])
  assert.equal(new Board('esp32-usb').client(USB).runs, 0)
})

test('1200 baud is the touch, and what the client does about DTR then has no effect of its own', () => {
  const board = new Board('arduino-1200').baud(115_200).client('D1 R1')
  assert.equal(board.runs, 0)
  board.baud(1200)
  assert.deepEqual([board.runs, board.shown], [1, '01'])
  assert.equal(board.client('D1').shown, '01')
  assert.equal(board.client('D0').shown, '01')
  assert.equal(board.client('D1').shown, '11')
  assert.equal(board.runs, 1)
})

test('another speed after the touch gives the client its lines', () => {
  const board = new Board('arduino-1200').baud(1200).client('D1R1')
  assert.equal(board.shown, '01')
  assert.equal(board.baud(57_600).shown, '11')
})

test('a pulse of one line leaves the other as the client has it', () => {
  const board = new Board('dtr-/100ms/dtr+').client('R0 D0 D1R1')
  assert.deepEqual([board.runs, board.shown], [1, '11'])
})

const change = fc.record({ dtr: fc.boolean(), rts: fc.boolean() }, { requiredKeys: [] })
const profiles = fc.constantFrom(
  'esp32',
  'esp32-usb',
  'arduino-1200',
  'dtr-/9ms/dtr+',
  'rts+dtr+/rts-/dtr-/rts+',
)

test('in the end the lines are as the client has set them, whatever it did', () => {
  const act = fc.record({ change, afterMs: fc.nat(PATTERN_MS), baudRate: fc.constantFrom(0, 1200, 9600) })
  fc.assert(
    fc.property(profiles, fc.array(act, { maxLength: 30 }), (reset, acts) => {
      const board = new Board(reset)
      let [dtr, rts] = [true, true]
      for (const { change, afterMs, baudRate } of acts) {
        board.wait(afterMs)
        if (baudRate > 0) board.baud(baudRate)
        const steps = Object.entries(change).map(([line, on]) => `${line === 'dtr' ? 'D' : 'R'}${Number(on)}`)
        board.client(steps.join(''), 0)
        dtr = change.dtr ?? dtr
        rts = change.rts ?? rts
        assert.deepEqual(board.recogniser.outputs, { dtr, rts })
      }
      board.wait(PATTERN_MS)
      assert.deepEqual(board.lines, { dtr, rts })
      assert.equal(board.recogniser.untilMs, undefined)
    }),
  )
})
