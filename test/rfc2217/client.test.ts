import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type ClientEvent,
  type ClientRequest,
  MAX_OUTSTANDING_REQUESTS,
  Rfc2217Client,
} from '../../src/rfc2217/client.ts'
import { Rfc2217Error } from '../../src/rfc2217/error.ts'
import { concat, subnegotiation } from '../../src/telnet/encoder.ts'
import { cutAt, cuts, hex, hostileBytes, toHex } from '../telnet/stream.ts'
import { ALL_LOW, spoken } from './port.ts'

const messages = (...payloads: string[]) =>
  concat(payloads.map((payload) => subnegotiation(44, hex(payload))))

/** A client half whose server has agreed. `hear` feeds it payloads, all in one chunk. */
function setUp() {
  const client = new Rfc2217Client({ signature: 'tester' })
  client.start()
  assert.deepEqual([...client.push(hex('ff fd 2c'))], [{ type: 'active' }])
  const hear = (...payloads: string[]): ClientEvent[] => [...client.push(messages(...payloads))]
  return { client, hear }
}

test('the client opens with WILL COM-PORT', () => {
  const bytes = new Rfc2217Client().start()
  assert.deepEqual(spoken(bytes), ['WILL 44', 'WILL 0', 'WILL 3', 'DO 0', 'DO 3'])
  assert.equal(toHex(bytes.subarray(0, 2)), 'ff fb')
})

const openings = [
  {
    server: 'ser2net',
    bytes: 'ff fb 03 ff fd 03 ff fb 01 ff fe 01 ff fd 00 ff fb 00 ff fd 2c',
    events: [{ type: 'send', says: ['DO 1'] }, { type: 'active' }],
  },
  { server: 'hub4com', bytes: 'ff fd 2c', events: [{ type: 'active' }] },
  {
    server: 'one that offers it itself',
    bytes: 'ff fb 2c',
    events: [{ type: 'send', says: ['DO 44'] }, { type: 'active' }],
  },
  {
    server: 'one that only says yes when it is asked to do it itself',
    bytes: 'ff fe 2c ff fb 2c',
    events: [{ type: 'send', says: ['DO 44'] }, { type: 'active' }],
  },
  {
    server: 'one that answers without having agreed',
    bytes: 'ff fa 2c 66 07 ff f0',
    events: [{ type: 'active' }, { type: 'settings', inForce: { dataBits: 7 } }],
  },
  {
    server: 'a telnet server',
    bytes: 'ff fe 2c ff fd 18 ff fc 2c',
    events: [{ type: 'send', says: ['DO 44'] }, { type: 'send', says: ['WONT 24'] }, { type: 'refused' }],
  },
  { server: 'no telnet at all', bytes: '68 69', events: [{ type: 'data', bytes: hex('68 69') }] },
]
for (const { server, bytes, events } of openings) {
  test(`meets ${server}`, () => {
    const client = new Rfc2217Client()
    client.start()
    const seen = [...client.push(hex(bytes))].map((event) =>
      event.type === 'send' ? { type: 'send', says: spoken(event.bytes) } : event,
    )
    assert.deepEqual(seen, events)
    assert.equal(
      client.active,
      events.some(({ type }) => type === 'active'),
    )
  })
}

test('a server may take it back', () => {
  const { client } = setUp()
  const events = [...client.push(hex('ff fe 2c'))]
  assert.deepEqual(
    events.map(({ type }) => type),
    ['send', 'refused'],
  )
  assert.equal(client.active, false)
})

