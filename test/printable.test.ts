import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { printable } from '../src/printable.ts'

test('what a terminal would act on is escaped, what people read is not', () => {
  for (const [text, shown] of [
    ['Anna’s Büro 工場 🏭', 'Anna’s Büro 工場 🏭'],
    ['\u001b[2J', '\\u{1b}[2J'],
    ['\u009b2J', '\\u{9b}2J'],
    ['a\r\nb\u2028c\u2029d', 'a\\u{d}\\u{a}b\\u{2028}c\\u{2029}d'],
    ['\u202egpj.exe', '\\u{202e}gpj.exe'],
    ['\u{e0041}', '\\u{e0041}'],
  ] as const)
    assert.equal(printable(text), shown)
})

test('whatever is said, the answer is one line without control characters', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      assert.doesNotMatch(printable(text), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    }),
  )
})
