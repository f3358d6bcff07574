import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Grant, hasExpired, isNarrower, RIGHTS, rightsOn, withImplied } from '../../src/trust/grants.ts'

const rights = (grant: Partial<Grant>, port: string, now = 0) => [
  ...rightsOn({ ports: [], may: [], ...grant }, port, now),
]

test('nothing is granted unless a pattern names the port', () => {
  const may = ['watch', 'use'] as const
  assert.deepEqual(rights({ may }, 'gps'), [])
  assert.deepEqual(rights({ may, ports: ['plc', 'gps'] }, 'gps'), ['watch', 'use'])
  assert.deepEqual(rights({ may, ports: ['gps'] }, 'gps2'), [])
  assert.deepEqual(rights({ may, ports: ['gps'] }, 'GPS'), [])
  assert.deepEqual(rights({ may, ports: ['gps'] }, ''), [])
})

test('relay is a right on no port', () => {
  assert.deepEqual(rights({ may: ['relay'], ports: ['*'] }, 'gps'), [])
})

test('from its expiry on, a grant is worth nothing', () => {
  const grant: Grant = { ports: ['*'], may: ['watch'], expires: 1000 }
  assert.deepEqual([rights(grant, 'gps', 999), rights(grant, 'gps', 1000)], [['watch'], []])
  assert.deepEqual([hasExpired(grant, 999), hasExpired(grant, 1000)], [false, true])
  assert.equal(hasExpired({ ports: [], may: [] }, Number.MAX_SAFE_INTEGER), false)
})

test('who may use or steal may also watch; nothing else is implied', () => {
  assert.deepEqual(withImplied(['use']), ['watch', 'use'])
  assert.deepEqual(withImplied(['steal']), ['watch', 'steal'])
  assert.deepEqual(withImplied(['relay', 'lines', 'configure']), ['configure', 'lines', 'relay'])
})

const granted = (pattern: string, port: string) =>
  rights({ may: ['watch'], ports: [pattern] }, port).length > 0

test('patterns match like a regular expression made of them', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '.', '-'), maxLength: 8 })
  const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '.', '-', '*', '?'), maxLength: 8 })
  fc.assert(
    fc.property(pattern, letters, (pattern, port) => {
      const source = pattern.replaceAll('.', '\\.').replaceAll('*', '.*').replaceAll('?', '.')
      assert.equal(granted(pattern, port), new RegExp(`^${source}$`).test(port))
    }),
    { numRuns: 2000 },
  )
})

test('a question mark stands for exactly one character', () => {
  assert.ok(granted('tty?', 'tty1') && !granted('tty?', 'tty') && !granted('tty?', 'tty10'))
})

test('a pattern of stars is answered at once', () => {
  // As a backtracking regular expression this takes longer than anyone waits, so that finishing is the assertion.
  assert.equal(granted(`${'*a'.repeat(31)}*b`, 'a'.repeat(64)), false)
})

test('narrower is said whenever a right on some port is lost', () => {
  const pattern = fc.constantFrom('*', 'a*', 'a', 'b', '?')
  const grant: fc.Arbitrary<Grant> = fc.record({
    ports: fc.array(pattern, { maxLength: 3 }),
    may: fc.subarray([...RIGHTS]).map(withImplied),
  })
  fc.assert(
    fc.property(grant, grant, (before, now) => {
      const lost = ['a', 'b', 'ab', 'c'].some((port) =>
        rights(before, port).some((right) => !rights(now, port).includes(right)),
      )
      if (lost) assert.ok(isNarrower(now, before))
    }),
    { numRuns: 1000 },
  )
  const grown: Grant = { ports: ['a', 'b'], may: ['watch', 'use'] }
  assert.equal(isNarrower(grown, { ports: ['a'], may: ['watch'] }), false)
  assert.equal(isNarrower({ ports: ['*'], may: ['watch'] }, { ports: ['a'], may: ['watch'] }), false)
})
