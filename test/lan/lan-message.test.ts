import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Answer, encode } from '@dnsquery/dns-packet'
import fc from 'fast-check'
import {
  encodeAnswer,
  encodeGoodbye,
  encodeQuestion,
  isLanAddress,
  readMessage,
} from '../../src/lan/lan-message.ts'
import { formatPeerId, peerIdProblem } from '../../src/trust/peer-id.ts'

const ANNA = formatPeerId(new Uint8Array(32).fill(1))
const BERT = formatPeerId(new Uint8Array(32).fill(2))
const SUBTYPE = '_734._sub._farport._tcp.local'
const instance = (peerId: string) => `${peerId}._farport._tcp.local`
const pointer = (peerId: string, ttl = 120): Answer => ({
  type: 'PTR',
  name: SUBTYPE,
  ttl,
  data: instance(peerId),
})
const text = (peerId: string, ...data: string[]): Answer => ({
  type: 'TXT',
  name: instance(peerId),
  ttl: 120,
  data,
})

test('a question is these bytes', () => {
  const labels = ['_734', '_sub', '_farport', '_tcp', 'local']
  const name = labels.map((label) => String.fromCharCode(label.length) + label).join('')
  assert.equal(
    Buffer.from(encodeQuestion('734')).toString('hex'),
    `000000000001000000000000${Buffer.from(name).toString('hex')}00000c0001`,
  )
  assert.deepEqual(readMessage(encodeQuestion('734'), '734'), { type: 'question', known: [] })
  assert.equal(readMessage(encodeQuestion('734'), '735'), undefined)
})

test('a question may come with others, in capitals, and with those who need not answer', () => {
  const asked = encode({
    type: 'query',
    questions: [
      { type: 'PTR', name: '_ipp._tcp.local' },
      { type: 'PTR', name: SUBTYPE.toUpperCase() },
    ],
    answers: [pointer(ANNA, 60), pointer(BERT, 59)],
  })
  assert.deepEqual(readMessage(asked, '734'), { type: 'question', known: [ANNA] })
})

test('an answer carries the peer and its addresses', () => {
  const addresses = ['/ip4/192.0.2.7/tcp/4001', '/ip6/2001:db8::7/tcp/1', '/dns4/gate.example.org/tcp/65535']
  const bytes = encodeAnswer('734', { peerId: ANNA, addresses })
  assert.deepEqual(readMessage(bytes, '734'), { type: 'answer', peers: [{ peerId: ANNA, addresses }] })
  assert.equal(readMessage(bytes, '735'), undefined)
})

test('the longest answer fits into one Ethernet frame', () => {
  const host = `${'a'.repeat(50)}.${'b'.repeat(53)}`
  const addresses = Array.from({ length: 8 }, (_, k) => `/dns4/${host}/tcp/4001${k}`)
  assert.equal(isLanAddress(`/dns4/${host}b/tcp/65530`), false)
  for (const address of addresses) assert.equal(isLanAddress(address), true, address)
  const bytes = encodeAnswer('734', { peerId: ANNA, addresses })
  assert.ok(bytes.length <= 1500 - 28, `${bytes.length} bytes`)
})

test('a goodbye announces nobody', () => {
  assert.equal(readMessage(encodeGoodbye('734', ANNA), '734'), undefined)
})

const nobody: { name: string; answers: Answer[] }[] = [
  { name: 'without addresses', answers: [pointer(ANNA)] },
  { name: 'with addresses of another', answers: [pointer(ANNA), text(BERT, 'addr=/ip4/192.0.2.7/tcp/1')] },
  { name: 'with addresses that are none', answers: [pointer(ANNA), text(ANNA, 'addr=/unix/tmp/x', '', 'x')] },
  {
    name: 'whose PeerID is mistyped',
    answers: [pointer(`${ANNA.slice(0, -1)}!`), text(`${ANNA.slice(0, -1)}!`, 'addr=/ip4/192.0.2.7/tcp/1')],
  },
  {
    name: 'of another service',
    answers: [
      { type: 'PTR', name: SUBTYPE, ttl: 120, data: `${ANNA}._http._tcp.local` },
      text(ANNA, 'addr=/ip4/192.0.2.7/tcp/1'),
    ],
  },
]
for (const { name, answers } of nobody) {
  test(`a peer ${name} is not found`, () => {
    assert.equal(readMessage(encode({ type: 'response', answers }), '734'), undefined)
  })
}

test('of many addresses the first eight count, each once', () => {
  const many = Array.from({ length: 20 }, (_, k) => `addr=/ip4/192.0.2.${Math.floor(k / 2)}/tcp/4001`)
  const message = readMessage(
    encode({ type: 'response', answers: [pointer(ANNA), text(ANNA, ...many)] }),
    '734',
  )
  assert.deepEqual(message, {
    type: 'answer',
    peers: [{ peerId: ANNA, addresses: Array.from({ length: 8 }, (_, k) => `/ip4/192.0.2.${k}/tcp/4001`) }],
  })
})

