import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseShareOptions } from '../../src/config/share-options.ts'

test('options of a shared port', () => {
  assert.deepEqual(parseShareOptions([]), {})
  assert.deepEqual(parseShareOptions([['reset', 'off']]), {})
  assert.equal(parseShareOptions([['reset', 'esp32']]).reset?.name, 'esp32')
  assert.deepEqual(
    parseShareOptions([
      ['pack.gap', '2ms'],
      ['pack.size', '1KiB'],
      ['pack.until', '\\r\\n'],
    ]),
    { pack: { gapMs: 2, sizeBytes: 1024, until: '\r\n' } },
  )
})

test('a mistake is named with what would be right', () => {
  const mistakes: [name: string, value: string, message: RegExp][] = [
    ['rest', 'esp32', /“rest” is no option .* there are reset=, pack\.gap=/],
    ['reset', 'esp', /reset= .*“esp”.*esp32/],
    ['pack.gap', '2', /pack\.gap= is something like 2ms/],
    ['pack.gap', '0ms', /pack\.gap=/],
    ['pack.gap', '1001ms', /1000ms at most/],
    ['pack.size', '0', /pack\.size= is something like 256/],
    ['pack.size', '16385', /16384 at most/],
    ['pack.until', '', /pack\.until= is one to 8 bytes/],
  ]
  for (const [name, value, message] of mistakes)
    assert.throws(
      () => parseShareOptions([[name, value]]),
      { code: 'ERR_USAGE', message },
      `${name}=${value}`,
    )
  assert.throws(
    () =>
      parseShareOptions([
        ['reset', 'off'],
        ['reset', 'off'],
      ]),
    { code: 'ERR_USAGE', message: /reset= is said twice/ },
  )
})
