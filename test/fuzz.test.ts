/** What peers, programs and the LAN may send, but for what is in test/trust/fuzz.test.ts. */
import assert from 'node:assert/strict'
import { duplexPair } from 'node:stream'
import { FrameDecoder, FrameError } from '../src/channel/frames.ts'
import { LineSplitter, MAX_REQUEST_BYTES, parseAnswer, parseRequest } from '../src/daemon/control-protocol.ts'
import { FarportError } from '../src/errors.ts'
import {
  encodeAnswer,
  encodeGoodbye,
  encodeQuestion,
  isLanAddress,
  readMessage,
} from '../src/lan/lan-message.ts'
import { Rfc2217Client } from '../src/rfc2217/client.ts'
import { Rfc2217Server } from '../src/rfc2217/server.ts'
import { readHello } from '../src/session/hello.ts'
import { MAX_SUBNEGOTIATION, TelnetDecoder } from '../src/telnet/decoder.ts'
import { peerIdProblem } from '../src/trust/peer-id.ts'
import { fuzz, type Random } from './support/fuzz.ts'

const RUNS = { runs: 500 }
const PEER = '12D3KooWJRSrypvnpHgc6ZAgyCni4KcSmbV7uGRaMw5LgMKT18fq'

/** Two pieces, cut anywhere. */
function cut(input: Uint8Array, random: Random): Uint8Array[] {
  const at = random.below(input.length + 1)
  return [input.subarray(0, at), input.subarray(at)]
}

const json = (value: unknown) => Buffer.from(JSON.stringify(value))
const JSON_TOKENS = [
  ...[
    '"',
    '{',
    '}',
    '[',
    ']',
    ':',
    ',',
    '\\',
    '\\u0000',
    '\\ud800',
    'null',
    'true',
    '1e999',
    '-0',
    '[['.repeat(99),
  ],
  ...[
    '"__proto__"',
    '"constructor"',
    '"id"',
    '"port"',
    '"received"',
    '9007199254740993',
    '\n',
    '\r',
    '\u2028',
  ],
]

fuzz(
  'the control socket',
  () => ({
    corpus: [
      { id: 1, method: 'status', params: { peers: ['a'] } },
      { id: 2, method: 'pair', params: 'FARPORT1…' },
      { id: 3, event: { event: 'paired' } },
      { id: 4, result: null },
      { id: null, error: { code: 'ERR_PROTOCOL', message: 'no' } },
    ].map((message) => Buffer.concat([json(message), Buffer.from('\n')])),
    tokens: JSON_TOKENS,
    run(input, random) {
      let got = 'no line'
      for (const parse of [parseRequest, parseAnswer]) {
        const splitter = new LineSplitter(MAX_REQUEST_BYTES)
        try {
          for (const piece of cut(input, random))
            for (const line of splitter.push(piece)) {
              parse(line)
              got = 'read'
            }
        } catch (error) {
          assert.ok(error instanceof FarportError && error.code === 'ERR_PROTOCOL', String(error))
          if (got === 'no line') got = 'refused'
        }
      }
      return got
    },
    reach: { read: 0.01, refused: 0.3 },
  }),
  RUNS,
)

const HELLO = {
  version: 1,
  port: 'gps',
  mode: 'use',
  channel: '0123456789abcdef0123456789abcdef',
  fresh: true,
  received: 0,
  resumeMs: 30_000,
}
const never = new AbortController().signal

fuzz(
  'the hello of a session',
  () => ({
    corpus: [HELLO, { ...HELLO, mode: 'watch', fresh: false, received: 123_456, attempt: 3 }].map((hello) => {
      const body = json(hello)
      return Buffer.concat([Uint8Array.of(body.length >> 8, body.length), body])
    }),
    tokens: JSON_TOKENS,
    maxBytes: 5000,
    sameLength: 0.6,
    async run(input, random) {
      // The length is mostly put right, so that what is inside gets read.
      if (input.length >= 2 && random.chance(0.7))
        Buffer.from(input.buffer, input.byteOffset).writeUInt16BE(input.length - 2)
      const [near, far] = duplexPair()
      for (const piece of cut(input, random)) if (piece.length > 0) near.write(piece)
      near.end()
      try {
        const hello = await readHello(far, never)
        assert.ok(hello.port.length > 0 && hello.port.length <= 64 && hello.resumeMs <= 600_000)
        return 'read'
      } catch (error) {
        assert.ok(error instanceof FarportError && error.code === 'ERR_PROTOCOL', String(error))
        return 'refused'
      } finally {
        near.destroy()
        far.destroy()
      }
    },
    reach: { read: 0.005, refused: 0.3 },
  }),
  RUNS,
)

