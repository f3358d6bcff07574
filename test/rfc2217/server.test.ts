import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Rfc2217Error } from '../../src/rfc2217/error.ts'
import { MAX_HELD_BYTES } from '../../src/rfc2217/held-output.ts'
import { Rfc2217Server, type ServerEvent } from '../../src/rfc2217/server.ts'
import { concat, subnegotiation } from '../../src/telnet/encoder.ts'
import { cutAt, cuts, hex, hostileBytes, toHex } from '../telnet/stream.ts'
import { ALL_LOW, FakePort, spoken } from './port.ts'

const NO_ERRORS = { framing: 0, parity: 0, overrun: 0, break: 0 }

/** A server half and its port. */
function setUp({ active = true } = {}) {
  const server = new Rfc2217Server({ signature: 'farport' })
  server.start()
  const port = new FakePort()
  /** Feeds bytes and performs what is asked; gives what the peer hears. */
  const feed = (bytes: Uint8Array): string[] => {
    const heard: string[] = []
    for (const event of server.push(bytes)) {
      if (event.type === 'send') heard.push(...spoken(event.bytes))
      else if (event.type === 'request') heard.push(...spoken(port.perform(server, event.request)))
      else if (event.type === 'data') port.log.push(`data ${toHex(event.bytes)}`)
      else port.log.push('reason' in event ? `${event.type} ${event.reason}` : event.type)
    }
    return heard
  }
  /** Sends each payload as a message of its own, all in one chunk. */
  const ask = (...payloads: string[]): string[] =>
    feed(concat(payloads.map((payload) => subnegotiation(44, hex(payload)))))
  if (active) {
    feed(hex('ff fb 2c'))
    port.log.length = 0
  }
  return { server, port, feed, ask }
}

test('the server speaks first: RFC 2217, then what makes the stream transparent', () => {
  const server = new Rfc2217Server({ signature: 'farport' })
  assert.deepEqual(spoken(server.start()), ['DO 44', 'DO 0', 'DO 3', 'WILL 0', 'WILL 3', 'WILL 1'])
  assert.equal(server.active, false)
})

const openings = [
  { client: 'pyserial', bytes: 'ff fd 01 ff fb 03 ff fd 03 ff fd 2c ff fb 2c', heard: ['WILL 44'] },
  { client: 'gensio, hub4com', bytes: 'ff fb 2c', heard: [] },
  { client: 'one that only asks the server to', bytes: 'ff fd 2c', heard: ['WILL 44'] },
]
for (const { client, bytes, heard } of openings) {
  test(`agrees to the opening of ${client}, and says no more than needed`, () => {
    const { server, port, feed } = setUp({ active: false })
    assert.deepEqual(feed(hex(bytes)), heard)
    assert.equal(server.active, true)
    assert.deepEqual(port.log, ['active'])
    assert.deepEqual(feed(hex(bytes)), [], 'a repetition is not answered')
    assert.deepEqual(port.log, ['active'])
  })
}

test('an unknown option is refused once', () => {
  const { feed } = setUp()
  assert.deepEqual(feed(hex('ff fd 63 ff fb 63')), ['WONT 99', 'DONT 99'])
  assert.deepEqual(feed(hex('ff fd 63 ff fb 63')), [])
})

test('a client that echoes is told not to', () => {
  const { feed } = setUp()
  assert.deepEqual(feed(hex('ff fb 01')), ['DONT 1'])
})

test('a plain telnet client gets data and no RFC 2217', () => {
  const { server, port, feed } = setUp({ active: false })
  assert.deepEqual(feed(hex('ff fc 2c ff fd 01 61')), [])
  assert.deepEqual(port.log, ['data 61'])
  assert.equal(server.active, false)
  assert.equal(server.modemState({ ...ALL_LOW, cts: true }), undefined)
  assert.equal(server.lineState({ ...NO_ERRORS, framing: 1 }), undefined)
  assert.equal(server.settings({ baudRate: 9600 }), undefined)
  assert.equal(toHex(server.data(hex('ff 61'))), 'ff ff 61')
})

