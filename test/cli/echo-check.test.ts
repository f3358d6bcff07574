import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Transform } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { EchoCheck } from '../../src/cli/echo-check.ts'

/** A loop plug that treats the byte at one place in its own way. Each chunk takes a turn, as over a wire. */
function loopPlug(at = -1, fault: (byte: number) => Buffer = Buffer.of): Transform {
  let seen = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      const out = [...chunk].map((byte) => (seen++ === at ? fault(byte) : Buffer.of(byte)))
      setImmediate(() => done(null, Buffer.concat(out)))
    },
  })
}

test('what comes back as it was sent is counted, and timed', { timeout: 10_000 }, async () => {
  const port = loopPlug()
  const check = new EchoCheck(port)
  for (let chunk = 0; chunk < 20; chunk++) await once(port, 'data')
  assert.ok(check.takeRoundTripMs() >= 0)
  assert.ok(Number.isNaN(check.takeRoundTripMs()), 'taken')
  const { bytes, sha256 } = await check.finish()
  assert.ok(bytes >= 20 * 16, `${bytes}`)
  assert.match(sha256, /^[0-9a-f]{64}$/)
})

const faults = {
  lost: () => Buffer.of(),
  repeated: (byte: number) => Buffer.of(byte, byte),
  changed: (byte: number) => Buffer.of(byte ^ 1),
}

for (const [name, fault] of Object.entries(faults)) {
  test(`a byte that is ${name} is noticed, wherever it is`, { timeout: 10_000 }, async (t) => {
    // A byte that is lost among equal ones may only be missed at the end.
    t.mock.timers.enable({ apis: ['setTimeout'] })
    await fc.assert(
      fc.asyncProperty(fc.nat(8 * 16 - 1), async (at) => {
        const port = loopPlug(at, fault)
        const check = new EchoCheck(port)
        const finished = assert.rejects(check.finish(), { code: 'ERR_INTERNAL' })
        for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
        t.mock.timers.tick(10_000)
        await finished
      }),
    )
  })
}

test('a port that fails fails the check', async () => {
  const port = loopPlug()
  const check = new EchoCheck(port)
  port.destroy(new Error('unplugged'))
  await assert.rejects(check.finish(), /unplugged/)
})
