import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Replay } from '../../src/session/replay.ts'

test('the last bytes, however they came, and never more than are kept', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 20 }),
      fc.nat(48),
      fc.nat(60),
      (chunks, kept, asked) => {
        const replay = new Replay(kept)
        const all = Buffer.concat(chunks)
        for (const chunk of chunks) replay.push(chunk)
        const wanted = Math.min(all.length, kept, asked)
        assert.deepEqual(replay.last(asked), all.subarray(all.length - wanted))
      },
    ),
  )
})

test('what was handed out stays as it was', () => {
  const replay = new Replay(4)
  replay.push(Buffer.from('abcd'))
  const last = replay.last(4)
  replay.push(Buffer.from('efgh'))
  assert.equal(String(last), 'abcd')
})