/** One request each to a port at 9600 8N1 without flow control, DTR and RTS on. */
const answers: { name: string; ask: string; heard: string[]; done?: string }[] = [
  { name: 'signature', ask: '00', heard: ['64 66 61 72 70 6f 72 74'] },
  { name: 'the client’s own signature', ask: '00 70', heard: [] },
  { name: 'baud rate query', ask: '01 00000000', heard: ['65 00 00 25 80'], done: '{}' },
  { name: 'baud rate 115200', ask: '01 0001c200', heard: ['65 00 01 c2 00'], done: '{"baudRate":115200}' },
  {
    name: 'baud rate 0xff00ff',
    ask: '01 00ff00ff',
    heard: ['65 00 ff 00 ff'],
    done: '{"baudRate":16711935}',
  },
  {
    name: 'baud rate 0xffffffff',
    ask: '01 ffffffff',
    heard: ['65 ff ff ff ff'],
    done: '{"baudRate":4294967295}',
  },
  { name: 'Cisco baud rate 115200', ask: '01 0e', heard: ['65 0e'], done: '{"baudRate":115200}' },
  { name: 'Cisco baud rate query', ask: '01 00', heard: ['65 08'], done: '{}' },
  { name: 'Cisco baud rate that does not exist', ask: '01 63', heard: ['65 08'], done: '{}' },
  { name: 'a baud rate in two octets', ask: '01 2580', heard: ['65 00 00 25 80'], done: '{}' },
  { name: 'data bits query', ask: '02 00', heard: ['66 08'], done: '{}' },
  { name: 'data bits 7', ask: '02 07', heard: ['66 07'], done: '{"dataBits":7}' },
  { name: 'data bits 9', ask: '02 09', heard: ['66 08'], done: '{}' },
  { name: 'parity query', ask: '03 00', heard: ['67 01'], done: '{}' },
  { name: 'parity mark', ask: '03 04', heard: ['67 04'], done: '{"parity":"mark"}' },
  { name: 'parity 6', ask: '03 06', heard: ['67 01'], done: '{}' },
  { name: 'parity 9', ask: '03 09', heard: ['67 01'], done: '{}' },
  { name: 'stop bits query', ask: '04 00', heard: ['68 01'], done: '{}' },
  { name: 'stop bits 1.5', ask: '04 03', heard: ['68 03'], done: '{"stopBits":1.5}' },
  { name: 'stop bits 4', ask: '04 04', heard: ['68 01'], done: '{}' },
  { name: 'flow query', ask: '05 00', heard: ['69 01'], done: '{}' },
  { name: 'no flow', ask: '05 01', heard: ['69 01'], done: '{"outputFlow":"none","inputFlow":"none"}' },
  {
    name: 'XON/XOFF',
    ask: '05 02',
    heard: ['69 02'],
    done: '{"outputFlow":"xonxoff","inputFlow":"xonxoff"}',
  },
  { name: 'RTS/CTS', ask: '05 03', heard: ['69 03'], done: '{"outputFlow":"rtscts","inputFlow":"rtscts"}' },
  { name: 'DCD', ask: '05 11', heard: ['69 11'], done: '{"outputFlow":"dcd"}' },
  { name: 'DSR', ask: '05 13', heard: ['69 13'], done: '{"outputFlow":"dsr"}' },
  { name: 'inbound flow query', ask: '05 0d', heard: ['69 0e'], done: '{}' },
  { name: 'inbound none', ask: '05 0e', heard: ['69 0e'], done: '{"inputFlow":"none"}' },
  { name: 'inbound XON/XOFF', ask: '05 0f', heard: ['69 0f'], done: '{"inputFlow":"xonxoff"}' },
  { name: 'inbound RTS', ask: '05 10', heard: ['69 10'], done: '{"inputFlow":"rtscts"}' },
  { name: 'inbound DTR', ask: '05 12', heard: ['69 12'], done: '{"inputFlow":"dtr"}' },
  { name: 'control 20', ask: '05 14', heard: ['69 01'], done: '{}' },
  { name: 'control without a value', ask: '05', heard: ['69 01'], done: '{}' },
  { name: 'break query', ask: '05 04', heard: ['69 06'] },
  { name: 'break on', ask: '05 05', heard: ['69 05'] },
  { name: 'break off', ask: '05 06', heard: ['69 06'] },
  { name: 'DTR query', ask: '05 07', heard: ['69 08'] },
  { name: 'DTR on', ask: '05 08', heard: ['69 08'] },
  { name: 'DTR off', ask: '05 09', heard: ['69 09'] },
  { name: 'RTS query', ask: '05 0a', heard: ['69 0b'] },
  { name: 'RTS on', ask: '05 0b', heard: ['69 0b'] },
  { name: 'RTS off', ask: '05 0c', heard: ['69 0c'] },
  { name: 'line state, asked for', ask: '06', heard: ['6a 00'] },
  { name: 'modem state, asked for', ask: '07', heard: ['6b 00'] },
  { name: 'modem state, asked for with a value', ask: '07 00', heard: ['6b 00'] },
  { name: 'line state mask', ask: '0a ff', heard: ['6e ff'] },
  { name: 'line state mask without a value', ask: '0a', heard: ['6e 00'] },
  { name: 'modem state mask', ask: '0b 10', heard: ['6f 10'] },
  { name: 'modem state mask without a value', ask: '0b', heard: ['6f ff'] },
  { name: 'purge rx', ask: '0c 01', heard: ['70 01'] },
  { name: 'purge tx', ask: '0c 02', heard: ['70 02'] },
  { name: 'purge both', ask: '0c 03', heard: ['70 03'] },
  { name: 'purge 0', ask: '0c 00', heard: ['70 00'] },
  { name: 'purge 4', ask: '0c 04', heard: ['70 00'] },
]
for (const { name, ask: payload, heard, done } of answers) {
  test(`answers: ${name}`, () => {
    const { port, ask } = setUp()
    assert.deepEqual(ask(payload), heard)
    if (done !== undefined) assert.deepEqual(port.log, [`configure ${done}`])
  })
}

