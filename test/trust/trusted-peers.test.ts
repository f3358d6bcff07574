import assert from 'node:assert/strict'
import { test } from 'node:test'
import { multiaddr } from '@multiformats/multiaddr'
import fc from 'fast-check'
import { RIGHTS, rightsOn, withImplied } from '../../src/trust/grants.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { formatTrustedPeer, parseTrustedPeers, type TrustedPeer } from '../../src/trust/trusted-peers.ts'

const idOf = (n: number) => formatPeerId(new Uint8Array(32).fill(n))
const [ANNA, WALL, WORKSHOP, RELAY] = [idOf(1), idOf(2), idOf(3), idOf(4)]

/** The one problem of a text that has one, and no peer. */
function problemOf(text: string): string {
  const { peers, problems } = parseTrustedPeers(text)
  assert.deepEqual(peers, [], text)
  assert.equal(problems.length, 1, text)
  return problems[0]?.sentence ?? ''
}

/** The one peer of a text without problems. */
function peerOf(text: string): TrustedPeer {
  const { peers, problems } = parseTrustedPeers(text)
  assert.deepEqual(problems, [])
  const [peer, ...others] = peers
  assert.ok(peer !== undefined && others.length === 0)
  return peer
}

test('reads a file as people write it', () => {
  const text = [
    '\uFEFF# name  peer id  options',
    '',
    ` anna-laptop\t${ANNA}  ports=gps,plc-*\tmay=use,lines,relay   # the blue one`,
    `wall ${WALL} ports=* may=watch expires=2027-06-30`,
    '   \t # nothing here',
    `workshop ${WORKSHOP} addr=/dns4/relay.example.org/tcp/4001/p2p/${RELAY}/p2p-circuit,/ip6/fd00::1/tcp/4001`,
    `plain ${RELAY} ports=plc`,
  ].join('\r\n')
  assert.deepEqual(parseTrustedPeers(text), {
    peers: [
      {
        name: 'anna-laptop',
        peerId: ANNA,
        ports: ['gps', 'plc-*'],
        may: ['watch', 'use', 'lines', 'relay'],
        addrs: [],
      },
      {
        name: 'wall',
        peerId: WALL,
        ports: ['*'],
        may: ['watch'],
        addrs: [],
        expires: Date.parse('2027-07-01T00:00:00Z'),
      },
      {
        name: 'workshop',
        peerId: WORKSHOP,
        ports: [],
        may: [],
        addrs: [`/dns4/relay.example.org/tcp/4001/p2p/${RELAY}/p2p-circuit`, '/ip6/fd00::1/tcp/4001'],
      },
      {
        name: 'plain',
        peerId: RELAY,
        ports: ['plc'],
        may: ['watch', 'use', 'configure', 'lines'],
        addrs: [],
      },
    ],
    problems: [],
  })
})

