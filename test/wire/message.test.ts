import assert from 'node:assert/strict'
import { duplexPair } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import * as v from 'valibot'
import { LONGEST_MESSAGE, parse, readMessage, writeMessage } from '../../src/wire/message.ts'

const soon = () => AbortSignal.timeout(5_000)

test('messages come one by one, however the stream is cut, and what is behind them stays in it', async () => {
  const message = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 1 }), { maxKeys: 4 })
  await fc.assert(
    fc.asyncProperty(
      fc.array(message, { maxLength: 4 }),
      fc.array(fc.integer({ min: 1, max: 50 })),
      async (messages, cuts) => {
        const [whole, end] = duplexPair()
        for (const one of messages) writeMessage(whole, one)
        whole.end('rest')
        const bytes = Buffer.concat(await end.toArray())
        const [a, b] = duplexPair()
        let at = 0
        for (const length of cuts) {
          a.write(bytes.subarray(at, at + length))
          at += length
        }
        a.end(bytes.subarray(at))
        for (const one of messages)
          assert.deepEqual(await readMessage(b, soon()), JSON.parse(JSON.stringify(one)))
        assert.equal(Buffer.concat(await b.toArray()).toString(), 'rest')
      },
    ),
    { numRuns: 50 },
  )
})

test('hostile bytes are an ERR_PROTOCOL or a value, and never more is waited for than the cap', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 40 }), async (bytes) => {
      const [a, b] = duplexPair()
      a.end(bytes)
      await readMessage(b, soon(), 64).catch((error) => assert.equal(error.code, 'ERR_PROTOCOL'))
    }),
  )
  const [a, b] = duplexPair()
  a.write(Buffer.of(0xff, 0xff))
  await assert.rejects(readMessage(b, soon(), 64), { code: 'ERR_PROTOCOL' })
})

test('what does not fit into a message is never written', () => {
  const [a] = duplexPair()
  assert.throws(() => writeMessage(a, { text: 'x'.repeat(LONGEST_MESSAGE) }), RangeError)
  assert.equal(a.writableLength, 0)
})

test('a stream that ends, or is lost, in the middle of a message, and one that goes on being silent', async () => {
  for (const bytes of [[], [0], [0, 4], [0, 4, 0x7b]]) {
    const [a, b] = duplexPair()
    a.end(Uint8Array.from(bytes))
    await assert.rejects(readMessage(b, soon()), { code: 'ERR_PROTOCOL' })
  }
  const [, lost] = duplexPair()
  const reading = readMessage(lost, soon())
  lost.on('error', () => {}).destroy(new Error('the cable is cut'))
  await assert.rejects(reading)
  const [, silent] = duplexPair()
  const giveUp = new AbortController()
  const waiting = readMessage(silent, giveUp.signal)
  giveUp.abort(new Error('enough'))
  await assert.rejects(waiting, /enough/)
  await assert.rejects(readMessage(silent, giveUp.signal), /enough/)
})

test('what is no JSON is told as that, and what has another shape by the key that is wrong', async () => {
  const [a, b] = duplexPair()
  a.write(Buffer.from('\0\x03{{{'))
  await assert.rejects(readMessage(b, soon()), { code: 'ERR_PROTOCOL', message: /not JSON/ })
  const schema = v.object({ port: v.object({ name: v.string() }) })
  assert.deepEqual(parse(schema, { port: { name: 'gps' }, more: 1 }, 'hello'), { port: { name: 'gps' } })
  assert.throws(() => parse(schema, { port: { name: 5 } }, 'hello'), {
    code: 'ERR_PROTOCOL',
    message: /hello \(port\.name\)/,
  })
  const keys = v.record(v.string(), v.number())
  assert.throws(
    () => parse(keys, { '\u001b[2J': 'x' }, 'hello'),
    (error: Error) => !error.message.includes('\u001b'),
  )
})