test('a header that promises more than a packet can hold costs nothing', () => {
  const header = Buffer.alloc(12, 0xff)
  assert.equal(readMessage(header, '734'), undefined)
  const answer = encodeAnswer('734', { peerId: ANNA, addresses: ['/ip4/192.0.2.7/tcp/4001'] })
  assert.equal(readMessage(Buffer.concat([answer, Buffer.alloc(9000)]), '734'), undefined)
})

for (const address of [
  '/ip4/192.0.2.7/tcp/4001',
  '/ip4/127.0.0.1/tcp/1',
  '/ip4/169.254.3.4/tcp/65535',
  '/ip6/::1/tcp/4001',
  '/ip6/fd00::2/tcp/4001',
  '/dns/localhost/tcp/4001',
  '/dns4/a-b.example.org/tcp/4001',
  '/dns6/3com.example/tcp/4001',
])
  test(`${address} can be dialed`, () => assert.equal(isLanAddress(address), true))

for (const address of [
  '',
  '/ip4/192.0.2.7',
  '/ip4/192.0.2.7/udp/4001',
  '/ip4/192.0.2.7/tcp/0',
  '/ip4/192.0.2.7/tcp/65536',
  '/ip4/192.0.2.7/tcp/4001/ws',
  `/ip4/192.0.2.7/tcp/4001/p2p/${ANNA}`,
  `/ip4/192.0.2.7/tcp/4001/p2p/${ANNA}/p2p-circuit`,
  '/ip4/192.0.2.007/tcp/4001',
  '/ip4/192.0.2.256/tcp/4001',
  '/ip4/0.0.0.0/tcp/4001',
  '/ip4/224.0.0.251/tcp/4001',
  '/ip4/255.255.255.255/tcp/4001',
  '/ip6/192.0.2.7/tcp/4001',
  '/ip6/::/tcp/4001',
  '/ip6/::ffff:0.0.0.0/tcp/4001',
  '/ip6/fe80::1/tcp/4001',
  '/ip6/fe80::1%eth0/tcp/4001',
  '/ip6/ff02::fb/tcp/4001',
  '/dns4/127.1/tcp/4001',
  '/dns4/2130706433/tcp/4001',
  '/dns4/0x7f000001/tcp/4001',
  '/dns4/-a.example/tcp/4001',
  '/dns4/a..b/tcp/4001',
  '/dns4/a b/tcp/4001',
  '/dns4/a:b/tcp/4001',
  `/dns4/${'a'.repeat(64)}.example/tcp/4001`,
  `/dns4/${'a.'.repeat(60)}example/tcp/4001`,
  '/ip4/192.0.2.7/tcp/4001\n',
])
  test(`${JSON.stringify(address)} can't be dialed`, () => assert.equal(isLanAddress(address), false))

/** Whatever it was made from: an answer that has passed has nothing in it that could not be used. */
function check(bytes: Uint8Array): void {
  const message = readMessage(bytes, '734')
  if (message?.type !== 'answer') return
  assert.ok(message.peers.length <= 64)
  for (const { peerId, addresses } of message.peers) {
    assert.equal(peerIdProblem(peerId), undefined)
    assert.ok(addresses.length >= 1 && addresses.length <= 8)
    assert.ok(addresses.every(isLanAddress))
  }
}

test('any bytes are read without an error', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), check))
})

test('any records are read without an error', () => {
  const word = (value: number) => [value >> 8, value & 0xff]
  const record = fc
    .tuple(
      fc.constantFrom(1, 2, 12, 16, 28, 33, 41, 46, 47, 50, 257),
      fc.uint8Array({ maxLength: 60 }),
      fc.nat(70),
    )
    .map(([type, data, length]) => [0xc0, 12, ...word(type), 0, 1, 0, 0, 0, 120, ...word(length), ...data])
  fc.assert(
    fc.property(fc.boolean(), fc.array(record, { maxLength: 8 }), (query, records) => {
      const name = encodeQuestion('734').subarray(12)
      const header = [0, 0, query ? 0 : 0x84, 0, 0, 1, ...word(records.length), 0, 0, 0, 0]
      check(Uint8Array.from([...header, ...name, ...records.flat()]))
    }),
  )
})

test('a damaged answer is read without an error', () => {
  const answer = encodeAnswer('734', {
    peerId: ANNA,
    addresses: ['/ip4/192.0.2.7/tcp/4001', '/dns/a.b/tcp/2'],
  })
  const damage = fc.array(fc.tuple(fc.nat(answer.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 })
  fc.assert(
    fc.property(damage, fc.nat(answer.length), (damages, length) => {
      const bytes = Uint8Array.from(answer)
      for (const [at, value] of damages) bytes[at] = value
      check(bytes)
      check(bytes.subarray(0, length))
    }),
  )
})