test('what pyserial sends at open is one change of settings, and every answer equals its request', () => {
  const { port, ask } = setUp()
  assert.deepEqual(ask('01 0001c200', '02 08', '03 01', '04 01'), [
    '65 00 01 c2 00',
    '66 08',
    '67 01',
    '68 01',
  ])
  assert.deepEqual(port.log, ['configure {"baudRate":115200,"dataBits":8,"parity":"none","stopBits":1}'])
})

test('DTR and RTS that come together move together', () => {
  const { port, ask } = setUp()
  assert.deepEqual(ask('05 09', '05 0c'), ['69 09', '69 0c'])
  assert.deepEqual(port.log, ['set-lines {"dtr":false,"rts":false}'])
})

test('a pulse stays a pulse', () => {
  const { port, ask } = setUp()
  assert.deepEqual(ask('05 09', '05 0c', '05 08', '05 0b'), ['69 09', '69 0c', '69 08', '69 0b'])
  assert.deepEqual(port.log, ['set-lines {"dtr":false,"rts":false}', 'set-lines {"dtr":true,"rts":true}'])
})

test('a query before a change is answered with what was before', () => {
  const { ask } = setUp()
  assert.deepEqual(ask('05 07', '05 09'), ['69 08', '69 09'])
  assert.deepEqual(ask('01 00000000', '01 00004b00'), ['65 00 00 25 80', '65 00 00 4b 00'])
  assert.deepEqual(ask('05 0d', '05 03'), ['69 0e', '69 03'])
  assert.deepEqual(ask('05 14', '05 02'), ['69 03', '69 02'])
})

test('a query behind a change of both flows is answered with what the change brought', () => {
  const { port, ask } = setUp()
  assert.deepEqual(ask('05 03', '05 0d'), ['69 03', '69 10'])
  assert.deepEqual(port.log, ['configure {"outputFlow":"rtscts","inputFlow":"rtscts"}'])
})

test('the inbound flow may differ from the outbound one, if it comes behind it', () => {
  const { port, ask } = setUp()
  assert.deepEqual(ask('05 03', '05 0e'), ['69 03', '69 0e'])
  assert.deepEqual(port.log, ['configure {"outputFlow":"rtscts","inputFlow":"none"}'])
  assert.deepEqual(ask('05 10', '05 02'), ['69 10', '69 02'])
  assert.equal(port.settings.inputFlow, 'xonxoff')
})

