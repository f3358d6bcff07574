import assert from 'node:assert/strict'
import { test } from 'node:test'
import { natFindings, predictedPaths } from '../../src/daemon/nat-findings.ts'
import type { NatReport, ProtocolReport } from '../../src/stun/nat-report.ts'

const seen: ProtocolReport & { state: 'open' } = {
  state: 'open',
  mapped: { address: '192.0.2.7', port: 40_000 },
  translated: true,
  mapping: 'endpoint-independent',
  portPreserved: true,
  filtering: 'address-and-port-dependent',
  rttMs: 20,
}
const blocked: ProtocolReport = { state: 'blocked' }

function texts(nat: NatReport): string[] {
  return natFindings(nat).map(({ about, verdict, text }) => `${about} ${verdict}: ${text}`)
}

test('a common NAT', () => {
  assert.deepEqual(texts({ tcp: seen, udp: blocked }), [
    'tcp ok: a NAT: the internet sees 192.0.2.7, which keeps the port and uses one for all destinations; lets in only what answers a call of ours',
    'udp ok: no STUN server answers over UDP, which farport can do without',
    'path ok: with a peer that others can connect to: direct, one calls the other',
    'path ok: with a peer behind a common NAT: direct, by both calling at once',
    'path note: with a peer behind a NAT with another port for each destination: through the relay',
    'path ok: with a peer whose network lets little out: through the relay',
  ])
})

test('a NAT with another port for each destination: what could be done about it', () => {
  const tcp: ProtocolReport = { ...seen, mapping: 'address-and-port-dependent', portPreserved: false }
  const [first, , , second] = natFindings({ tcp, udp: seen })
  assert.equal(first?.verdict, 'note')
  assert.match(first?.remedy ?? '', /--announce/)
  assert.equal(second?.text, 'with a peer behind a common NAT: through the relay')
})

test('no NAT: where what gets in can not be told, nothing is said of it', () => {
  const { filtering: _, ...unknown } = { ...seen, translated: false }
  const [first] = texts({ tcp: unknown, udp: seen })
  assert.equal(first, 'tcp ok: no NAT: the internet sees 192.0.2.7')
})

test('without STUN nothing is promised', () => {
  const nat = { tcp: blocked, udp: blocked }
  assert.equal(predictedPaths(nat), undefined)
  const [first, , path, ...more] = natFindings(nat)
  assert.match(first?.remedy ?? '', /3478 and 3479/)
  assert.equal(path?.text, 'direct if one side can call the other, else through the relay')
  assert.deepEqual(more, [])
})
