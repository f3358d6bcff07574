import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseLineFormat } from '../../src/serial/line-format.ts'

test('data bits, parity and stop bits, with the speed in front where it is given', () => {
  assert.deepEqual(parseLineFormat('7E1'), { dataBits: 7, parity: 'even', stopBits: 1 })
  assert.deepEqual(parseLineFormat('5n1.5'), { dataBits: 5, parity: 'none', stopBits: 1.5 })
  assert.deepEqual(parseLineFormat('9600-8M2'), { baudRate: 9600, dataBits: 8, parity: 'mark', stopBits: 2 })
  assert.deepEqual(parseLineFormat('4294967295-6S1').baudRate, 0xffff_ffff)
})

for (const wrong of [
  '',
  '8N',
  '9600',
  '9600 8N1',
  '9600,8N1',
  '0-8N1',
  '09600-8N1',
  '4294967296-8N1',
  '9N1',
  '8N3',
  '8X1',
  '8N1x',
  '-8N1',
])
  test(`refused, with what would be right: “${wrong}”`, () => {
    assert.throws(() => parseLineFormat(wrong), { code: 'ERR_USAGE', message: /as in 7E1/ })
  })

test('whatever is typed is a line or a usage error', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[0-9.\-NOEMS]{0,8}$/)), (text) => {
      try {
        const line = parseLineFormat(text)
        assert.ok([5, 6, 7, 8].includes(line.dataBits) && [1, 1.5, 2].includes(line.stopBits))
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'ERR_USAGE')
      }
    }),
  )
})
