import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { formatTcpAddress, parseTcpAddress } from '../../src/serial/tcp-dial.ts'

const addresses = [
  { text: 'plc.example.org:2000', host: 'plc.example.org', port: 2000 },
  { text: '192.0.2.7:65535', host: '192.0.2.7', port: 65_535 },
  { text: '[2001:db8::7]:2000', host: '2001:db8::7', port: 2000 },
  { text: '[fe80::1%eth0]:2000', host: 'fe80::1%eth0', port: 2000 },
]
for (const { text, host, port } of addresses) {
  test(`${text} is an address`, () => {
    assert.deepEqual(parseTcpAddress(text), { host, port })
    assert.equal(formatTcpAddress({ host, port }), text)
  })
}

for (const text of [
  '',
  'plc',
  'plc:',
  'plc:0',
  'plc:65536',
  'plc:2000/',
  ':2000',
  '::1:2000',
  '[::1]',
  '[plc]:2000',
  'a b:1',
])
  test(`“${text}” is none`, () => {
    assert.throws(() => parseTcpAddress(text), { code: 'ERR_USAGE', message: /HOST:PORT/ })
  })

test('whatever is written, it is an address that reads the same again, or one kind of error', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        const address = parseTcpAddress(text)
        assert.deepEqual(parseTcpAddress(formatTcpAddress(address)), address)
      } catch (error) {
        assert.ok(error instanceof FarportError && error.code === 'ERR_USAGE')
      }
    }),
  )
})
