import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Rfc2217Error } from '../../src/rfc2217/error.ts'
import { lineStateOf } from '../../src/rfc2217/line-state.ts'
import {
  decodeMessage,
  encodeMessage,
  type Malformed,
  type Message,
  type Sender,
} from '../../src/rfc2217/messages.ts'
import { modemStateOf } from '../../src/rfc2217/modem-state.ts'
import { hex, toHex } from '../telnet/stream.ts'

const NO_LINES = { cts: false, dsr: false, ri: false, dcd: false }

/** Each message as the client's payload; the server's differs by 100 in the first octet. */
const messages: { payload: string; message: Message }[] = [
  { payload: '00', message: { type: 'signature', text: '' } },
  { payload: '00 70 72 6f 62 65 ff', message: { type: 'signature', text: 'probe\u00ff' } },
  { payload: '01 00000000', message: { type: 'set-baud-rate', value: 'query' } },
  { payload: '01 00000001', message: { type: 'set-baud-rate', value: 1 } },
  { payload: '01 0001c200', message: { type: 'set-baud-rate', value: 115_200 } },
  { payload: '01 00ff00ff', message: { type: 'set-baud-rate', value: 0xff00ff } },
  { payload: '01 ffffffff', message: { type: 'set-baud-rate', value: 4_294_967_295 } },
  { payload: '01 00', message: { type: 'set-baud-rate', value: 'query', form: 'cisco' } },
  { payload: '01 03', message: { type: 'set-baud-rate', value: 300, form: 'cisco' } },
  { payload: '01 04', message: { type: 'set-baud-rate', value: 600, form: 'cisco' } },
  { payload: '01 05', message: { type: 'set-baud-rate', value: 1200, form: 'cisco' } },
  { payload: '01 06', message: { type: 'set-baud-rate', value: 2400, form: 'cisco' } },
  { payload: '01 07', message: { type: 'set-baud-rate', value: 4800, form: 'cisco' } },
  { payload: '01 08', message: { type: 'set-baud-rate', value: 9600, form: 'cisco' } },
  { payload: '01 0a', message: { type: 'set-baud-rate', value: 19_200, form: 'cisco' } },
  { payload: '01 0c', message: { type: 'set-baud-rate', value: 38_400, form: 'cisco' } },
  { payload: '01 0d', message: { type: 'set-baud-rate', value: 57_600, form: 'cisco' } },
  { payload: '01 0e', message: { type: 'set-baud-rate', value: 115_200, form: 'cisco' } },
  { payload: '01 0f', message: { type: 'set-baud-rate', value: 230_400, form: 'cisco' } },
  { payload: '01 10', message: { type: 'set-baud-rate', value: { unknown: 16 }, form: 'cisco' } },
  { payload: '02 00', message: { type: 'set-data-bits', value: 'query' } },
  { payload: '02 05', message: { type: 'set-data-bits', value: 5 } },
  { payload: '02 06', message: { type: 'set-data-bits', value: 6 } },
  { payload: '02 07', message: { type: 'set-data-bits', value: 7 } },
  { payload: '02 08', message: { type: 'set-data-bits', value: 8 } },
  { payload: '02 09', message: { type: 'set-data-bits', value: { unknown: 9 } } },
  { payload: '03 00', message: { type: 'set-parity', value: 'query' } },
  { payload: '03 01', message: { type: 'set-parity', value: 'none' } },
  { payload: '03 02', message: { type: 'set-parity', value: 'odd' } },
  { payload: '03 03', message: { type: 'set-parity', value: 'even' } },
  { payload: '03 04', message: { type: 'set-parity', value: 'mark' } },
  { payload: '03 05', message: { type: 'set-parity', value: 'space' } },
  { payload: '03 06', message: { type: 'set-parity', value: { unknown: 6 } } },
  { payload: '04 00', message: { type: 'set-stop-bits', value: 'query' } },
  { payload: '04 01', message: { type: 'set-stop-bits', value: 1 } },
  { payload: '04 02', message: { type: 'set-stop-bits', value: 2 } },
  { payload: '04 03', message: { type: 'set-stop-bits', value: 1.5 } },
  { payload: '04 04', message: { type: 'set-stop-bits', value: { unknown: 4 } } },
  { payload: '05 00', message: { type: 'set-output-flow', value: 'query' } },
  { payload: '05 01', message: { type: 'set-output-flow', value: 'none' } },
  { payload: '05 02', message: { type: 'set-output-flow', value: 'xonxoff' } },
  { payload: '05 03', message: { type: 'set-output-flow', value: 'rtscts' } },
  { payload: '05 04', message: { type: 'set-break', value: 'query' } },
  { payload: '05 05', message: { type: 'set-break', value: true } },
  { payload: '05 06', message: { type: 'set-break', value: false } },
  { payload: '05 07', message: { type: 'set-dtr', value: 'query' } },
  { payload: '05 08', message: { type: 'set-dtr', value: true } },
  { payload: '05 09', message: { type: 'set-dtr', value: false } },
  { payload: '05 0a', message: { type: 'set-rts', value: 'query' } },
  { payload: '05 0b', message: { type: 'set-rts', value: true } },
  { payload: '05 0c', message: { type: 'set-rts', value: false } },
  { payload: '05 0d', message: { type: 'set-input-flow', value: 'query' } },
  { payload: '05 0e', message: { type: 'set-input-flow', value: 'none' } },
  { payload: '05 0f', message: { type: 'set-input-flow', value: 'xonxoff' } },
  { payload: '05 10', message: { type: 'set-input-flow', value: 'rtscts' } },
  { payload: '05 11', message: { type: 'set-output-flow', value: 'dcd' } },
  { payload: '05 12', message: { type: 'set-input-flow', value: 'dtr' } },
  { payload: '05 13', message: { type: 'set-output-flow', value: 'dsr' } },
  { payload: '05 14', message: { type: 'set-control', value: { unknown: 20 } } },
  { payload: '06', message: { type: 'notify-line-state', value: 'query' } },
  {
    payload: '06 1a',
    message: {
      type: 'notify-line-state',
      value: { ...lineStateOf(0), break: true, framing: true, overrun: true },
    },
  },
  {
    payload: '06 e5',
    message: {
      type: 'notify-line-state',
      value: {
        ...lineStateOf(0),
        timeout: true,
        transmitterEmpty: true,
        holdingRegisterEmpty: true,
        parity: true,
        dataReady: true,
      },
    },
  },
  { payload: '07', message: { type: 'notify-modem-state', value: 'query' } },
  { payload: '07 00', message: { type: 'notify-modem-state', value: { lines: NO_LINES, deltas: NO_LINES } } },
  {
    payload: '07 b1',
    message: {
      type: 'notify-modem-state',
      value: { lines: { cts: true, dsr: true, ri: false, dcd: true }, deltas: { ...NO_LINES, cts: true } },
    },
  },
  {
    payload: '07 4e',
    message: {
      type: 'notify-modem-state',
      value: { lines: { ...NO_LINES, ri: true }, deltas: { cts: false, dsr: true, ri: true, dcd: true } },
    },
  },
  { payload: '08', message: { type: 'suspend' } },
  { payload: '09', message: { type: 'resume' } },
  { payload: '0a', message: { type: 'set-line-state-mask', value: 'query' } },
  { payload: '0a 1e', message: { type: 'set-line-state-mask', value: 0x1e } },
  { payload: '0b', message: { type: 'set-modem-state-mask', value: 'query' } },
  { payload: '0b ff', message: { type: 'set-modem-state-mask', value: 255 } },
  { payload: '0c 00', message: { type: 'purge', value: { unknown: 0 } } },
  { payload: '0c 01', message: { type: 'purge', value: 'rx' } },
  { payload: '0c 02', message: { type: 'purge', value: 'tx' } },
  { payload: '0c 03', message: { type: 'purge', value: 'both' } },
  { payload: '0c 04', message: { type: 'purge', value: { unknown: 4 } } },
]

