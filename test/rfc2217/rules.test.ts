/** What a server has to keep so that every client in the field gets on with it: the probe as judge, then rule by rule. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LineSettings, OutputLines } from '../../src/rfc2217/line.ts'
import { type ProbeReport, probeServer } from '../../src/rfc2217/probe.ts'
import type { Heard } from '../../src/rfc2217/probe-connection.ts'
import { Rfc2217Server } from '../../src/rfc2217/server.ts'
import { TelnetDecoder } from '../../src/telnet/decoder.ts'
import { concat, escapeIac, subnegotiation } from '../../src/telnet/encoder.ts'
import { hex, toHex } from '../telnet/stream.ts'
import { ALL_LOW, FakePort, spoken } from './port.ts'

type Connection = (bytes: Uint8Array) => { bytes: Uint8Array; closed?: boolean }

/** A client's connection to a server half whose port does what it is asked. */
function connection(port = new FakePort()): { say: Connection; port: FakePort; server: Rfc2217Server } {
  const server = new Rfc2217Server({ signature: 'farport' })
  let first: Uint8Array[] = [server.start()]
  return {
    port,
    server,
    say(bytes) {
      const heard: Uint8Array[] = first
      first = []
      for (const event of server.push(bytes)) {
        if (event.type === 'send') heard.push(event.bytes)
        else if (event.type === 'request') heard.push(port.perform(server, event.request))
        else if (event.type === 'active') heard.push(server.modemState(ALL_LOW) ?? new Uint8Array())
        else if (event.type === 'data') port.log.push(`data ${toHex(event.bytes)}`)
        else port.log.push(event.type)
      }
      return { bytes: concat(heard) }
    },
  }
}

/** What the probe finds at servers that `connect` makes, one for each connection. */
async function probed(connect: () => Connection): Promise<ProbeReport> {
  let telnet = new TelnetDecoder()
  let say = connect()
  let begun = false
  return await probeServer((question) => {
    if (question.anew && begun) {
      telnet = new TelnetDecoder()
      say = connect()
    }
    begun = true
    const { bytes, closed = false } = say(question.bytes)
    const payloads: Uint8Array[] = []
    const negotiations: Heard['negotiations'][number][] = []
    for (const event of telnet.push(bytes)) {
      if (event.type === 'subnegotiation') payloads.push(event.payload)
      else if (event.type === 'negotiate') negotiations.push(event)
    }
    return Promise.resolve({ payloads, negotiations, closed, tookMs: 1 })
  })
}

const faults = ({ findings }: ProbeReport) =>
  findings
    .filter(({ verdict }) => verdict !== 'right')
    .map(({ request, verdict }) => `${verdict}: ${request}`)

test('every request has its right answer, and the port is left as it was found', async () => {
  const port = new FakePort()
  port.settings = { ...port.settings, baudRate: 57_600, parity: 'even', dataBits: 7, inputFlow: 'xonxoff' }
  port.outputs = { dtr: false, rts: true }
  const found: [LineSettings, OutputLines] = [{ ...port.settings }, { ...port.outputs }]
  const report = await probed(() => connection(port).say)
  assert.deepEqual(faults(report), [])
  assert.deepEqual(report.leftChanged, [])
  assert.deepEqual([port.settings, port.outputs, port.break], [...found, false])
})

test('a port that can do little answers with what is in force, and none of it counts as wrong', async () => {
  const port = new FakePort()
  port.driver = (settings) => ({ ...settings, dataBits: 8, parity: 'none', baudRate: 9600 })
  const report = await probed(() => connection(port).say)
  assert.deepEqual(new Set(report.findings.map(({ verdict }) => verdict)), new Set(['right', 'refused']))
})

test('what the port does not take back is told', async () => {
  const port = new FakePort()
  port.settings = { ...port.settings, baudRate: 57_600 }
  let moved = false
  port.driver = (settings) => {
    if (settings.baudRate !== 57_600) moved = true
    return moved && settings.baudRate === 57_600 ? { ...settings, baudRate: 9600 } : settings
  }
  const { leftChanged } = await probed(() => connection(port).say)
  assert.deepEqual(leftChanged, ['baud rate: it was 57600, and the server did not confirm it'])
})

