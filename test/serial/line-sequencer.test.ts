import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseReset, type ResetProfile } from '../../src/serial/line-sequence.ts'
import { LineSequencer } from '../../src/serial/line-sequencer.ts'
import { memorySource } from '../../src/serial/memory-port.ts'
import type { OutputLines } from '../../src/serial/port.ts'

/** A port that notes when its lines moved. */
async function board() {
  const moves: { at: number; lines: OutputLines }[] = []
  const source = memorySource({
    description: { path: 'board', modemLines: true },
    attach: () => ({
      onBytes: (bytes) => bytes.length,
      onRoom: () => {},
      onOutputs: (lines) => void moves.push({ at: performance.now(), lines: { ...lines } }),
      onBreak: () => {},
      onClose: () => {},
    }),
  })
  return { moves, port: await source.open({}) }
}

test('the sequence keeps its time, and lines of one step move in one call', async () => {
  const { moves, port: opened } = await board()
  await using port = opened
  const names: string[] = []
  using lines = new LineSequencer(port, parseReset('esp32') as ResetProfile, (name) => void names.push(name))
  await lines.setLines({ dtr: false, rts: true })
  moves.length = 0
  await lines.setLines({ dtr: true })
  assert.deepEqual(
    moves.map(({ lines }) => lines),
    [
      { dtr: false, rts: true },
      { dtr: true, rts: false },
      { dtr: false, rts: false },
    ],
  )
  const [reset = 0, boot = 0, done = 0] = moves.map(({ at }) => at)
  assert.ok(boot - reset >= 100, `${boot - reset} ms in reset`)
  assert.ok(done - boot >= 50, `${done - boot} ms with GPIO0 low`)
  assert.deepEqual(lines.outputs, { dtr: true, rts: true })
  assert.deepEqual(names, ['esp32'])
  await lines.setLines({ rts: false })
  await lines.setLines({ dtr: false })
  assert.deepEqual(port.outputs, { dtr: false, rts: false })
})

test('a sequence that is under way when the port is given up ends at once, with its last lines', async () => {
  const { moves, port: opened } = await board()
  await using port = opened
  const lines = new LineSequencer(port, parseReset('rts+/1000ms/rts-/400ms/dtr-') as ResetProfile, () => {})
  await lines.setLines({ rts: true })
  const startedAt = performance.now()
  const run = lines.setLines({ rts: false })
  lines[Symbol.dispose]()
  await run
  assert.ok(performance.now() - startedAt < 1000)
  assert.deepEqual(moves.at(-1)?.lines, { dtr: false, rts: false })
})
