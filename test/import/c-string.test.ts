import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cString } from '../../src/import/c-string.ts'

const known = { d: '/dev/ttyS0', p: '2000' }

for (const [written, text] of [
  ['plain', 'plain'],
  [String.raw`a\r\n\t\\\"`, 'a\r\n\t\\"'],
  [String.raw`\015\7z\x1b\x4`, '\r\x07z\x1b\x04'],
  [String.raw`port \p: \d`, 'port 2000: /dev/ttyS0'],
] as const)
  test(`“${written}” is read as ser2net does`, () => assert.deepEqual(cString(written, known), { text }))

test('what changes from use to use has no fixed text', () => {
  assert.deepEqual(cString(String.raw`\p at \H:\i`, known), { unknown: String.raw`\H` })
  assert.deepEqual(cString('ends so \\', known), { unknown: '\\' })
})
