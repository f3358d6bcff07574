import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseBytes, parseDuration } from '../../src/config/units.ts'

test('lengths of time', () => {
  const known = { '2ms': 2, '1.5s': 1500, '30s': 30_000, '10 m': 600_000, '1h': 3_600_000, '7d': 604_800_000 }
  for (const [text, ms] of Object.entries(known)) assert.equal(parseDuration(text), ms, text)
  for (const text of ['30', '', 's', '-1s', '1 week', '1S', '1e3s', '9999999999999s', '0.0001s', 'toString'])
    assert.equal(parseDuration(text), undefined, text)
})

test('amounts of bytes', () => {
  const known = { '4096': 4096, '1B': 1, '16KiB': 16_384, '8 MiB': 8_388_608, '1GiB': 1_073_741_824 }
  for (const [text, bytes] of Object.entries(known)) assert.equal(parseBytes(text), bytes, text)
  for (const text of ['', '16KB', '16k', '-1', '0x10', '1.3B', 'constructor'])
    assert.equal(parseBytes(text), undefined, text)
})
