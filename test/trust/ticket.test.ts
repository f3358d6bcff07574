import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bech32m } from '@scure/base'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { decodeTicket, encodeTicket, type Ticket } from '../../src/trust/ticket.ts'

/** fuzz.test.ts has the millions. */
const numRuns = 300

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'))
const counting = (from: number, length: number) => Uint8Array.from({ length }, (_, i) => from + i)
const peer = (from: number) => formatPeerId(counting(from, 32))

const EXPIRES = Date.UTC(2026, 10, 22, 14, 5)
const HEAD = {
  peerId: peer(0),
  inviteId: counting(0xa0, 8),
  secret: counting(0xb0, 16),
  expires: EXPIRES,
}
const BARE: Ticket = { ...HEAD, addresses: [] }
const FULL: Ticket = {
  ...HEAD,
  addresses: ['/ip4/192.0.2.7/tcp/4001', '/ip6/2001:db8::7/tcp/4001'],
  relay: `/dns4/relay.example.org/tcp/4001/p2p/${peer(0x40)}`,
}

/** The bytes of a ticket with these items, and its text however little sense they make. */
const HEAD_HEX =
  '6b02f68c 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f a0a1a2a3a4a5a6a7 b0b1b2b3b4b5b6b7b8b9babbbcbdbebf'
const textOf = (bytes: Uint8Array) => bech32m.encode('farport', bech32m.toWords(bytes), 1023).toUpperCase()
const withItems = (items: Uint8Array) =>
  textOf(Uint8Array.of(1, items.length, ...hex(HEAD_HEX), ...items.subarray(0, 255)))

const decode = (text: string, now = EXPIRES - 1) => decodeTicket(text, now)
function refusalOf(text: string, now?: number): string {
  try {
    decode(text, now)
  } catch (error) {
    assert.ok(error instanceof FarportError && error.code === 'ERR_USAGE', String(error))
    assert.equal(error.cause, undefined)
    return error.message
  }
  return 'accepted'
}

test('version 1 stays as it is', () => {
  // Both texts were made from the bytes by another implementation, written from the text of BIP 350.
  for (const [ticket, items, text] of [
    [
      BARE,
      '',
      'FARPORT1QYQXKQHK3SQQZQSRQSZSVPCGPY9QKRQDPC83QYGJZV2P29SHRQV35XCUR50PLG9P5236FFDX57CTRV4NKJ6MDDACHXATH09AH6LS7TAMU9',
    ],
    [
      FULL,
      '02 36 404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f 36 11 72656c61792e6578616d706c652e6f7267 06 0fa1' +
        '01 08 04 c0000207 06 0fa1 01 14 29 20010db8000000000000000000000007 06 0fa1',
      'FARPORT1Q9VXKQHK3SQQZQSRQSZSVPCGPY9QKRQDPC83QYGJZV2P29SHRQV35XCUR50PLG9P5236FFDX57CTRV4NKJ6MDDACHXATH09AH6LSYDJQG9PYX3Z9GER5SJ22FDXY6NJ02PG4Y56524T9WKZETFD4CH27TUMPZUN9D3SHJTN90PSK6URVV5HX7UN8QC86ZQGGQNQQQQS8QC86ZQG59YSQZRDCQQQQQQQQQQQQQQQQQQRSVRAPVMYDSS',
    ],
  ] as const) {
    assert.equal(encodeTicket(ticket), text)
    assert.equal(withItems(hex(items)), text)
    assert.deepEqual(decode(text), ticket)
  }
})

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const peerId = bytes(32).map(formatPeerId)
const port = fc.integer({ min: 1, max: 65535 })
const name = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,9}(\.[a-z0-9]{1,9}){0,2}$/)
const ip6 = fc
  .array(fc.integer({ min: 0x1000, max: 0xffff }), { minLength: 8, maxLength: 8 })
  .map((words) => words.map((word) => word.toString(16)).join(':'))
const address = fc.oneof(
  fc.tuple(fc.ipV4(), port).map(([host, port]) => `/ip4/${host}/tcp/${port}`),
  fc.tuple(ip6, port).map(([host, port]) => `/ip6/${host}/tcp/${port}`),
  fc
    .tuple(fc.constantFrom('dns', 'dns4', 'dns6'), name, port)
    .map(([dns, host, port]) => `/${dns}/${host}/tcp/${port}`),
)
const ticket: fc.Arbitrary<Ticket> = fc.record(
  {
    peerId,
    addresses: fc.array(address, { maxLength: 5 }),
    relay: fc.tuple(address, peerId).map(([address, id]) => `${address}/p2p/${id}`),
    inviteId: bytes(8),
    secret: bytes(16),
    expires: fc.integer({ min: 1, max: 2 ** 32 - 1 }).map((seconds) => seconds * 1000),
  },
  { requiredKeys: ['peerId', 'addresses', 'inviteId', 'secret', 'expires'], noNullPrototype: true },
)