test('a line that is not understood whole is refused, says why, and leaves the others alone', () => {
  const refusals: [line: string, says: RegExp][] = [
    ['mallory', /no PeerID behind the name "mallory"/],
    [`mallory ports=* ${ANNA}`, /"ports=\*"/],
    [`${ANNA}`, /looks like a PeerID/],
    [`mallory/x ${ANNA}`, /the name "mallory\/x" can't be used/],
    [`.. ${ANNA} ports=*`, /the name "\.\."/],
    [`--help ${ANNA} ports=*`, /the name "--help"/],
    [`${'m'.repeat(65)} ${ANNA}`, /can't be used/],
    [`mallory ${ANNA.slice(1)} ports=*`, /begin with 12D3KooW/],
    [`mallory ${ANNA} ports`, /"ports" is not an option/],
    [`mallory ${ANNA} ports= may=use`, /the port ""/],
    [`mallory ${ANNA} ports=gps, plc`, /"plc" is not an option: .* no spaces/],
    [`mallory ${ANNA} ports=gps,,plc`, /the port ""/],
    [`mallory ${ANNA} ports=gps/../plc`, /the port "gps\/\.\.\/plc"/],
    [`mallory ${ANNA} ports=[a-z]`, /the port/],
    [`mallory ${ANNA} ports=${'x'.repeat(65)}`, /the port/],
    [`mallory ${ANNA} PORTS=*`, /the option "PORTS" is unknown/],
    [`mallory ${ANNA} ports=* prots=x`, /the option "prots" is unknown/],
    [`mallory ${ANNA} ports=* constructor=x`, /the option "constructor" is unknown/],
    [`mallory ${ANNA} ports=* ports=gps`, /the option "ports" is there twice/],
    [`mallory ${ANNA} ports=* may=`, /the right ""/],
    [`mallory ${ANNA} ports=* may=use,wacth`, /the right "wacth" is unknown/],
    [`mallory ${ANNA} ports=* may=Use`, /the right "Use" is unknown/],
    [`mallory ${ANNA} ports=* expires=`, /"" is not a date/],
    [`mallory ${ANNA} ports=* expires=2027-02-30`, /not a date/],
    [`mallory ${ANNA} ports=* expires=2027-02-30T12:00Z`, /not a date/],
    [`mallory ${ANNA} ports=* expires=30.06.2027`, /not a date/],
    [`mallory ${ANNA} ports=* expires=2027-06-30T12:00`, /with its zone/],
    [`mallory ${ANNA} ports=* expires=2027-06-30T25:00Z`, /not a time/],
    [`mallory ${ANNA} ports=* expires=1969-06-30`, /not a time/],
    [`mallory ${ANNA} ports=* expires=9999-12-31T23:59-12:00`, /not a time/],
    [`mallory ${ANNA} addr=`, /address "" is not a multiaddr/],
    [`mallory ${ANNA} addr=example.org:4001`, /not a multiaddr/],
    [`mallory ${ANNA} addr=/ip4/300.0.0.1/tcp/1`, /not a multiaddr/],
    [`mallory ${ANNA} addr=/dns4/caf\u00e9.example/tcp/1`, /not a multiaddr/],
    [`mallory ${ANNA} addr=/p2p/${ANNA}`, /does not begin with a host/],
    [`mallory ${ANNA} addr=/`, /does not begin with a host/],
    [`mallory ${ANNA} addr=/ip4/10.0.0.1/tcp/1/p2p/${WALL}`, /leads to another peer/],
    [`mallory ${ANNA} addr=/ip4/10.0.0.1/tcp/1/p2p/${RELAY}/p2p-circuit/p2p/${WALL}`, /another peer/],
    [`mallory ${ANNA} addr=/ip4/10.0.0.1/tcp/1/p2p-circuit`, /does not name its relay/],
    [`mallory ${ANNA} addr=/ip4/10.0.0.1/tcp/1/p2p/12D3KooWx/p2p-circuit`, /9 characters/],
    [`mallory ${ANNA} next=`, /the next PeerID "" is empty/],
    [`mallory ${ANNA} next=anna ports=*`, /the next PeerID "anna" .*begin with 12D3KooW/],
    [`mallory ${ANNA} next=${WORKSHOP},${ANNA}`, /the next PeerID .* at position 53/],
    [`mallory ${ANNA} next=${WORKSHOP.slice(0, -1)}`, /51 characters/],
    [`mallory ${ANNA} next=${ANNA}`, /next PeerID of "mallory" is already in line/],
    [`mallory ${ANNA} next=${WORKSHOP} next=${WORKSHOP}`, /next PeerID of "mallory" is already in line/],
    [`mallory ${ANNA} next=${WORKSHOP} NEXT=${ANNA}`, /the option "NEXT" is unknown/],
    [`mallory ${ANNA} ports=* ${'\t'.repeat(4096)}may=watch`, /more than 4096/],
    [`mallory ${ANNA} ports=*\u00a0may=watch`, /the port "\*\\u\{a0\}may=watch"/],
    [`mallory ${ANNA} ports=* may=watch\r expires=2020-01-01`, /the right "watch\\r"/],
  ]
  for (const [line, says] of refusals) {
    assert.match(problemOf(line), says, line)
    const { peers, problems } = parseTrustedPeers(`wall ${WALL} ports=*\n${line}\nlast ${RELAY}\n`)
    assert.deepEqual([peers.map(({ name }) => name), problems.map((p) => p.line)], [['wall', 'last'], [2]])
  }
})

test('the addresses of a peer may name it, and relays before it', () => {
  for (const addr of [
    '/ip4/10.0.0.1/tcp/4001',
    `/ip4/10.0.0.1/tcp/4001/p2p/${ANNA}`,
    `/dns4/r.example/tcp/4001/p2p/${RELAY}/p2p-circuit`,
    `/dns/r.example/tcp/4001/p2p/${RELAY}/p2p-circuit/p2p/${ANNA}`,
    '/ip6zone/eth0/ip6/fe80::1/tcp/4001',
  ])
    assert.deepEqual(peerOf(`anna ${ANNA} addr=${addr}`).addrs, [addr])
})

test('an expiry names a day to its end in UTC, or an instant', () => {
  const expiresOf = (text: string) => peerOf(`anna ${ANNA} expires=${text}`).expires
  assert.equal(expiresOf('2024-02-29'), Date.UTC(2024, 2, 1))
  assert.equal(expiresOf('9999-12-31'), Date.UTC(10000, 0, 1))
  assert.equal(expiresOf('2027-06-30T12:00Z'), Date.UTC(2027, 5, 30, 12))
  assert.equal(expiresOf('2027-06-30T12:00:30.250+02:00'), Date.UTC(2027, 5, 30, 10, 0, 30, 250))
})

test('a next PeerID belongs to its line as the PeerID does, also when that line is refused', () => {
  const [next, other] = [idOf(5), idOf(6)]
  assert.equal(peerOf(`anna ${ANNA} ports=gps next=${next}`).next, next)
  for (const [first, second, says] of [
    [`anna ${ANNA} next=${next}`, `wall ${next} ports=*`, /PeerID of "wall" is already in line 1/],
    [`anna ${ANNA} next=${next} may=all`, `wall ${next} ports=*`, /PeerID of "wall" is already in line 1/],
    [`anna nobody next=${next}`, `wall ${next} ports=*`, /PeerID of "wall" is already in line 1/],
    [`wall ${next} ports=gps`, `anna ${ANNA} next=${next}`, /next PeerID of "anna" is already in line 1/],
    [`wall ${WALL} next=${next}`, `anna ${ANNA} next=${next}`, /next PeerID of "anna" is already in line 1/],
  ] as const) {
    const { peers, problems } = parseTrustedPeers(`${first}\n${second}\nlast ${other}`)
    assert.match(problems.find(({ line }) => line === 2)?.sentence ?? '', says)
    assert.ok(!peers.some(({ name }) => second.startsWith(name)), second)
    assert.equal(peers.at(-1)?.name, 'last')
  }
  // Either key revoked refuses the line.
  for (const revoked of [ANNA, next]) {
    const why = (peerId: string) => (peerId === revoked ? 'no' : undefined)
    assert.deepEqual(parseTrustedPeers(`anna ${ANNA} next=${next}`, why).problems, [
      { line: 1, sentence: 'no' },
    ])
  }
})

test('a second line for a name or PeerID is refused, also when the first one was', () => {
  for (const first of [`anna ${ANNA} ports=gps`, `anna ${ANNA} ports=gps may=wacth`]) {
    const names = (text: string) => parseTrustedPeers(text).peers.map(({ name }) => name)
    assert.ok(!names(`${first}\nother ${ANNA} ports=*`).includes('other'))
    assert.equal(
      parseTrustedPeers(`${first}\nanna ${WALL} ports=*`).peers.some((p) => p.peerId === WALL),
      false,
    )
    assert.match(
      parseTrustedPeers(`${first}\nother ${ANNA} ports=*`).problems.at(-1)?.sentence ?? '',
      /line 1/,
    )
  }
  const badName = parseTrustedPeers(`an/na ${ANNA} ports=gps may=watch\nanna ${ANNA} ports=*`)
  assert.deepEqual(badName.peers, [])
})

test('the caps: a longer file gives nothing, further lines give nothing', () => {
  const line = `anna ${ANNA} ports=*\n`
  assert.equal(parseTrustedPeers(line + '#'.repeat(1024 * 1024 - line.length)).peers.length, 1)
  assert.deepEqual(parseTrustedPeers(line + '#'.repeat(1024 * 1024)).peers, [])

  const full = '\n'.repeat(9_999)
  assert.deepEqual(parseTrustedPeers(full + line).problems, [])
  const over = parseTrustedPeers(`${full}wall ${WALL}\n${line}${line}`)
  assert.deepEqual(
    [over.peers.map(({ name }) => name), over.problems.map((p) => p.line)],
    [['wall'], [10_001]],
  )
})

test('sentences are short and safe on a terminal, whatever the file holds', () => {
  assert.match(problemOf(`\u001b[31mred ${ANNA}`), /"\\u001b\[31mred"/)
  assert.match(problemOf(`anna ${ANNA} \u202eports=*`), /\\u\{202e\}/)
  assert.match(problemOf(`\u0430nna ${ANNA}`), /"\\u\{430\}nna"/)
  const pasted = 'MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g'
  assert.ok(
    !problemOf(pasted).includes(pasted.slice(0, 30)),
    'a key pasted here by mistake is not quoted whole',
  )
})

// Near enough to the real thing to come past the first checks, mixed with what is not.
const word = fc.constantFrom(
  ...[
    'anna',
    'wall',
    ANNA,
    WALL,
    `${ANNA}x`,
    '#',
    '\r',
    '\n',
    '\t',
    ' ',
    '=',
    ',',
    '*',
    '/',
    '\u0000',
    '\u202e',
    '\ud800',
  ],
  ...[
    'ports=',
    'may=',
    'expires=',
    'addr=',
    'next=',
    'use',
    'watch',
    'relay',
    'gps',
    'plc-*',
    '2027-06-30',
    'T12:00Z',
  ],
  ...['/ip4/10.0.0.1/tcp/1', '/p2p/', '/p2p-circuit', '/dns4/', '/unix/', '/onion/', '/ip6/::1', '__proto__'],
)
const hostile = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.array(fc.oneof(word, fc.string({ maxLength: 3 })), { maxLength: 40 }).map((words) => words.join('')),
  fc.array(word, { maxLength: 40 }).map((words) => words.join(' ')),
)

test('hostile text gives peers and problems, never an error', () => {
  fc.assert(
    fc.property(hostile, (text) => {
      const { peers, problems } = parseTrustedPeers(text)
      for (const { sentence } of problems) {
        assert.match(sentence, /^[\x20-\x7e…]+$/)
        assert.ok(sentence.length < 500)
      }
      for (const { addrs } of peers) for (const addr of addrs) multiaddr(addr)
    }),
    { numRuns: 2000 },
  )
})

test('each line is a peer, a problem or nothing: what is refused does not grant', () => {
  fc.assert(
    fc.property(fc.array(hostile, { maxLength: 5 }), (texts) => {
      const lines = texts.join('\n').split('\n')
      const { peers, problems } = parseTrustedPeers(lines.join('\n'))
      const refused = new Set(problems.map(({ line }) => line))
      const kept = lines.map((line, i) => (refused.has(i + 1) ? '' : line)).join('\n')
      assert.deepEqual(parseTrustedPeers(kept), { peers, problems: [] })
    }),
    { numRuns: 500 },
  )
})

const date = fc.integer({ min: 0, max: Date.UTC(10000, 0, 1) })
const midnight = fc
  .integer({ min: 0, max: Date.UTC(10000, 0, 1) / 86_400_000 })
  .map((day) => day * 86_400_000)
const some = fc
  .record({
    name: fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/),
    ports: fc.array(fc.stringMatching(/^[A-Za-z0-9._*?-]{1,64}$/), { maxLength: 4 }),
    may: fc.subarray([...RIGHTS]),
    expires: fc.option(fc.oneof(date, midnight), { nil: undefined }),
    addrs: fc.subarray([
      '/ip4/10.0.0.1/tcp/4001',
      `/dns4/relay.example.org/tcp/4001/p2p/${RELAY}/p2p-circuit`,
      `/ip6/fd00::1/tcp/4001/p2p/${ANNA}`,
    ]),
    next: fc.option(fc.constantFrom(WALL, WORKSHOP), { nil: undefined }),
  })
  .map(({ expires, may, ports, next, ...rest }): TrustedPeer => {
    // Ports with no right at all is the one thing no line says.
    const rights = withImplied(may.length === 0 && ports.length > 0 ? ['watch'] : may)
    return {
      ...{ ...rest, peerId: ANNA, ports, may: rights },
      ...(expires !== undefined && { expires }),
      ...(next !== undefined && { next }),
    }
  })