fuzz(
  'a packet on the LAN',
  () => ({
    corpus: [
      encodeQuestion('734'),
      encodeAnswer('734', { peerId: PEER, addresses: ['/ip4/192.0.2.7/tcp/4001', '/dns4/a.example/tcp/1'] }),
      encodeGoodbye('734', PEER),
    ],
    tokens: [
      ...['_734', '_sub', '_farport', '_tcp', 'local', 'addr=', '/ip4/0.0.0.0/tcp/1', PEER],
      ...[
        [0xc0, 12],
        [0xc0, 0],
        [0, 12, 0, 1],
        [0, 16, 0x80, 1],
        [0, 41],
        [0, 47],
      ].map((t) => Uint8Array.from(t)),
    ],
    maxBytes: 9001,
    sameLength: 0.6,
    run(input) {
      const message = readMessage(input, '734')
      if (message?.type !== 'answer') return message?.type ?? 'nothing'
      for (const { peerId, addresses } of message.peers) {
        assert.equal(peerIdProblem(peerId), undefined)
        assert.ok(addresses.length >= 1 && addresses.length <= 8 && addresses.every(isLanAddress))
      }
      return message.peers.length === 0 ? 'of nobody' : 'of a peer'
    },
    reach: { nothing: 0.1, question: 0.002, 'of a peer': 0.01 },
  }),
  RUNS,
)

const bytesOf = (digits: string) => Buffer.from(digits.replaceAll(' ', ''), 'hex')
const TELNET = [
  'ff fd 2c ff fb 2c ff fb 00 ff fd 00',
  '41 42 ff ff 43 0d 00 ff f1',
  'ff fa 2c 01 00 01 c2 00 ff f0 ff fa 2c 02 08 ff f0 ff fa 2c 03 01 ff f0 ff fa 2c 04 01 ff f0',
  'ff fa 2c 05 08 ff f0 ff fa 2c 05 0b ff f0 ff fa 2c 0a ff ff ff f0 ff fa 2c 0c 03 ff f0',
  'ff fa 2c 65 00 01 c2 00 ff f0 ff fa 2c 69 08 ff f0 ff fa 2c 6b b0 ff f0 ff fa 2c 6a 10 ff f0',
  'ff fa 2c 00 66 61 72 ff f0 ff fa 2c 08 ff f0 ff fa 2c 09 ff f0 ff f3',
].map(bytesOf)
const TELNET_TOKENS = [
  'ff',
  'ff ff',
  'ff f0',
  'ff fa 2c',
  'ff fa',
  'ff fb 2c',
  'ff fd',
  'ff fe 2c',
  'ff fc 00',
].map(bytesOf)
/** Behind an open subnegotiation all is silence, which is as it should be. */
const talks = { heard: 0.5 }

/** What a decoder makes of the pieces, data joined, so that two ways to cut one input can be compared. */
function heardOf(pieces: readonly Uint8Array[]): string[] {
  const decoder = new TelnetDecoder()
  const heard: string[] = []
  let data = ''
  for (const piece of pieces)
    for (const event of decoder.push(piece)) {
      if (event.type === 'data') {
        data += Buffer.from(event.bytes).toString('latin1')
        continue
      }
      if (data !== '') heard.push(data)
      data = ''
      if (event.type === 'subnegotiation') assert.ok(event.payload.length <= MAX_SUBNEGOTIATION)
      heard.push(event.type)
    }
  return data === '' ? heard : [...heard, data]
}

fuzz(
  'the telnet decoder',
  () => ({
    corpus: TELNET,
    tokens: TELNET_TOKENS,
    run(input, random) {
      const heard = heardOf(cut(input, random))
      assert.deepEqual(heard.join('\n'), heardOf([input]).join('\n'))
      return heard.length > 0 ? 'heard' : 'nothing'
    },
    reach: talks,
  }),
  RUNS,
)

for (const side of ['server', 'client'] as const)
  fuzz(
    `what the RFC 2217 ${side} hears`,
    () => ({
      corpus: TELNET,
      tokens: TELNET_TOKENS,
      run(input, random) {
        const half = side === 'server' ? new Rfc2217Server({ signature: 'x' }) : new Rfc2217Client()
        half.start()
        let data = 0
        let said = 0
        let events = 0
        for (const piece of cut(input, random))
          for (const event of half.push(piece)) {
            events++
            if (event.type === 'data') data += event.bytes.length
            if (event.type === 'send') said += event.bytes.length
          }
        assert.ok(data <= input.length)
        // An answer is some bytes longer than its question, and never a flood.
        assert.ok(said <= 16 * input.length + MAX_SUBNEGOTIATION, `${said} bytes said`)
        return events > 0 ? 'heard' : 'nothing'
      },
      reach: talks,
    }),
    RUNS,
  )

fuzz(
  'the frames of a channel',
  () => ({
    corpus: [
      '01 000000000000 0004 41424344 03 000000000004 00010000',
      '04 00000001 05 00000001 02 000000000004 07 000000000002',
      '06 0003 616263',
      '01 0000ffffffff 0001 41',
    ].map(bytesOf),
    tokens: ['00', '01', '02', '03', '04', '05', '06', '07', 'ffff', '4000', '4001'].map(bytesOf),
    run(input, random) {
      const decoder = new FrameDecoder()
      let payload = 0
      try {
        for (const piece of cut(input, random))
          for (const frame of decoder.push(Buffer.from(piece)))
            if (frame.type === 'data') payload += frame.payload.length
      } catch (error) {
        assert.ok(error instanceof FrameError, String(error))
        return 'refused'
      }
      assert.ok(payload <= input.length)
      return 'read'
    },
    reach: { refused: 0.05, read: 0.1 },
  }),
  RUNS,
)