test('what is written is read again', () => {
  fc.assert(
    fc.property(ticket, (ticket) => {
      const text = encodeTicket(ticket)
      assert.match(text, /^FARPORT1[02-9AC-HJ-NP-Z]{106,514}$/)
      assert.deepEqual(decode(text, ticket.expires - 1), ticket)
    }),
  )
})

test('an expiry is cut to whole seconds, and an address loses the PeerID it leads to', () => {
  const addresses = [`/ip4/192.0.2.7/tcp/4001/p2p/${HEAD.peerId}`]
  assert.deepEqual(decode(encodeTicket({ ...HEAD, addresses, expires: EXPIRES + 999 })), {
    ...HEAD,
    addresses: ['/ip4/192.0.2.7/tcp/4001'],
  })
})

test('secret and invite id share no memory with anything else, so that they can be zeroed', () => {
  const { secret, inviteId } = decode(encodeTicket(FULL))
  assert.deepEqual([secret.buffer.byteLength, inviteId.buffer.byteLength], [16, 8])
  const given = { ...FULL, secret: counting(1, 16) }
  encodeTicket(given)
  assert.deepEqual(given.secret, counting(1, 16))
})

test('survives what mail and chat programs do to text', () => {
  const text = encodeTicket(FULL)
  const wrapped = text.match(/.{1,40}/g) ?? []
  for (const sent of [
    text.toLowerCase(),
    ` ${text}\r\n`,
    `"${text}"`,
    `\`\`\`\n${text}\n\`\`\``,
    `Here is the ticket: ${text}.`,
    `FARPORT1: ${text}`,
    `${text}\n${text}`,
    wrapped.join('\n'),
    wrapped.map((line) => `> ${line}`).join('\r\n'),
    wrapped.join('-'),
    wrapped.join(' \u2013 '),
    wrapped.join('\u200b'),
    wrapped.join('\u00ad\u00a0'),
    wrapped.join('*'),
    text.replace(/[A-Z0-9]/g, (c) => String.fromCharCode(c.charCodeAt(0) + 0xfee0)),
  ])
    assert.deepEqual(decode(sent), FULL, sent)
})

const LONG = encodeTicket({
  ...FULL,
  addresses: Array.from({ length: 8 }, (_, i) => `/ip6/2001:db8::${i + 1}/tcp/4001`),
})
const replaced = (text: string, at: number, by: string) => text.slice(0, at) + by + text.slice(at + by.length)

test('every single wrong character is noticed', () => {
  const text = encodeTicket(FULL)
  for (let at = 0; at < text.length; at++)
    for (const c of 'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789- ')
      if (c !== text[at]) assert.notEqual(refusalOf(replaced(text, at, c)), 'accepted', `${c} at ${at}`)
  for (let at = 0; at < LONG.length; at++) {
    const other = LONG[at] === 'Q' ? 'P' : 'Q'
    assert.notEqual(refusalOf(replaced(LONG, at, other)), 'accepted', `${at} of the long one`)
  }
})

test('two neighbours that changed places are noticed', () => {
  for (const text of [encodeTicket(BARE), encodeTicket(FULL), LONG])
    for (let at = 0; at + 1 < text.length; at++) {
      const [a = '', b = ''] = text.slice(at, at + 2)
      if (a !== b) assert.notEqual(refusalOf(replaced(text, at, b + a)), 'accepted', `at ${at}`)
    }
})

test('up to three wrong characters anywhere, and any six in a row, are noticed', () => {
  const symbol = fc.constantFrom(...'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L')
  const start = 'FARPORT1'.length
  const at = fc.integer({ min: start, max: LONG.length - 1 })
  const few = fc.array(fc.tuple(at, symbol), { minLength: 1, maxLength: 3 })
  const burst = fc
    .tuple(fc.integer({ min: start, max: LONG.length - 6 }), fc.array(symbol, { minLength: 6, maxLength: 6 }))
    .map(([at, symbols]) => symbols.map((symbol, i): [number, string] => [at + i, symbol]))
  fc.assert(
    fc.property(fc.oneof(few, burst), (errors) => {
      const damaged = errors.reduce((text, [at, symbol]) => replaced(text, at, symbol), LONG)
      fc.pre(damaged !== LONG)
      assert.notEqual(refusalOf(damaged), 'accepted')
    }),
    { numRuns: 2 * numRuns },
  )
})