/** Requests, what they say, and the answer of a server that does as it is told. */
const requests: { request: ClientRequest; says: string[]; heard: string[]; inForce: object }[] = [
  {
    request: {
      type: 'configure',
      change: {
        inputFlow: 'dtr',
        outputFlow: 'dsr',
        stopBits: 1.5,
        parity: 'mark',
        dataBits: 5,
        baudRate: 115_200,
      },
    },
    says: ['01 00 01 c2 00', '02 05', '03 04', '04 03', '05 13', '05 12'],
    heard: ['65 0001c200', '66 05', '67 04', '68 03', '69 13', '69 12'],
    inForce: {
      baudRate: 115_200,
      dataBits: 5,
      parity: 'mark',
      stopBits: 1.5,
      outputFlow: 'dsr',
      inputFlow: 'dtr',
    },
  },
  {
    request: { type: 'configure', change: { dataBits: 7 } },
    says: ['02 07'],
    heard: ['66 08'],
    inForce: { dataBits: 8 },
  },
  {
    request: { type: 'set-lines', change: { dtr: false, rts: true } },
    says: ['05 09', '05 0b'],
    heard: ['69 09', '69 0b'],
    inForce: { dtr: false, rts: true },
  },
  {
    request: { type: 'set-lines', change: { rts: false } },
    says: ['05 0c'],
    heard: ['69 0c'],
    inForce: { rts: false },
  },
  { request: { type: 'set-break', on: true }, says: ['05 05'], heard: ['69 05'], inForce: { break: true } },
  {
    request: {
      type: 'query',
      what: ['break', 'rts', 'dtr', 'inputFlow', 'outputFlow', 'stopBits', 'parity', 'dataBits', 'baudRate'],
    },
    says: ['01 00 00 00 00', '02 00', '03 00', '04 00', '05 00', '05 0d', '05 07', '05 0a', '05 04'],
    heard: ['65 00002580', '66 08', '67 01', '68 01', '69 01', '69 0e', '69 08', '69 0c', '69 06'],
    inForce: {
      baudRate: 9600,
      dataBits: 8,
      parity: 'none',
      stopBits: 1,
      outputFlow: 'none',
      inputFlow: 'none',
      dtr: true,
      rts: false,
      break: false,
    },
  },
  { request: { type: 'purge', what: 'rx' }, says: ['0c 01'], heard: ['70 01'], inForce: {} },
  { request: { type: 'purge', what: 'tx' }, says: ['0c 02'], heard: ['70 02'], inForce: {} },
  { request: { type: 'purge', what: 'both' }, says: ['0c 03'], heard: ['70 03'], inForce: {} },
  {
    request: { type: 'set-masks', modemState: 255, lineState: 0x1e },
    says: ['0b ff', '0a 1e'],
    heard: ['6f ff', '6e 1e'],
    inForce: {},
  },
]
for (const { request, says, heard, inForce } of requests) {
  test(`asks ${JSON.stringify(request)}`, () => {
    const { client, hear } = setUp()
    assert.deepEqual(spoken(client.request(request)), says)
    for (const payload of heard.slice(0, -1)) assert.deepEqual(hear(payload), [])
    const events = hear(heard.at(-1) as string)
    assert.deepEqual(events, [{ type: 'answer', request, inForce }])
    assert.ok(events[0]?.type === 'answer')
    assert.equal(events[0].request, request, 'the very object')
    assert.equal(client.outstandingRequests, 0)
  })
}

test('several requests may be outstanding, and each gets its own answer', () => {
  const { client, hear } = setUp()
  const first: ClientRequest = { type: 'configure', change: { baudRate: 9600, parity: 'odd' } }
  const second: ClientRequest = { type: 'configure', change: { baudRate: 19_200 } }
  const lines: ClientRequest = { type: 'set-lines', change: { dtr: true } }
  for (const request of [first, second, lines]) client.request(request)
  assert.deepEqual(hear('69 08'), [{ type: 'answer', request: lines, inForce: { dtr: true } }])
  assert.deepEqual(hear('65 00002580', '65 00004b00'), [
    { type: 'answer', request: second, inForce: { baudRate: 19_200 } },
  ])
  assert.deepEqual(hear('67 02'), [
    { type: 'answer', request: first, inForce: { baudRate: 9600, parity: 'odd' } },
  ])
})