/** Servers with one fault each: every fault is found, and nothing else is. */
const spoiled: { fault: string; spoil: (connect: Connection) => Connection; found: string[] }[] = [
  {
    fault: 'does not answer DTR and RTS',
    spoil: (say) => without(say, (payload) => payload[0] === 105 && [8, 9, 11, 12].includes(payload[1] ?? 0)),
    found: ['DTR?', 'RTS?', 'DTR off', 'DTR on', 'RTS off', 'RTS on'].map((what) => `silent: ${what}`),
  },
  {
    fault: 'acknowledges masks with the code of the notice',
    spoil: (say) =>
      changed(say, (p) =>
        p[0] === 110 || p[0] === 111 ? Uint8Array.of((p[0] ?? 0) - 4, ...p.subarray(1)) : p,
      ),
    found: [0, 255].flatMap((mask) => [
      `wrong: mask of the line state ${mask}`,
      `wrong: mask of the modem state ${mask}`,
    ]),
  },
  {
    fault: 'sends no modem state',
    spoil: (say) => without(say, ([code]) => code === 107),
    found: ['silent: the modem lines, unasked', 'silent: an empty NOTIFY-MODEMSTATE'],
  },
  {
    fault: 'has no signature',
    spoil: (say) => without(say, ([code]) => code === 100),
    found: ['silent: its signature'],
  },
  {
    fault: 'says that a break that ended is on',
    spoil: (say) => changed(say, (p) => (p[0] === 105 && p[1] === 6 ? Uint8Array.of(105, 5) : p)),
    found: ['wrong: break off'],
  },
]
for (const { fault, spoil, found } of spoiled)
  test(`the probe finds a server that ${fault}, and blames it for nothing else`, async () => {
    assert.deepEqual(faults(await probed(() => spoil(connection().say))), found)
  })

test('the probe goes on behind a server that closes the connection, and does not ask that one again', async () => {
  let connections = 0
  const port = new FakePort()
  const report = await probed(() => {
    connections++
    const { say } = connection(port)
    return (bytes) =>
      toHex(bytes).includes('2c 01 ff ff ff ff ff ff ff ff')
        ? { bytes: new Uint8Array(), closed: true }
        : say(bytes)
  })
  assert.deepEqual(faults(report), ['wrong: baud rate 4294967295'])
  assert.equal(connections, 2)
  assert.deepEqual(report.leftChanged, [])
})

test('of a server that takes no second connection the rest is not asked, and what stays changed is told', async () => {
  let connections = 0
  const report = await probed(() => {
    if (connections++ > 0) return () => ({ bytes: new Uint8Array(), closed: true })
    const { say } = connection()
    return (bytes) =>
      toHex(bytes).includes('2c 02 05 ff') ? { bytes: new Uint8Array(), closed: true } : say(bytes)
  })
  assert.deepEqual(faults(report), ['wrong: data bits 5', 'wrong: another connection'])
  assert.equal(report.findings.at(-2)?.request, 'data bits 5')
  assert.ok(report.leftChanged.includes('data bits: the server has gone'), String(report.leftChanged))
})

test('a server without RFC 2217 is told by one finding', async () => {
  const { findings } = await probed(() => () => ({ bytes: new Uint8Array() }))
  assert.deepEqual(
    findings.map(({ request, verdict }) => `${verdict}: ${request}`),
    ['wrong: RFC 2217 (option 44)'],
  )
})

/** Behind the opening; what is heard of each piece. */
function hears(...digits: string[]): string[] {
  const { say } = connection()
  say(hex('ff fb 2c'))
  return digits.flatMap((piece) => spoken(say(hex(piece)).bytes))
}

