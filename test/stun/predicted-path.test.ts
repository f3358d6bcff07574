import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { NatReport, ProtocolReport } from '../../src/stun/nat-report.ts'
import { predictedPath, REACHES, reachOf } from '../../src/stun/predicted-path.ts'

const seen = {
  state: 'open',
  mapped: { address: '192.0.2.1', port: 4001 },
  portPreserved: true,
  rttMs: 40,
} as const
const nat: ProtocolReport = { ...seen, translated: true, mapping: 'endpoint-independent' }
const report = (tcp: ProtocolReport): NatReport => ({ udp: { state: 'blocked' }, tcp })

/** What natReport says of TCP behind each kind of router. */
const routers = {
  public: report({ ...seen, translated: false, mapping: 'endpoint-independent' }),
  fullcone: report({ ...nat, filtering: 'endpoint-independent' }),
  portrestricted: report({ ...nat, filtering: 'address-and-port-dependent' }),
  symmetric: report({ ...nat, mapping: 'address-and-port-dependent' }),
  udpblocked: report(nat),
  webonly: report({ state: 'blocked' }),
} satisfies Record<string, NatReport>
type Router = keyof typeof routers

/** Measured with a plain dial and a simultaneous open of TCP between network namespaces, each pair of routers. */
const matrix: [Router, Router, direct: boolean][] = [
  ['public', 'public', true],
  ['public', 'fullcone', true],
  ['public', 'portrestricted', true],
  ['public', 'symmetric', true],
  ['public', 'udpblocked', true],
  ['fullcone', 'fullcone', true],
  ['fullcone', 'portrestricted', true],
  ['fullcone', 'symmetric', true],
  ['fullcone', 'udpblocked', true],
  ['portrestricted', 'portrestricted', true],
  ['portrestricted', 'symmetric', false],
  ['portrestricted', 'udpblocked', true],
  ['symmetric', 'symmetric', false],
  ['symmetric', 'udpblocked', false],
  ['udpblocked', 'udpblocked', true],
  ['webonly', 'portrestricted', false],
  ['webonly', 'webonly', false],
]
for (const [a, b, direct] of matrix) {
  test(`${a} and ${b}: ${direct ? 'direct' : 'relayed'}`, () => {
    const path = predictedPath(reachOf(routers[a]), reachOf(routers[b]))
    assert.equal(path !== 'relay', direct)
  })
}

test('a dial is enough where one end is open; the table is the same from both ends', () => {
  for (const ours of REACHES)
    for (const theirs of REACHES) {
      const path = predictedPath(ours, theirs)
      assert.equal(path, predictedPath(theirs, ours))
      assert.equal(path === 'dial', [ours, theirs].includes('open') && ![ours, theirs].includes('closed'))
    }
})

test('a public address behind a firewall is not open', () => {
  const firewalled = report({
    ...seen,
    translated: false,
    mapping: 'endpoint-independent',
    filtering: 'address-and-port-dependent',
  })
  assert.equal(reachOf(firewalled), 'punchable')
  // All that a relay with one address can find out of an open one.
  const open = report({
    ...seen,
    translated: false,
    mapping: 'endpoint-independent',
    filtering: 'address-dependent',
  })
  assert.equal(reachOf(open), 'open')
})