test('the number of outstanding requests is bounded', () => {
  const { client, hear } = setUp()
  const request: ClientRequest = { type: 'purge', what: 'rx' }
  for (let i = 0; i < MAX_OUTSTANDING_REQUESTS; i++) client.request({ ...request })
  assert.throws(() => client.request(request), Rfc2217Error)
  assert.equal(hear('70 01').length, 1)
  client.request(request)
})

test('what cannot be asked is refused, and nothing waits for it', () => {
  const { client } = setUp()
  assert.throws(() => client.request({ type: 'configure', change: {} }), Rfc2217Error)
  assert.throws(() => client.request({ type: 'set-masks' }), Rfc2217Error)
  assert.throws(() => client.request({ type: 'set-masks', modemState: 256 }), Rfc2217Error)
  assert.throws(() => client.request({ type: 'configure', change: { baudRate: 0 } }), Rfc2217Error)
  assert.equal(client.outstandingRequests, 0)
})

test('a request that is not answered can be forgotten, with what has come of it', () => {
  const { client, hear } = setUp()
  const request: ClientRequest = { type: 'configure', change: { stopBits: 1.5, parity: 'odd' } }
  client.request(request)
  hear('67 02')
  assert.deepEqual(client.forget(request), { parity: 'odd' })
  assert.equal(client.outstandingRequests, 0)
  assert.deepEqual(hear('68 01'), [{ type: 'settings', inForce: { stopBits: 1 } }], 'late')
  assert.deepEqual(client.forget(request), {})
})

test('what others change is state, not an error', () => {
  const { hear } = setUp()
  assert.deepEqual(
    hear('65 0000e100', '66 07', '67 03', '68 02', '69 03', '69 10', '69 09', '69 0b', '69 05'),
    [
      { type: 'settings', inForce: { baudRate: 57_600 } },
      { type: 'settings', inForce: { dataBits: 7 } },
      { type: 'settings', inForce: { parity: 'even' } },
      { type: 'settings', inForce: { stopBits: 2 } },
      { type: 'settings', inForce: { outputFlow: 'rtscts' } },
      { type: 'settings', inForce: { inputFlow: 'rtscts' } },
      { type: 'settings', inForce: { dtr: false } },
      { type: 'settings', inForce: { rts: true } },
      { type: 'settings', inForce: { break: true } },
    ],
  )
})

test('acknowledgements that nobody asked for mean nothing', () => {
  const { hear } = setUp()
  assert.deepEqual(hear('6f ff', '6e 00', '70 01', '6a', '6b', '67 00', '66 09'), [])
})

test('modem state: levels, and edges counted', () => {
  const { hear } = setUp()
  const none = { cts: 0, dsr: 0, ri: 0, dcd: 0 }
  assert.deepEqual(hear('6b 30'), [
    { type: 'modem-state', lines: { ...ALL_LOW, cts: true, dsr: true }, changes: none },
  ])
  assert.deepEqual(hear('6b 21'), [
    { type: 'modem-state', lines: { ...ALL_LOW, dsr: true }, changes: { ...none, cts: 1 } },
  ])
  assert.deepEqual(hear('6b 21'), [
    { type: 'modem-state', lines: { ...ALL_LOW, dsr: true }, changes: { ...none, cts: 2 } },
  ])
  assert.deepEqual(hear('6b 00'), [{ type: 'modem-state', lines: ALL_LOW, changes: { ...none, dsr: 1 } }])
  assert.deepEqual(hear('6b 44'), [
    { type: 'modem-state', lines: { ...ALL_LOW, ri: true }, changes: { ...none, ri: 3 } },
  ])
})

test('line state: errors, and nothing of what is no error', () => {
  const { hear } = setUp()
  assert.deepEqual(hear('6a 1e', '6a 68', '6a 61'), [
    { type: 'line-state', errors: { framing: 1, parity: 1, overrun: 1, break: 1 } },
    { type: 'line-state', errors: { framing: 1, parity: 0, overrun: 0, break: 0 } },
  ])
})

