import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  CircuitMessageError,
  decodeHopRequest,
  decodeHopStatus,
  decodeStopStatus,
  encodeHopStatus,
  encodeReserve,
  encodeStopConnect,
  encodeVarint,
  readVarint,
  STATUS,
} from '../../src/overlay/circuit-message.ts'
import { readCircuitMessage, writeCircuitMessage } from '../../src/overlay/circuit-stream.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const never = new AbortController().signal

// By hand, from the specification; relay-interop.test.ts has libp2p's own at the other end.
test('messages are encoded as the specification has them', () => {
  assert.deepEqual(decodeHopRequest(hex('0800')), { type: 'reserve' })
  assert.deepEqual(decodeHopRequest(hex('0801 1206 0a02abcd 1200')), { type: 'connect', peer: hex('abcd') })
  assert.deepEqual(decodeHopStatus(hex('0802 28ca01')), { status: STATUS.PERMISSION_DENIED })
  assert.deepEqual(decodeHopStatus(hex('0802 1a0808808ff5ff07 1200 2864')), {
    status: STATUS.OK,
    expires: 2_147_305_344,
  })
  assert.equal(decodeStopStatus(hex('0801 2064')), STATUS.OK)
  assert.equal(hexOf(encodeReserve()), '0800')
  assert.equal(hexOf(encodeStopConnect(hex('abcd'))), '080012040a02abcd')
  assert.equal(hexOf(encodeHopStatus(STATUS.NO_RESERVATION)), '080228cc01')
})

test('a reservation round-trips', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.array(fc.uint8Array(), { maxLength: 8 }), (expires, addresses) => {
      const message = encodeHopStatus(STATUS.OK, { expires, addresses })
      assert.deepEqual(decodeHopStatus(message), { status: STATUS.OK, expires })
    }),
  )
})

test('a varint round-trips, and one cut short is not there yet', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      const bytes = encodeVarint(value)
      assert.deepEqual(readVarint(bytes), { value, length: bytes.length })
      assert.equal(readVarint(bytes.subarray(0, -1)), undefined)
    }),
  )
})

test('hostile bytes give a message or a CircuitMessageError', () => {
  const field = fc.oneof(fc.constantFrom(0x08, 0x12, 0x1a, 0x28, 0, 1, 2), fc.nat(255))
  fc.assert(
    fc.property(fc.array(field), (bytes) => {
      for (const decode of [decodeHopRequest, decodeHopStatus, decodeStopStatus])
        try {
          decode(Uint8Array.from(bytes))
        } catch (error) {
          assert.ok(error instanceof CircuitMessageError)
        }
    }),
  )
})

test('what follows a message stays in the stream, however it is cut', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1 }), fc.nat(40), async (behind, cut) => {
      const written = new PassThrough()
      writeCircuitMessage(written, encodeStopConnect(hex('abcd')))
      const all = Buffer.concat([written.read() as Buffer, behind])
      const stream = new PassThrough()
      stream.write(all.subarray(0, cut))
      const message = readCircuitMessage(stream, never)
      stream.end(all.subarray(cut))
      assert.deepEqual(Buffer.from(await message), Buffer.from(encodeStopConnect(hex('abcd'))))
      assert.deepEqual(Buffer.concat(await stream.toArray()), Buffer.from(behind))
    }),
    { numRuns: 30 },
  )
})

test('a message that is too long, or is never whole, is refused', async () => {
  const long = new PassThrough()
  long.write(encodeVarint(4097))
  await assert.rejects(readCircuitMessage(long, never), CircuitMessageError)
  const short = new PassThrough()
  short.end(hex('0208'))
  await assert.rejects(readCircuitMessage(short, never), CircuitMessageError)
})