function fromServer(payload: string): Uint8Array {
  const octets = hex(payload)
  octets[0] = (octets[0] as number) + 100
  return octets
}

for (const { payload, message } of messages) {
  test(`${payload} is ${JSON.stringify(message)}, either way and from either side`, () => {
    assert.deepEqual(decodeMessage(hex(payload), 'client'), message)
    assert.deepEqual(decodeMessage(fromServer(payload), 'server'), message)
    assert.equal(toHex(encodeMessage(message, 'client')), toHex(hex(payload)))
    assert.equal(toHex(encodeMessage(message, 'server')), toHex(fromServer(payload)))
  })
}

/** What is only read: nobody should write it. */
const tolerated: { name: string; sender: Sender; payload: string; message: Message | Malformed }[] = [
  {
    name: 'a baud rate without octets',
    sender: 'client',
    payload: '01',
    message: { type: 'set-baud-rate', value: 'query' },
  },
  {
    name: 'a baud rate in two octets',
    sender: 'client',
    payload: '01 2580',
    message: { type: 'set-baud-rate', value: 'query' },
  },
  {
    name: 'a baud rate in three octets',
    sender: 'client',
    payload: '01 002580',
    message: { type: 'set-baud-rate', value: 'query' },
  },
  {
    name: "sredird's baud rate in eight octets",
    sender: 'server',
    payload: '65 0000258000000000',
    message: { type: 'set-baud-rate', value: 9600 },
  },
  {
    name: 'a parity without its octet',
    sender: 'client',
    payload: '03',
    message: { type: 'set-parity', value: 'query' },
  },
  {
    name: 'a parity with surplus octets',
    sender: 'client',
    payload: '03 02 05 ff',
    message: { type: 'set-parity', value: 'odd' },
  },
  {
    name: 'a control without its octet',
    sender: 'client',
    payload: '05',
    message: { type: 'set-output-flow', value: 'query' },
  },
  {
    name: 'a purge without its octet',
    sender: 'client',
    payload: '0c',
    message: { type: 'purge', value: { unknown: 0 } },
  },
  {
    name: 'an empty payload',
    sender: 'client',
    payload: '',
    message: { type: 'malformed', reason: 'an RFC 2217 message without a code' },
  },
  {
    name: 'an unknown code',
    sender: 'client',
    payload: '32 01',
    message: { type: 'malformed', reason: 'RFC 2217 code 50 from a client' },
  },
  {
    name: "the server's code from a client",
    sender: 'client',
    payload: '65 00002580',
    message: { type: 'malformed', reason: 'RFC 2217 code 101 from a client' },
  },
  {
    name: "the client's code from a server",
    sender: 'server',
    payload: '01 00002580',
    message: { type: 'malformed', reason: 'RFC 2217 code 1 from a server' },
  },
]

