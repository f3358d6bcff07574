import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BRK, DO, DONT, WILL, WONT } from '../../src/telnet/bytes.ts'
import { command, concat, escapeIac, negotiate, subnegotiation } from '../../src/telnet/encoder.ts'
import { hex, toHex } from './stream.ts'

const pieces = [
  { name: 'WILL COM-PORT', bytes: negotiate(WILL, 44), wire: 'ff fb 2c' },
  { name: 'WONT ECHO', bytes: negotiate(WONT, 1), wire: 'ff fc 01' },
  { name: 'DO BINARY', bytes: negotiate(DO, 0), wire: 'ff fd 00' },
  { name: 'DONT 99', bytes: negotiate(DONT, 99), wire: 'ff fe 63' },
  { name: 'break', bytes: command(BRK), wire: 'ff f3' },
  {
    name: 'SET-BAUDRATE 0xff00ff',
    bytes: subnegotiation(44, hex('01 00ff00ff')),
    wire: 'ff fa 2c 01 00 ff ff 00 ff ff ff f0',
  },
  {
    name: 'SET-MODEMSTATE-MASK 255',
    bytes: subnegotiation(44, hex('0b ff')),
    wire: 'ff fa 2c 0b ff ff ff f0',
  },
  {
    name: 'a subnegotiation of option 255',
    bytes: subnegotiation(255, hex('01')),
    wire: 'ff fa ff ff 01 ff f0',
  },
  { name: 'data', bytes: escapeIac(hex('61 ff ff 62 ff')), wire: '61 ff ff ff ff 62 ff ff' },
]

for (const { name, bytes, wire } of pieces) test(`writes ${name}`, () => assert.equal(toHex(bytes), wire))

test('data without 0xff is not copied', () => {
  const bytes = hex('00 0d 0a fe')
  assert.equal(escapeIac(bytes), bytes)
})

test('escaping is the same as doubling each 0xff', () => {
  const bytes = fc.oneof(
    fc.uint8Array(),
    fc.array(fc.constantFrom(0xff, 0xfe)).map((list) => Uint8Array.from(list)),
  )
  fc.assert(
    fc.property(bytes, (data) => {
      const naive = Array.from(data).flatMap((byte) => (byte === 0xff ? [0xff, 0xff] : [byte]))
      assert.deepEqual(escapeIac(data), Uint8Array.from(naive))
    }),
  )
})

test('concat joins any number of pieces', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array()), (list) => {
      assert.deepEqual(concat(list), Uint8Array.from(list.flatMap((piece) => [...piece])))
    }),
  )
})
