import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { Packer, type Packing, parseUntil } from '../../src/serial/packer.ts'

/** A packer whose time the test tells; `pieces` are those it has handed on. */
function packing(t: TestContext, options: Packing) {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let nowMs = 0
  const pieces: string[] = []
  const packer = new Packer(
    options,
    (piece) => void pieces.push(piece.toString('latin1')),
    () => nowMs,
  )
  return {
    packer,
    pieces,
    push: (text: string) => packer.push(Buffer.from(text, 'latin1')),
    pass: (ms: number) => {
      for (let i = 0; i < ms; i++) {
        nowMs++
        t.mock.timers.tick(1)
      }
    },
  }
}

test('what comes within the gap leaves in one piece, a gap after its last byte', (t) => {
  const { push, pass, pieces } = packing(t, { gapMs: 4 })
  push('a')
  pass(3)
  push('b')
  pass(3)
  assert.deepEqual(pieces, [])
  push('c')
  pass(3)
  assert.deepEqual(pieces, [])
  pass(1)
  assert.deepEqual(pieces, ['abc'])
  push('d')
  pass(4)
  assert.deepEqual(pieces, ['abc', 'd'])
})

test('a full piece leaves at once', (t) => {
  const { push, pass, pieces } = packing(t, { gapMs: 4, sizeBytes: 3 })
  push('abcdefgh')
  assert.deepEqual(pieces, ['abc', 'def'])
  pass(4)
  assert.deepEqual(pieces, ['abc', 'def', 'gh'])
})

test('an end that comes in two chunks is one', (t) => {
  const { push, pass, pieces } = packing(t, { until: '\r\n' })
  push('one\r')
  assert.deepEqual(pieces, [])
  push('\ntwo\r\n\r\nth')
  assert.deepEqual(pieces, ['one\r\n', 'two\r\n', '\r\n'])
  pass(99)
  assert.equal(pieces.length, 3)
  pass(1)
  assert.equal(pieces.at(-1), 'th')
})

test('what is discarded is not sent, and what comes then waits its own time', (t) => {
  const { packer, push, pass, pieces } = packing(t, { gapMs: 4 })
  push('old')
  pass(3)
  packer.discard()
  push('new')
  pass(3)
  assert.deepEqual(pieces, [])
  pass(1)
  assert.deepEqual(pieces, ['new'])
})

test('a flush sends what there is, once', (t) => {
  const { packer, push, pass, pieces } = packing(t, { gapMs: 4 })
  push('x')
  packer.flush()
  packer.flush()
  pass(10)
  assert.deepEqual(pieces, ['x'])
})

test('no byte is lost, doubled or moved, and no piece is too large or has an end within', () => {
  const chunk = fc.uint8Array({ maxLength: 40 })
  const sizes = fc.integer({ min: 1, max: 20 })
  fc.assert(
    fc.property(
      fc.array(chunk),
      sizes,
      fc.constantFrom(undefined, '\n', '\0\0'),
      (chunks, sizeBytes, until) => {
        const pieces: Buffer[] = []
        using packer = new Packer({ gapMs: 1000, sizeBytes, ...(until && { until }) }, (piece) =>
          pieces.push(piece),
        )
        for (const bytes of chunks) packer.push(bytes)
        packer.flush()
        assert.deepEqual(Buffer.concat(pieces), Buffer.concat(chunks))
        for (const piece of pieces) {
          assert.ok(piece.length > 0 && piece.length <= sizeBytes)
          const end = until === undefined ? -1 : piece.indexOf(until, 0, 'latin1')
          if (until !== undefined && end !== -1) assert.equal(end + until.length, piece.length)
        }
      },
    ),
  )
})

test('a piece that waits keeps no process alive', () => {
  const packer = new URL('../../src/serial/packer.ts', import.meta.url).href
  const script = `const { Packer } = await import('${packer}')
    new Packer({ gapMs: 1000 }, () => console.log('late')).push(Buffer.from('x'))`
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 30_000,
  })
  assert.deepEqual({ stdout, status }, { stdout: '', status: 0 })
})

test('ends are written as in C', () => {
  assert.equal(parseUntil('\\n'), '\n')
  assert.equal(parseUntil('\\r\\n'), '\r\n')
  assert.equal(parseUntil('\\x03\\xff'), '\x03\xff')
  assert.equal(parseUntil('\\\\n'), '\\n')
  assert.equal(parseUntil(';'), ';')
  for (const wrong of ['', '\\', '\\q', '\\x0', 'nine bytes', '→'])
    assert.throws(() => parseUntil(wrong), { code: 'ERR_USAGE' }, wrong)
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('\\', 'x', '0', 'n', 'a', '→') }), (text) => {
      try {
        assert.ok(parseUntil(text).length <= 8)
      } catch (error) {
        assert.ok(error instanceof FarportError)
      }
    }),
  )
})