for (const { name, sender, payload, message } of tolerated)
  test(`reads ${name}`, () => assert.deepEqual(decodeMessage(hex(payload), sender), message))

test('any payload is read without an error, and what was read says the same when written', () => {
  const sender = fc.constantFrom<Sender>('client', 'server')
  const payload = fc.oneof(
    fc.uint8Array(),
    fc
      .tuple(fc.nat(113), fc.uint8Array({ maxLength: 8 }))
      .map(([code, rest]) => Uint8Array.of(code, ...rest)),
  )
  fc.assert(
    fc.property(payload, sender, (octets, from) => {
      const message = decodeMessage(octets, from)
      if (message.type !== 'malformed')
        assert.deepEqual(decodeMessage(encodeMessage(message, from), from), message)
    }),
  )
})

test('every octet of the two notifications keeps all its bits', () => {
  for (let bits = 0; bits < 256; bits++) {
    for (const code of [6, 7]) {
      const message = decodeMessage(Uint8Array.of(code, bits), 'client')
      assert.ok(message.type !== 'malformed')
      assert.deepEqual(encodeMessage(message, 'client'), Uint8Array.of(code, bits))
    }
  }
})

test('a rate that the Cisco form does not have goes out in four octets', () => {
  const bytes = encodeMessage({ type: 'set-baud-rate', value: 14_400, form: 'cisco' }, 'server')
  assert.equal(toHex(bytes), '65 00 00 38 40')
})

test('text beyond one octet a character is replaced', () => {
  assert.equal(
    toHex(encodeMessage({ type: 'signature', text: 'a\u20acb\u{1f600}' }, 'server')),
    '64 61 3f 62 3f',
  )
})

test('what the wire cannot say is the caller’s error', () => {
  for (const value of [0, -1, 1.5, 2 ** 32, Number.NaN])
    assert.throws(() => encodeMessage({ type: 'set-baud-rate', value }, 'client'), Rfc2217Error)
  for (const value of [-1, 256, 0.5])
    assert.throws(() => encodeMessage({ type: 'set-modem-state-mask', value }, 'client'), Rfc2217Error)
})

test('modem and line states are what the RFC numbers say', () => {
  assert.deepEqual(modemStateOf(0x80 | 0x01).lines, { ...NO_LINES, dcd: true })
  assert.deepEqual(modemStateOf(0x80 | 0x01).deltas, { ...NO_LINES, cts: true })
  assert.equal(lineStateOf(0x10).break, true)
})