test('data and commands keep their order', () => {
  const { port, feed } = setUp()
  feed(
    concat([
      hex('61'),
      subnegotiation(44, hex('05 09')),
      hex('62'),
      subnegotiation(44, hex('05 0c')),
      subnegotiation(44, hex('01 00004b00')),
      subnegotiation(44, hex('0c 01')),
      hex('63'),
    ]),
  )
  assert.deepEqual(port.log, [
    'data 61',
    'set-lines {"dtr":false}',
    'data 62',
    'set-lines {"rts":false}',
    'configure {"baudRate":19200}',
    'purge rx',
    'data 63',
  ])
})

test('a driver that rounds is not held against the client; one that can’t is told', () => {
  const { port, ask } = setUp()
  port.driver = (settings) => ({ ...settings, baudRate: 12_346 })
  assert.deepEqual(ask('01 00003039'), ['65 00 00 30 39'], '12345 as asked')
  port.driver = (settings) => ({ ...settings, baudRate: 117_504 })
  assert.deepEqual(ask('01 0001c200'), ['65 00 01 c2 00'], 'two per cent off is as asked')
  port.driver = (settings) => ({ ...settings, baudRate: 117_505 })
  assert.deepEqual(ask('01 0001c200'), ['65 00 01 cb 01'], 'more is told')
  assert.deepEqual(ask('01 00000000'), ['65 00 01 cb 01'], 'and so it is when asked')
  port.driver = (settings) => ({ ...settings, stopBits: 2 })
  assert.deepEqual(ask('04 03'), ['68 02'])
})

test('the break state is remembered, since nothing can read it', () => {
  const { ask } = setUp()
  assert.deepEqual(ask('05 04', '05 05', '05 04'), ['69 06', '69 05', '69 05'])
  assert.deepEqual(ask('05 04', '05 06', '05 04'), ['69 05', '69 06', '69 06'])
})

test('a query of the break waits for the request before it', () => {
  const { server, feed, ask } = setUp()
  const [event] = [...server.push(subnegotiation(44, hex('05 05')))]
  assert.ok(event?.type === 'request' && event.request.type === 'set-break')
  assert.deepEqual(ask('05 04'), [])
  feed(hex('61'))
  assert.deepEqual(
    spoken(server.answer(event.request, false)),
    ['69 06', '69 06'],
    'refused, and so the answers say',
  )
  assert.deepEqual(ask('05 04'), ['69 06'])
})

test('queries of the break behind a request are bounded', () => {
  const { server, port, ask } = setUp()
  const [event] = [...server.push(subnegotiation(44, hex('05 05')))]
  assert.ok(event?.type === 'request' && event.request.type === 'set-break')
  for (let i = 0; i < 100; i++) ask('05 04')
  assert.equal(spoken(server.answer(event.request, true)).length, 65)
  assert.equal(port.log.length, 36)
})

test('IAC BRK is a break', () => {
  const { port, feed } = setUp()
  assert.deepEqual(feed(hex('61 ff f3 62')), [])
  assert.deepEqual(port.log, ['data 61', 'break', 'data 62'])
})

test('NOP and IAC SE mean nothing', () => {
  const { port, feed } = setUp()
  assert.deepEqual(feed(hex('ff f1 ff f0')), [])
  assert.deepEqual(port.log, [])
})

test('what means nothing is told to the log and the stream goes on', () => {
  const { port, feed, ask } = setUp()
  assert.deepEqual(ask('32 01', '65 00002580', ''), [])
  feed(subnegotiation(31, hex('00 50 00 18')))
  feed(hex('ff fa 2c 05 ff 08 ff f0'))
  assert.deepEqual(port.log, [
    'malformed RFC 2217 code 50 from a client',
    'malformed RFC 2217 code 101 from a client',
    'malformed an RFC 2217 message without a code',
    'malformed a subnegotiation of option 31',
    'malformed IAC 8 inside a subnegotiation',
  ])
  assert.deepEqual(ask('02 00'), ['66 08'])
})

test('a server without a name never answers a question with a question', () => {
  const server = new Rfc2217Server({ signature: '' })
  assert.deepEqual([...server.push(subnegotiation(44, hex('00')))], [])
})