test('0xff is doubled in data, in a baud rate, in a mask and in a signature, both ways', () => {
  const { say, port, server } = connection()
  say(hex('ff fb 2c'))
  say(hex('61 ff ff 62'))
  assert.equal(port.log.at(-1), 'data 61 ff 62')
  assert.equal(toHex(server.data(hex('61 ff 62'))), '61 ff ff 62')
  assert.equal(
    toHex(say(hex('ff fa 2c 01 00 ff ff 00 ff ff ff f0')).bytes),
    'ff fa 2c 65 00 ff ff 00 ff ff ff f0',
  )
  assert.equal(toHex(say(hex('ff fa 2c 0a ff ff ff f0')).bytes), 'ff fa 2c 6e ff ff ff f0')
  const named = new Rfc2217Server({ signature: '\u00ff' })
  const [answer] = [...named.push(hex('ff fa 2c 00 ff f0'))]
  assert.ok(answer?.type === 'send')
  assert.equal(toHex(answer.bytes), 'ff fa 2c 64 ff ff ff f0')
})

test('a message ends at IAC SE, however short or long it is, and the next one is understood', () => {
  const query = 'ff fa 2c 01 00000000 ff f0'
  for (const odd of [
    '06',
    '07',
    '01 0e',
    '01',
    '02',
    '05',
    '0a',
    '0c',
    '',
    '01 0000258000000000',
    `02 08 ${'00'.repeat(2000)}`,
  ])
    assert.equal(
      hears(`ff fa 2c ${odd} ff f0 ${query}`).at(-1)?.slice(0, 2),
      '65',
      `behind ${odd.slice(0, 20)}`,
    )
})

test('CR LF, CR NUL, NUL and every other byte reach the device as they are', () => {
  const { say, port } = connection()
  say(hex('ff fb 2c'))
  const all = Uint8Array.from({ length: 256 }, (_, i) => i)
  say(escapeIac(concat([hex('0d 0a 0d 00 00'), all])))
  assert.equal(
    port.log
      .filter((line) => line.startsWith('data'))
      .map((line) => line.slice(5))
      .join(' '),
    `0d 0a 0d 00 00 ${toHex(all)}`,
  )
})

test('a baud rate in Cisco’s one octet is answered in one, and four octets behind it in four', () => {
  assert.deepEqual(hears('ff fa 2c 01 0e ff f0', 'ff fa 2c 01 00000000 ff f0'), ['65 0e', '65 00 01 c2 00'])
})

test('“are you there” has a sign of life that is no data; NOP and a data mark have none', () => {
  assert.deepEqual(hears('ff f6'), ['command 241'])
  assert.deepEqual(hears('ff f1', 'ff f2'), [])
})

test('while suspended neither answers nor notices nor signs of life leave, and all of them do afterwards', () => {
  assert.deepEqual(hears('ff fa 2c 08 ff f0', 'ff fa 2c 00 ff f0', 'ff f6', 'ff fa 2c 0c 03 ff f0'), [])
  assert.deepEqual(hears('ff fa 2c 08 ff f0', 'ff f6', 'ff fa 2c 0c 03 ff f0', 'ff fa 2c 09 ff f0'), [
    ...['command 241', '70 03'],
  ])
})

/** The same connection, its answers put through `change`; undefined leaves one out. */
function changed(say: Connection, change: (payload: Uint8Array) => Uint8Array | undefined): Connection {
  return (bytes) => {
    const out: Uint8Array[] = []
    for (const event of new TelnetDecoder().push(say(bytes).bytes)) {
      if (event.type === 'negotiate') out.push(Uint8Array.of(255, event.verb, event.option))
      if (event.type !== 'subnegotiation') continue
      const payload = change(event.payload)
      if (payload !== undefined) out.push(subnegotiation(event.option, payload))
    }
    return { bytes: concat(out) }
  }
}

function without(say: Connection, drop: (payload: Uint8Array) => boolean): Connection {
  return changed(say, (payload) => (drop(payload) ? undefined : payload))
}
