import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  errorCodeOf,
  formatLine,
  LineSplitter,
  MAX_REQUEST_BYTES,
  parseAnswer,
  parseRequest,
} from '../../src/daemon/control-protocol.ts'
import { FarportError } from '../../src/errors.ts'

const refused = (sentence?: RegExp) => (error: unknown) =>
  error instanceof FarportError && error.code === 'ERR_PROTOCOL' && (sentence?.test(error.message) ?? true)

function cutAt(bytes: Uint8Array, cuts: number[]): Uint8Array[] {
  const points = [...new Set([0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort(
    (a, b) => a - b,
  )
  return points.slice(1).map((end, i) => bytes.subarray(points[i], end))
}

function linesOf(chunks: Uint8Array[], maxBytes = MAX_REQUEST_BYTES): string[] {
  const splitter = new LineSplitter(maxBytes)
  return chunks.flatMap((chunk) => [...splitter.push(chunk)])
}

test('requests round-trip, however the stream is cut', () => {
  const request = fc.record({ id: fc.maxSafeNat(), method: fc.string(), params: fc.jsonValue() })
  fc.assert(
    fc.property(fc.array(request), fc.array(fc.nat()), (requests, cuts) => {
      const wire = Buffer.concat(requests.map((r) => formatLine(r, MAX_REQUEST_BYTES)))
      const read = linesOf(cutAt(wire, cuts)).map(parseRequest)
      // Through JSON, which knows no -0.
      assert.deepEqual(read, JSON.parse(JSON.stringify(requests)))
    }),
  )
})

test('answers round-trip', () => {
  const answer = fc.oneof(
    fc.record({ id: fc.maxSafeNat(), event: fc.jsonValue() }),
    fc.record({ id: fc.maxSafeNat(), result: fc.jsonValue() }),
    fc.record({
      id: fc.option(fc.maxSafeNat()),
      error: fc.record({ code: fc.string(), message: fc.string() }),
    }),
  )
  fc.assert(
    fc.property(answer, (sent) => {
      const [line = ''] = linesOf([formatLine(sent, MAX_REQUEST_BYTES)])
      assert.deepEqual(parseAnswer(line), JSON.parse(JSON.stringify(sent)))
    }),
  )
})

test('hostile bytes give requests, answers or ERR_PROTOCOL, never another error', () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 8 }),
    fc
      .constantFrom(
        '\n',
        '{',
        '}',
        '[',
        '"id"',
        ':',
        '1',
        ',',
        '"method":"x"',
        '"error":{}',
        'null',
        '\u2028',
      )
      .map((text) => Buffer.from(text)),
    fc.jsonValue().map((value) => Buffer.from(`${JSON.stringify(value)}\n`)),
    fc
      .dictionary(
        fc.constantFrom('id', 'method', 'params', 'event', 'result', 'error', 'code', '__proto__'),
        fc.jsonValue(),
      )
      .map((value) => Buffer.from(`${JSON.stringify(value)}\n`)),
  )
  fc.assert(
    fc.property(fc.array(piece), (pieces) => {
      for (const parse of [parseRequest, parseAnswer]) {
        try {
          for (const line of linesOf(pieces, 64)) parse(line)
        } catch (error) {
          assert.ok(refused()(error), String(error))
        }
      }
    }),
  )
})

test('a line of exactly the cap passes; one byte more does not, with or without its end', () => {
  const line = (length: number) => Buffer.alloc(length, 'x')
  const end = Buffer.from('\n')
  assert.deepEqual(linesOf([line(64), end, line(64), end], 64), ['x'.repeat(64), 'x'.repeat(64)])
  assert.throws(() => linesOf([line(65)], 64), refused(/more than 64 bytes/))
  assert.throws(() => linesOf([Buffer.concat([line(65), end])], 64), refused(/more than 64 bytes/))
  assert.throws(() => linesOf([line(1), line(64)], 64), refused(/more than 64 bytes/))
  const filled = { id: 1, method: '', params: '' }
  const spare = 64 - JSON.stringify(filled).length
  assert.equal(formatLine({ ...filled, params: 'x'.repeat(spare) }, 64).length, 65)
  assert.throws(
    () => formatLine({ ...filled, params: 'x'.repeat(spare + 1) }, 64),
    refused(/65 bytes is too long/),
  )
})

const bad = [
  ['', /not JSON/],
  ['secret words', /not JSON/],
  ['null', /not a JSON object/],
  ['[1]', /not a JSON object/],
  ['{"method":"x"}', /usable id/],
  ['{"id":"1","method":"x"}', /usable id/],
  ['{"id":-1,"method":"x"}', /usable id/],
  ['{"id":1.5,"method":"x"}', /usable id/],
  ['{"id":9007199254740992,"method":"x"}', /usable id/],
  ['{"id":1}', /usable method/],
  ['{"id":1,"method":["x"]}', /usable method/],
] as const
for (const [line, sentence] of bad)
  test(`not a request: ${line}`, () => assert.throws(() => parseRequest(line), refused(sentence)))

const badAnswers = [
  ['{"id":1}', /usable result/],
  ['{"id":null,"result":1}', /usable id/],
  ['{"result":1}', /usable id/],
  ['{"id":1,"error":{"code":1,"message":"x"}}', /usable error/],
  ['{"id":1,"error":"x"}', /usable result/],
] as const
for (const [line, sentence] of badAnswers)
  test(`not an answer: ${line}`, () => assert.throws(() => parseAnswer(line), refused(sentence)))

test('what can not be read is not quoted: it may be a secret', () => {
  assert.throws(
    () => parseRequest('{"ticket": swordfish'),
    (error: FarportError) => !`${error.message} ${error.cause} ${error.stack}`.includes('swordfish'),
  )
})

test('not UTF-8', () => {
  assert.throws(() => linesOf([Buffer.from([0x22, 0xff, 0x22, 0x0a])]), refused(/UTF-8/))
})

test('an error code of another version becomes ERR_INTERNAL', () => {
  assert.equal(errorCodeOf('ERR_PORT_BUSY'), 'ERR_PORT_BUSY')
  for (const code of ['ERR_TOMORROW', 'constructor', '__proto__', ''])
    assert.equal(errorCodeOf(code), 'ERR_INTERNAL')
})