test('a ticket without its end, or with more behind it, is told from a mistyped one', () => {
  for (const text of [encodeTicket(BARE), encodeTicket(FULL), LONG])
    for (let length = 0; length < text.length; length++) {
      assert.match(
        refusalOf(text.slice(0, length)),
        length === 0 ? /there is no ticket/ : /cut off at its end/,
      )
      assert.match(refusalOf(text.slice(text.length - length)), /no ticket|not a ticket/)
    }
  assert.match(refusalOf(`${encodeTicket(FULL)}, good till noon`), /stuck to the end/)
  assert.match(refusalOf(replaced(encodeTicket(FULL), 100, 'QQQQ')), /mistyped or damaged/)
})

test('expires at its instant, and says by which clock', () => {
  const text = encodeTicket(FULL)
  assert.deepEqual(decode(text, EXPIRES - 1), FULL)
  assert.match(
    refusalOf(text, EXPIRES),
    /until 2026-11-22 14:05 UTC, and the clock here says 2026-11-22 14:05/,
  )
})

test('what is no ticket gets a sentence of its own', () => {
  for (const [text, says] of [
    ['', /there is no ticket/],
    ['--- \n', /there is no ticket/],
    ['hello', /a ticket begins with FARPORT1/],
    ['734-lunar-maple-copper', /not a ticket/],
    [HEAD.peerId, /is a PeerID/],
    [FULL.relay ?? '', /is an address/],
    ['FARPORT2QQQQ', /a ticket begins with FARPORT1/],
    [bech32m.encode('bc', bech32m.toWords(counting(0, 20))), /a ticket begins with FARPORT1/],
    ['F'.repeat(1025), /too long/],
    [`${encodeTicket(FULL)}${' '.repeat(1024)}`, /too long/],
  ] as const)
    assert.match(refusalOf(text), says, text)
})

test('what a newer farport adds is skipped, or asks for an update', () => {
  const port = '06 0fa1'
  const ok = `01 08 04 c0000207 ${port}`
  const key = Buffer.from(counting(0x40, 32)).toString('hex')
  const ADDRESS = '/ip4/192.0.2.7/tcp/4001'
  for (const [what, items, expected] of [
    ['an unknown kind', `7f 03 010203 ${ok} 00 00 03 00`, { addresses: [ADDRESS] }],
    ['an unknown kind that matters', `${ok} 80 00`, /update it/],
    ['an unknown kind that matters', 'ff 01 00', /update it/],
    ['an unknown transport', `01 06 04 c0000207 37 ${ok}`, { addresses: [ADDRESS] }],
    ['udp', `01 09 04 c0000207 9102 0fa1 ${ok}`, { addresses: [ADDRESS] }],
    ['more behind tcp', `01 0a 04 c0000207 ${port} dd03 ${ok}`, { addresses: [ADDRESS] }],
    ['port 0', `01 08 04 c0000207 06 0000 ${ok}`, { addresses: [ADDRESS] }],
    ['no address', `01 00 ${ok}`, { addresses: [ADDRESS] }],
    ['an address cut short', `01 07 04 c0000207 06 0f`, { addresses: [] }],
    ['a name cut short', `01 05 36 ff 616263`, { addresses: [] }],
    ['a slash in a name', `01 08 36 03 612f62 ${port}`, { addresses: [] }],
    ['a line break in a name', `01 08 36 03 610a62 ${port}`, { addresses: [] }],
    ['a name that is no UTF-8', `01 07 36 02 ff61 ${port}`, { addresses: [] }],
    ['a relay of an unknown form', `02 21 ${key} ff`, { addresses: [] }],
    ['a relay without its key', '02 1f 00112233', /makes no sense/],
    ['two relays', `02 28 ${key} 04 c0000207 ${port}`.repeat(2), /makes no sense/],
    ['nine addresses', ok.repeat(9), /makes no sense/],
    ['an item cut short', `${ok} 01`, /makes no sense/],
    ['an item cut short', `${ok} 01 08 04`, /makes no sense/],
  ] as const) {
    const text = withItems(hex(items))
    if (expected instanceof RegExp) assert.match(refusalOf(text), expected, what)
    else assert.deepEqual(decode(text), { ...HEAD, ...expected }, what)
  }
  const body = hex(HEAD_HEX)
  assert.match(refusalOf(textOf(Uint8Array.of(2, 0, ...body))), /another version/)
  assert.match(refusalOf(textOf(Uint8Array.of(2))), /another version/)
  assert.match(refusalOf(textOf(Uint8Array.of(2, ...new Uint8Array(600)))), /another version/)
  assert.match(refusalOf(bech32m.encode('farport', [0, 4, 0, 1], 1023)), /cut off/)
})