test('modem state: one at first, then changes with their deltas', () => {
  const { server } = setUp()
  const lines = { cts: true, dsr: true, ri: false, dcd: false }
  assert.deepEqual(spoken(server.modemState(lines)), ['6b 30'], 'levels without deltas')
  assert.equal(server.modemState(lines), undefined, 'nothing new')
  assert.deepEqual(spoken(server.modemState({ ...lines, cts: false })), ['6b 21'])
  assert.deepEqual(spoken(server.modemState({ ...lines, cts: false, dcd: true })), ['6b a8'])
  assert.deepEqual(spoken(server.modemState(ALL_LOW)), ['6b 0a'], 'falling lines are deltas without levels')
})

test('modem state: the first is sent even when all lines are low', () => {
  const { server } = setUp()
  assert.deepEqual(spoken(server.modemState(ALL_LOW)), ['6b 00'])
})

test('modem state: pulses show as deltas', () => {
  const { server } = setUp()
  server.modemState(ALL_LOW)
  const none = { cts: 0, dsr: 0, ri: 0, dcd: 0 }
  assert.deepEqual(spoken(server.modemState(ALL_LOW, { ...none, cts: 2 })), ['6b 01'])
  assert.equal(server.modemState(ALL_LOW, none), undefined)
})

test('modem state: of a ring only the end has a delta', () => {
  const { server } = setUp()
  const none = { cts: 0, dsr: 0, ri: 0, dcd: 0 }
  const ringing = { ...ALL_LOW, ri: true }
  server.modemState(ALL_LOW)
  assert.deepEqual(spoken(server.modemState(ringing, { ...none, ri: 1 })), ['6b 40'])
  assert.deepEqual(spoken(server.modemState(ALL_LOW, { ...none, ri: 1 })), ['6b 04'])
  assert.deepEqual(spoken(server.modemState(ALL_LOW, { ...none, ri: 2 })), ['6b 04'])
  assert.deepEqual(spoken(server.modemState(ringing, { ...none, ri: 3 })), ['6b 44'])
})

test('modem state: the mask decides what is sent', () => {
  const { server, ask } = setUp()
  server.modemState(ALL_LOW)
  assert.deepEqual(ask('0b f0'), ['6f f0'])
  assert.deepEqual(spoken(server.modemState({ ...ALL_LOW, cts: true })), ['6b 10'])
  assert.equal(server.modemState(ALL_LOW), undefined, 'nothing that the mask shows')
  assert.deepEqual(ask('0b 00'), ['6f 00'])
  assert.equal(server.modemState({ ...ALL_LOW, cts: true, dcd: true }), undefined)
  assert.deepEqual(ask('0b ff'), ['6f ff'])
  assert.equal(server.modemState({ ...ALL_LOW, cts: true, dcd: true }), undefined, 'deltas are not told late')
  assert.deepEqual(ask('07'), ['6b 90'], 'but levels when asked for')
})

test('modem state: a client that begins anew is told anew', () => {
  const { server, feed } = setUp()
  assert.deepEqual(spoken(server.modemState(ALL_LOW)), ['6b 00'])
  assert.deepEqual(feed(hex('ff fc 2c')), ['DONT 44'])
  assert.equal(server.modemState({ ...ALL_LOW, cts: true }), undefined)
  assert.deepEqual(feed(hex('ff fb 2c')), ['DO 44'])
  assert.deepEqual(spoken(server.modemState({ ...ALL_LOW, cts: true })), ['6b 10'])
})

test('line state: nothing at first, then what the mask asks for', () => {
  const { server, ask } = setUp()
  assert.equal(server.lineState({ ...NO_ERRORS, framing: 3 }), undefined)
  ask('0a 18')
  assert.equal(server.lineState(NO_ERRORS), undefined, 'what was masked is not told late')
  assert.deepEqual(spoken(server.lineState({ framing: 2, parity: 1, overrun: 0, break: 0 })), ['6a 08'])
  assert.deepEqual(spoken(server.lineState({ ...NO_ERRORS, break: 1, framing: 1 })), ['6a 18'])
  assert.equal(server.lineState({ ...NO_ERRORS, parity: 1, overrun: 1 }), undefined)
})