test('a formatted peer reads back as it was', () => {
  fc.assert(
    fc.property(some, (peer) => {
      const line = formatTrustedPeer(peer)
      assert.doesNotMatch(line, /[^\x20-\x7e]/)
      assert.deepEqual(parseTrustedPeers(line), { peers: [peer], problems: [] })
    }),
  )
})

test('a refused option never leaves the rest of its line in force', () => {
  const bad = fc.constantFrom(
    'x',
    'prots=gps',
    'may=none',
    'expires=never',
    'addr=here',
    'ports=a/b',
    'next=x',
  )
  fc.assert(
    fc.property(some, bad, (peer, option) => {
      const { peers, problems } = parseTrustedPeers(`${formatTrustedPeer(peer)} ${option}`)
      assert.deepEqual([peers, problems.length], [[], 1])
    }),
  )
})

test('the defaults are written short', () => {
  const line = `anna ${ANNA} ports=gps`
  assert.equal(formatTrustedPeer(peerOf(`${line} may=lines,configure,use,watch`)), line)
  assert.equal(formatTrustedPeer(peerOf(`anna ${ANNA} ports=gps may=watch,steal`)), `${line} may=steal`)
  assert.equal(
    formatTrustedPeer(peerOf(`anna ${ANNA} expires=2027-06-30T24:00Z`)),
    `anna ${ANNA} expires=2027-06-30`,
  )
  assert.deepEqual([...rightsOn(peerOf(line), 'gps', 0)], ['watch', 'use', 'configure', 'lines'])
})