test('sredird: a baud rate in eight octets', () => {
  const { client, hear } = setUp()
  const request: ClientRequest = { type: 'configure', change: { baudRate: 9600 } }
  client.request(request)
  assert.deepEqual(hear('65 0000258000000000'), [{ type: 'answer', request, inForce: { baudRate: 9600 } }])
})

test('sredird: DTR, RTS and inbound flow answered with the flow control', () => {
  const { client, hear } = setUp()
  const flow: ClientRequest = { type: 'configure', change: { outputFlow: 'none', inputFlow: 'xonxoff' } }
  const lines: ClientRequest = { type: 'set-lines', change: { dtr: false, rts: true } }
  const brk: ClientRequest = { type: 'set-break', on: true }
  for (const request of [flow, lines, brk]) client.request(request)
  assert.deepEqual(hear('69 01', '69 01', '69 01', '69 01', '69 01'), [
    { type: 'answer', request: flow, inForce: { outputFlow: 'none', inputFlow: 'none' } },
    { type: 'answer', request: lines, inForce: { dtr: false, rts: true } },
    { type: 'answer', request: brk, inForce: { break: true } },
  ])
  const query: ClientRequest = { type: 'query', what: ['dtr'] }
  client.request(query)
  assert.deepEqual(hear('69 01'), [{ type: 'answer', request: query, inForce: {} }], 'says nothing of DTR')
})

test('a flow control that somebody else changed is not taken for the answer to DTR', () => {
  const { client, hear } = setUp()
  hear('69 01')
  const lines: ClientRequest = { type: 'set-lines', change: { dtr: false } }
  client.request(lines)
  assert.deepEqual(hear('69 03', '69 09'), [
    { type: 'settings', inForce: { outputFlow: 'rtscts' } },
    { type: 'answer', request: lines, inForce: { dtr: false } },
  ])
})

test('ser2net: outbound flow by DCD answered with an inbound one', () => {
  const { client, hear } = setUp()
  const request: ClientRequest = { type: 'configure', change: { outputFlow: 'dcd' } }
  client.request(request)
  assert.deepEqual(hear('69 0e'), [{ type: 'answer', request, inForce: { outputFlow: 'none' } }])
})

test('ser2net: a query of DTR answered with itself', () => {
  const { client, hear } = setUp()
  const request: ClientRequest = { type: 'query', what: ['dtr', 'rts'] }
  client.request(request)
  assert.deepEqual(hear('69 07', '69 0a'), [{ type: 'answer', request, inForce: {} }])
})

test('ser2net: masks answered with the states, old deltas included', () => {
  const { client, hear } = setUp()
  hear('6b bb')
  const request: ClientRequest = { type: 'set-masks', modemState: 255, lineState: 0x1e }
  client.request(request)
  assert.deepEqual(hear('6b bb', '6a 00'), [
    {
      type: 'modem-state',
      lines: { cts: true, dsr: true, ri: false, dcd: true },
      changes: { cts: 0, dsr: 0, ri: 0, dcd: 0 },
    },
    { type: 'answer', request, inForce: {} },
  ])
})

test('ser2net: a mask of nothing answered with an empty state, which says nothing of the lines', () => {
  const { client, hear } = setUp()
  hear('6b 10')
  const request: ClientRequest = { type: 'set-masks', modemState: 0 }
  client.request(request)
  assert.deepEqual(hear('6b 00'), [{ type: 'answer', request, inForce: {} }])
})

test('an acknowledgement behind a notification that came first means nothing', () => {
  const { client, hear } = setUp()
  client.request({ type: 'set-masks', modemState: 255 })
  assert.deepEqual(
    hear('6b 10', '6f ff').map(({ type }) => type),
    ['modem-state', 'answer'],
  )
})