test('settings that others changed are told', () => {
  const { server } = setUp()
  assert.deepEqual(spoken(server.settings({ baudRate: 57_600, parity: 'even' })), ['65 00 00 e1 00', '67 03'])
  assert.deepEqual(
    spoken(
      server.settings({
        baudRate: 300,
        dataBits: 5,
        parity: 'space',
        stopBits: 1.5,
        outputFlow: 'dsr',
        inputFlow: 'dtr',
      }),
    ),
    ['65 00 00 01 2c', '66 05', '67 05', '68 03', '69 13', '69 12'],
  )
  assert.equal(server.settings({}), undefined)
})

test('suspended: neither data nor commands leave until resume, and then in order', () => {
  const { server, port, feed, ask } = setUp()
  server.modemState(ALL_LOW)
  ask('0a ff')
  port.log.length = 0
  assert.deepEqual(ask('08', '08', '01 00004b00', '05 07'), [])
  feed(hex('61 ff fd 63'))
  assert.equal(server.suspended, true)
  assert.deepEqual(port.log, ['suspend', 'configure {"baudRate":19200}', 'set-lines {}', 'data 61'])
  assert.throws(() => server.data(hex('61')), Rfc2217Error)
  assert.deepEqual(spoken(server.settings({ dataBits: 7 })), [])
  assert.equal(server.modemState({ ...ALL_LOW, cts: true }), undefined)
  assert.equal(server.modemState({ ...ALL_LOW, dcd: true }), undefined)
  assert.equal(server.lineState({ ...NO_ERRORS, framing: 1 }), undefined)
  assert.equal(server.lineState({ ...NO_ERRORS, break: 1 }), undefined)

  assert.deepEqual(ask('09', '09'), ['65 00 00 4b 00', '69 08', 'WONT 99', '66 07', '6b 89', '6a 18'])
  assert.equal(port.log.at(-1), 'resume')
  assert.equal(server.suspended, false)
  assert.equal(toHex(server.data(hex('61'))), '61')
  assert.deepEqual(ask('09'), [], 'resume without suspend')
})

test('suspended: what waits is bounded, and what was dropped is told', () => {
  const { port, ask } = setUp()
  ask('08')
  for (let i = 0; i < 3000; i++) ask('02 00')
  const heard = ask('09')
  assert.equal(heard.length, Math.floor(MAX_HELD_BYTES / 7))
  assert.deepEqual(port.log.slice(-2), [
    `malformed ${3000 - heard.length} answers dropped: too many asked while suspended`,
    'resume',
  ])
})

/** All the meaning of events: data joined, what is sent joined, requests as the port saw them. */
function play(chunks: Uint8Array[]): { log: string[]; heard: string } {
  const server = new Rfc2217Server({ signature: 'farport' })
  server.start()
  const port = new FakePort()
  const heard: Uint8Array[] = []
  const log: string[] = []
  let data = ''
  for (const chunk of chunks) {
    for (const event of server.push(chunk) as Generator<ServerEvent>) {
      if (event.type === 'data') {
        data += ` ${toHex(event.bytes)}`
        continue
      }
      log.push(`data${data}`)
      data = ''
      if (event.type === 'send') heard.push(event.bytes)
      else if (event.type === 'request') heard.push(port.perform(server, event.request))
      else log.push('reason' in event ? event.reason : event.type)
      if (event.type === 'active') heard.push(server.modemState(ALL_LOW) ?? hex(''))
    }
  }
  log.push(`data${data}`, JSON.stringify([port.settings, port.outputs, port.break]))
  return { log: log.filter((entry) => entry !== 'data'), heard: spoken(concat(heard)).join(', ') }
}

test('hostile bytes: events and no errors, the same port and the same answers however they are cut', () => {
  fc.assert(
    fc.property(hostileBytes, cuts, (bytes, places) => {
      const whole = play([bytes])
      const pieces = play(cutAt(bytes, places))
      assert.equal(pieces.heard, whole.heard)
      assert.deepEqual(pieces.log, whole.log)
    }),
  )
})

test('whatever comes before, a request behind it is answered', () => {
  fc.assert(
    fc.property(hostileBytes, (bytes) => {
      const { feed, ask } = setUp()
      feed(bytes)
      // NUL takes the place of an option or a command that the bytes may have left open; RESUME ends a SUSPEND in them.
      feed(hex('00 ff f0 ff f0'))
      ask('09')
      assert.match(ask('02 07').join(), /^66 07$/)
    }),
  )
})