test('nothing that can not be dialled gets into a ticket', () => {
  const id = HEAD.peerId
  for (const [fields, says] of [
    [{ addresses: ['192.0.2.7:4001'] }, /192\.0\.2\.7:4001 can't be in a ticket/],
    [{ addresses: ['/ip4/192.0.2.7'] }, /can't be in a ticket/],
    [{ addresses: ['/ip4/192.0.2.7/tcp/0'] }, /can't be in a ticket/],
    [{ addresses: ['/ip4/192.0.2.7/udp/4001/quic-v1'] }, /can't be in a ticket/],
    [{ addresses: ['/ip6zone/eth0/ip6/fe80::1/tcp/4001'] }, /can't be in a ticket/],
    [{ addresses: ['/dns4/a%b/tcp/4001'] }, /can't be in a ticket/],
    [{ addresses: ['/dns4/bücher.example/tcp/4001'] }, /can't be in a ticket/],
    [{ addresses: [''] }, /can't be in a ticket/],
    [{ addresses: [`/ip4/192.0.2.7/tcp/4001/p2p/${peer(0x40)}`] }, /another peer/],
    [{ addresses: [`${FULL.relay}/p2p-circuit/p2p/${id}`] }, /can't be in a ticket/],
    [{ relay: '/dns4/relay.example.org/tcp/4001' }, /does not name the relay/],
    [{ relay: '/dns4/relay.example.org/tcp/4001/p2p/QmYyQSo1c1Ym7or' }, /does not name the relay/],
    [{ relay: `${FULL.relay}/p2p-circuit` }, /does not name the relay/],
    [{ relay: `/tcp/4001/p2p/${id}` }, /can't be in a ticket/],
    [{ addresses: Array(9).fill('/ip4/192.0.2.7/tcp/4001') }, /8 addresses/],
    [{ addresses: Array(4).fill(`/dns4/${'a'.repeat(60)}.example/tcp/4001`) }, /too long for a ticket/],
    [{ addresses: [`/dns4/${'a'.repeat(500_000)}/tcp/4001`] }, /too long for a ticket/],
  ] as const)
    assert.throws(() => encodeTicket({ ...HEAD, addresses: [], ...fields }), {
      code: 'ERR_USAGE',
      message: says,
    })
  for (const fields of [
    { inviteId: new Uint8Array(7) },
    { secret: new Uint8Array(32) },
    { expires: -1 },
    { expires: 2 ** 32 * 1000 },
    { expires: Number.NaN },
    { peerId: 'anna' },
  ])
    assert.throws(() => encodeTicket({ ...BARE, ...fields }), RangeError)
})

test('hostile items give a ticket whose addresses are plain, or the one error', () => {
  const item = fc
    .tuple(fc.constantFrom(1, 2, 3, 0x80), fc.uint8Array({ maxLength: 60 }))
    .map(([kind, value]) => [kind, value.length, ...value])
  const almost = fc
    .tuple(fc.constantFrom([4, 192, 0, 2, 7], [0x36, 3], [0x36, 200]), fc.uint8Array({ maxLength: 8 }))
    .map(([host, rest]) => [1, host.length + rest.length, ...host, ...rest])
  const items = fc.oneof(
    fc.uint8Array({ maxLength: 255 }),
    fc.array(fc.oneof(item, almost), { maxLength: 4 }).map((list) => Uint8Array.from(list.flat())),
  )
  fc.assert(
    fc.property(items, (items) => {
      const text = withItems(items)
      if (refusalOf(text) !== 'accepted') return
      const { addresses, relay } = decode(text)
      for (const address of [...addresses, ...(relay === undefined ? [] : [relay])])
        assert.match(address, /^\/(ip4|ip6|dns[46]?)\/[\w.:-]+\/tcp\/\d+(\/p2p\/12D3KooW\w{44})?$/)
      // What was taken can be passed on, so nothing of it was read past its end.
      assert.deepEqual(decode(encodeTicket(decode(text))), decode(text))
    }),
    { numRuns: 3 * numRuns },
  )
})

test('no text does more than be refused, and no refusal quotes it', () => {
  const text = encodeTicket(FULL)
  const mangled = fc
    .tuple(fc.nat(text.length), fc.nat(8), fc.string({ unit: 'binary', maxLength: 8 }))
    .map(([at, remove, insert]) => text.slice(0, at) + insert + text.slice(at + remove))
  const start = fc.string({ unit: 'binary', maxLength: 300 }).map((rest) => `farport1${rest}`)
  fc.assert(
    fc.property(fc.oneof(mangled, start, fc.string({ unit: 'binary', maxLength: 1100 })), (text) => {
      const refusal = refusalOf(text)
      const pasted = text.toUpperCase().replaceAll('FARPORT1', ' ')
      for (let at = 0; at + 8 <= pasted.length; at++)
        assert.ok(!refusal.toUpperCase().includes(pasted.slice(at, at + 8)), refusal)
    }),
    { numRuns },
  )
})