test('signatures, in both directions', () => {
  const { client, hear } = setUp()
  assert.deepEqual(spoken(client.askSignature()), ['00'])
  assert.deepEqual(hear('64 666172'), [{ type: 'signature', text: 'far' }])
  const [event] = hear('64')
  assert.ok(event?.type === 'send')
  assert.deepEqual(spoken(event.bytes), ['00 74 65 73 74 65 72'])
  assert.deepEqual([...new Rfc2217Client().push(messages('64'))], [{ type: 'active' }], 'no name, no answer')
})

test('data passes both ways, 0xff and all', () => {
  const { client } = setUp()
  assert.equal(toHex(client.data(hex('61 ff 0d 0a'))), '61 ff ff 0d 0a')
  assert.deepEqual([...client.push(hex('61 ff ff 0d 00'))], [{ type: 'data', bytes: hex('61 ff 0d 00') }])
  assert.deepEqual(spoken(client.shortBreak()), ['command 243'])
})

test('suspended: data is refused, requests wait for resume', () => {
  const { client, hear } = setUp()
  assert.deepEqual(hear('6c', '6c'), [{ type: 'suspend' }])
  assert.equal(client.suspended, true)
  assert.throws(() => client.data(hex('61')), Rfc2217Error)
  const request: ClientRequest = { type: 'set-lines', change: { dtr: true } }
  assert.deepEqual(spoken(client.request(request)), [])
  assert.deepEqual(spoken(client.shortBreak()), [])
  const [send, resume, ...rest] = hear('6d', '6d')
  assert.ok(send?.type === 'send')
  assert.deepEqual(spoken(send.bytes), ['05 08', 'command 243'])
  assert.deepEqual(resume, { type: 'resume' })
  assert.deepEqual(rest, [])
  assert.deepEqual(hear('69 08'), [{ type: 'answer', request, inForce: { dtr: true } }])
})

test('as many requests as may be outstanding fit while suspended', () => {
  const { client, hear } = setUp()
  hear('6c')
  const change = {
    baudRate: 4_294_967_295,
    dataBits: 8,
    parity: 'none',
    stopBits: 1,
    outputFlow: 'none',
    inputFlow: 'none',
  } as const
  for (let i = 0; i < MAX_OUTSTANDING_REQUESTS; i++) client.request({ type: 'configure', change })
  const [send, resume] = hear('6d')
  assert.ok(send?.type === 'send')
  assert.equal(spoken(send.bytes).length, 6 * MAX_OUTSTANDING_REQUESTS)
  assert.deepEqual(resume, { type: 'resume' })
})

test('what means nothing is told to the log and the stream goes on', () => {
  const { client, hear } = setUp()
  assert.deepEqual(hear('01 00002580', '69 14'), [
    { type: 'malformed', reason: 'RFC 2217 code 1 from a server' },
    { type: 'malformed', reason: 'SET-CONTROL 20 from a server' },
  ])
  assert.deepEqual(
    [...client.push(subnegotiation(24, hex('01')))],
    [{ type: 'malformed', reason: 'a subnegotiation of option 24' }],
  )
  assert.deepEqual([...client.push(hex('ff f1 61'))], [{ type: 'data', bytes: hex('61') }])
})

/** All that a stream means to a client with requests of every kind outstanding; neighbouring data joined. */
function play(chunks: Uint8Array[]): unknown[] {
  const client = new Rfc2217Client({ signature: 'tester' })
  client.start()
  for (const { request } of requests) client.request(request)
  const events: unknown[] = []
  let data = ''
  for (const chunk of chunks) {
    for (const event of client.push(chunk)) {
      if (event.type === 'data') data += `${toHex(event.bytes)} `
      else {
        events.push(data, event)
        data = ''
      }
    }
  }
  return [...events, data, client.outstandingRequests]
}

test('hostile bytes: events and no errors, the same however they are cut', () => {
  fc.assert(
    fc.property(hostileBytes, cuts, (bytes, places) => {
      assert.deepEqual(play(cutAt(bytes, places)), play([bytes]))
    }),
  )
})
