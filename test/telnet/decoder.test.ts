import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Verb } from '../../src/telnet/bytes.ts'
import { MAX_SUBNEGOTIATION, TelnetDecoder, type TelnetEvent } from '../../src/telnet/decoder.ts'
import { command, escapeIac, negotiate, subnegotiation } from '../../src/telnet/encoder.ts'
import { cutAt, cuts, hex, hostileBytes } from './stream.ts'

/** Decodes, and joins neighbouring data: where it is cut has no meaning. */
function decode(chunks: Iterable<Uint8Array>): TelnetEvent[] {
  const decoder = new TelnetDecoder()
  const events: TelnetEvent[] = []
  for (const chunk of chunks) {
    for (const event of decoder.push(chunk)) {
      const last = events.at(-1)
      if (event.type === 'data' && last?.type === 'data')
        last.bytes = Uint8Array.from([...last.bytes, ...event.bytes])
      else if (event.type === 'data') events.push({ type: 'data', bytes: Uint8Array.from(event.bytes) })
      else events.push(event)
    }
  }
  return events
}

const data = (digits: string): TelnetEvent => ({ type: 'data', bytes: hex(digits) })
const malformed = (reason: string): TelnetEvent => ({ type: 'malformed', reason })

const streams: { name: string; bytes: string; events: TelnetEvent[] }[] = [
  { name: 'nothing', bytes: '', events: [] },
  { name: 'plain data', bytes: '61 62', events: [data('6162')] },
  { name: 'a doubled IAC is one 0xff', bytes: '61 ff ff 62', events: [data('61 ff 62')] },
  { name: 'only doubled IACs', bytes: 'ff ff ff ff', events: [data('ff ff')] },
  {
    name: 'a doubled IAC right before a command',
    bytes: 'ff ff ff fb 2c',
    events: [data('ff'), { type: 'negotiate', verb: 251, option: 44 }],
  },
  {
    name: 'CR NUL, CR LF and NUL stay as they are',
    bytes: '0d 00 0d 0a 00',
    events: [data('0d 00 0d 0a 00')],
  },
  {
    name: 'ser2net opens',
    bytes: 'ff fb 03 ff fd 03 ff fb 01 ff fe 01 ff fd 00 ff fb 00 ff fd 2c',
    events: [
      { type: 'negotiate', verb: 251, option: 3 },
      { type: 'negotiate', verb: 253, option: 3 },
      { type: 'negotiate', verb: 251, option: 1 },
      { type: 'negotiate', verb: 254, option: 1 },
      { type: 'negotiate', verb: 253, option: 0 },
      { type: 'negotiate', verb: 251, option: 0 },
      { type: 'negotiate', verb: 253, option: 44 },
    ],
  },
  {
    name: 'SET-BAUDRATE 115200 between data',
    bytes: '61 ff fa 2c 01 00 01 c2 00 ff f0 62',
    events: [data('61'), { type: 'subnegotiation', option: 44, payload: hex('01 0001c200') }, data('62')],
  },
  {
    name: 'SET-BAUDRATE 0xff00ff, each 0xff doubled',
    bytes: 'ff fa 2c 01 00 ff ff 00 ff ff ff f0',
    events: [{ type: 'subnegotiation', option: 44, payload: hex('01 00ff00ff') }],
  },
  {
    name: 'option 255, doubled as RFC 855 has it',
    bytes: 'ff fa ff ff 01 ff f0',
    events: [{ type: 'subnegotiation', option: 255, payload: hex('01') }],
  },
  {
    name: 'a payload of nothing',
    bytes: 'ff fa 2c ff f0',
    events: [{ type: 'subnegotiation', option: 44, payload: hex('') }],
  },
  {
    name: 'IAC BRK and IAC NOP',
    bytes: 'ff f3 ff f1',
    events: [
      { type: 'command', code: 243 },
      { type: 'command', code: 241 },
    ],
  },
  { name: 'IAC SE out of nowhere', bytes: 'ff f0 61', events: [{ type: 'command', code: 240 }, data('61')] },
  {
    name: 'a subnegotiation without an option',
    bytes: 'ff fa ff f0 61',
    events: [malformed('a subnegotiation without an option'), data('61')],
  },
  {
    name: 'another command inside a subnegotiation costs that one only',
    bytes: 'ff fa 2c 05 ff fd 08 ff f0 61 ff fa 2c 05 01 ff f0',
    events: [
      malformed('IAC 253 inside a subnegotiation'),
      data('61'),
      { type: 'subnegotiation', option: 44, payload: hex('05 01') },
    ],
  },
  {
    name: 'only IAC SE ends a lost subnegotiation',
    bytes: 'ff fa 2c ff fd 2c ff ff 61 ff fb 03 62 ff f0 63',
    events: [malformed('IAC 253 inside a subnegotiation'), data('63')],
  },
  {
    name: 'an undoubled 0xff as the last value of a subnegotiation ends it at the next IAC SE',
    bytes: 'ff fa 2c 0b ff ff f0 61 ff fa 2c 07 10 ff f0 62',
    events: [malformed('IAC 250 inside a subnegotiation'), data('62')],
  },
]

