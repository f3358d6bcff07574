import assert from 'node:assert/strict'
import { mock, test } from 'node:test'
import type { Piece } from '../../src/capture/format.ts'
import { play } from '../../src/capture/play.ts'

async function* capture(...pieces: [atMs: number, direction: Piece['direction'], text: string][]) {
  for (const [atMs, direction, text] of pieces) yield { atMs, direction, bytes: Buffer.from(text) }
}

/** What was said, and when, with time passing only when somebody waits for it. */
async function said(
  pieces: AsyncIterable<Piece>,
  speed: number,
  signal = new AbortController().signal,
): Promise<string[]> {
  mock.timers.enable({ apis: ['setTimeout'] })
  const told: string[] = []
  let nowMs = 0
  let over = false
  const write = async (bytes: Uint8Array) => void told.push(`${nowMs} ${Buffer.from(bytes)}`)
  const done = play(pieces, { speed, signal, write, clock: () => nowMs }).finally(() => {
    over = true
  })
  try {
    while (!over) {
      await new Promise((resolve) => setImmediate(resolve))
      nowMs += 50
      mock.timers.tick(50)
    }
    await done
  } finally {
    mock.timers.reset()
  }
  return told
}

test('says what the device said, at its times, and nothing that it was told', async () => {
  const pieces = capture([1000, 'toDevice', 'AT'], [1100, 'fromDevice', 'OK'], [1400, 'fromDevice', 'RING'])
  assert.deepEqual(await said(pieces, 1), ['100 OK', '400 RING'])
})

test('twice as fast, and as fast as it goes', async () => {
  const pieces = () => capture([0, 'fromDevice', 'a'], [400, 'fromDevice', 'b'], [800, 'fromDevice', 'c'])
  assert.deepEqual(await said(pieces(), 2), ['0 a', '200 b', '400 c'])
  assert.deepEqual(await said(pieces(), Number.POSITIVE_INFINITY), ['0 a', '0 b', '0 c'])
})

test('a clock that was set back holds nothing up', async () => {
  const pieces = capture([5000, 'fromDevice', 'a'], [1000, 'fromDevice', 'b'], [5100, 'fromDevice', 'c'])
  assert.deepEqual(await said(pieces, 1), ['0 a', '0 b', '100 c'])
})

test('ends when it is told to, in the middle of a silence', async () => {
  const stop = new AbortController()
  const pieces = capture([0, 'fromDevice', 'a'], [3_600_000, 'fromDevice', 'b'])
  setImmediate(() => stop.abort())
  assert.deepEqual(await said(pieces, 1, stop.signal), ['0 a'])
})
