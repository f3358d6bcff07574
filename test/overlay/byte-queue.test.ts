import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ByteQueue } from '../../src/overlay/byte-queue.ts'

test('wherever it was cut, it comes out as it was put in, in the lengths asked for', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 9 })),
      fc.array(fc.nat({ max: 12 })),
      (parts, lengths) => {
        const queue = new ByteQueue()
        let left = Buffer.concat(parts)
        for (const part of parts) queue.push(part)
        for (const length of lengths) {
          assert.equal(queue.length, left.length)
          if (length > left.length) {
            assert.throws(() => queue.take(length), RangeError)
            continue
          }
          if (length > 0) assert.deepEqual(Buffer.from(queue.peek(length)), left.subarray(0, length))
          assert.deepEqual(Buffer.from(queue.take(length)), left.subarray(0, length))
          left = left.subarray(length)
        }
      },
    ),
  )
})

test('what came in one part is given back without a copy', () => {
  const queue = new ByteQueue()
  const part = Buffer.from('header and payload')
  queue.push(part)
  queue.take(7)
  assert.equal(queue.take(11).buffer, part.buffer)
})