for (const { name, bytes, events } of streams) {
  test(`decodes: ${name}`, () => assert.deepEqual(decode([hex(bytes)]), events))
  test(`decodes byte by byte: ${name}`, () =>
    assert.deepEqual(decode(Array.from(hex(bytes), (byte) => Uint8Array.of(byte))), events))
}

test('data without 0xff is a view of the chunk', () => {
  const chunk = hex('ff f1 61 62')
  const [, event] = [...new TelnetDecoder().push(chunk)]
  assert.ok(event?.type === 'data')
  assert.equal(event.bytes.buffer, chunk.buffer)
})

test('any data comes through, however the stream is cut', () => {
  fc.assert(
    fc.property(fc.uint8Array({ max: 255 }), cuts, (bytes, places) => {
      const events = decode(cutAt(escapeIac(bytes), places))
      assert.deepEqual(events, bytes.length === 0 ? [] : [{ type: 'data', bytes }])
    }),
  )
})

test('what the encoder writes the decoder reads', () => {
  const option = fc.nat(255)
  const piece: fc.Arbitrary<TelnetEvent> = fc.oneof(
    fc.uint8Array({ minLength: 1 }).map((bytes) => ({ type: 'data' as const, bytes })),
    fc.tuple(fc.constantFrom(251, 252, 253, 254), option).map(([verb, option]) => ({
      type: 'negotiate' as const,
      verb: verb as Verb,
      option,
    })),
    fc.tuple(option, fc.uint8Array()).map(([option, payload]) => ({
      type: 'subnegotiation' as const,
      option,
      payload,
    })),
    fc.integer({ min: 240, max: 249 }).map((code) => ({ type: 'command' as const, code })),
  )
  const write = (event: TelnetEvent): Uint8Array => {
    switch (event.type) {
      case 'data':
        return escapeIac(event.bytes)
      case 'negotiate':
        return negotiate(event.verb, event.option)
      case 'subnegotiation':
        return subnegotiation(event.option, event.payload)
      case 'command':
        return command(event.code)
      case 'malformed':
        throw new Error('not written')
    }
  }
  fc.assert(
    fc.property(fc.array(piece), cuts, (pieces, places) => {
      const wire = Uint8Array.from(pieces.flatMap((event) => [...write(event)]))
      const joined: TelnetEvent[] = []
      for (const event of pieces) {
        const last = joined.at(-1)
        if (event.type === 'data' && last?.type === 'data')
          joined[joined.length - 1] = {
            type: 'data',
            bytes: Uint8Array.from([...last.bytes, ...event.bytes]),
          }
        else joined.push(event)
      }
      assert.deepEqual(decode(cutAt(wire, places)), joined)
    }),
  )
})

test('hostile bytes give events, the same however they are cut, and never an error', () => {
  fc.assert(
    fc.property(hostileBytes, cuts, (bytes, places) => {
      assert.deepEqual(decode(cutAt(bytes, places)), decode([bytes]))
    }),
  )
})

test('after hostile bytes and the end of a subnegotiation, the stream is in step again', () => {
  fc.assert(
    fc.property(hostileBytes, (bytes) => {
      // NUL takes the place of an option or a command that the bytes may have left open.
      const events = decode([bytes, hex('00 ff f0 ff f0'), hex('61 62')])
      const last = events.at(-1)
      assert.deepEqual(last, data('61 62'))
    }),
  )
})

test('the longest subnegotiation passes', () => {
  const payload = new Uint8Array(MAX_SUBNEGOTIATION).fill(0xff)
  assert.deepEqual(decode([subnegotiation(44, payload)]), [{ type: 'subnegotiation', option: 44, payload }])
})

test('a longer one is dropped, said once, and the stream goes on', () => {
  const tooLong = subnegotiation(44, new Uint8Array(MAX_SUBNEGOTIATION + 1))
  const events = decode([tooLong, subnegotiation(44, hex('08')), hex('61')])
  assert.deepEqual(events, [
    malformed('a subnegotiation longer than 1024 bytes'),
    { type: 'subnegotiation', option: 44, payload: hex('08') },
    data('61'),
  ])
})

test('a subnegotiation that never ends is not kept', () => {
  const decoder = new TelnetDecoder()
  const flood = new Uint8Array(1 << 20).fill(0x41)
  const events = [...decoder.push(hex('ff fa 2c'))]
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 32; i++) events.push(...decoder.push(flood))
  const kept = process.memoryUsage().arrayBuffers - before
  assert.deepEqual(events, [malformed('a subnegotiation longer than 1024 bytes')])
  assert.ok(kept < 4 << 20, `${kept} bytes kept of 32 MiB`)
  assert.deepEqual([...decoder.push(hex('ff f0 61'))], [data('61')])
})
