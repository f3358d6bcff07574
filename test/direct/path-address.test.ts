import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isDialable, isDialableHere, toTell } from '../../src/direct/path-address.ts'
import { MAX_ADDRESSES } from '../../src/direct/path-message.ts'

const dialed = [
  '/ip4/192.0.2.7/tcp/4001',
  '/ip4/192.168.1.5/tcp/1024',
  '/ip4/10.0.0.1/tcp/65535',
  '/ip6/2001:db8::1/tcp/4001',
  '/ip6/fd00::5/tcp/443',
  '/dns4/home.example/tcp/80',
  '/dns/nas/tcp/4001',
]
for (const address of dialed) {
  test(`dialed: ${address}`, () => assert.ok(isDialable(address)))
}

const left = [
  '/ip4/127.0.0.1/tcp/4001',
  '/ip4/127.8.9.1/tcp/4001',
  '/ip6/::1/tcp/4001',
  '/ip6/::ffff:127.0.0.1/tcp/4001',
  '/dns4/localhost/tcp/4001',
  '/dns4/a.LOCALHOST/tcp/4001',
  '/ip4/0.0.0.0/tcp/4001',
  '/ip6/::/tcp/4001',
  '/ip4/169.254.169.254/tcp/80',
  '/ip6/fe80::1/tcp/4001',
  '/ip4/224.0.0.251/tcp/5353',
  '/ip4/255.255.255.255/tcp/4001',
  '/ip6/ff02::1/tcp/4001',
  '/ip4/192.0.2.7/tcp/22',
  '/ip4/192.0.2.7/tcp/1023',
  '/ip4/192.0.2.7/tcp/0',
  '/ip4/192.0.2.7/tcp/70000',
  '/ip4/192.0.2.7/udp/4001',
  '/ip4/192.0.2.7/tcp/4001/ws',
  '/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW/p2p-circuit',
  '/unix/tmp/x',
  '192.0.2.7:4001',
  '',
]
for (const address of left) {
  test(`not dialed: ${address || 'nothing'}`, () => assert.ok(!isDialable(address)))
}

test('on this very machine, loopback addresses are dialed, and nothing else that is not dialed anywhere', () => {
  const here = ['/ip4/127.0.0.1/tcp/4001', '/ip4/127.8.9.1/tcp/4001', '/ip6/::1/tcp/4001']
  for (const address of [...dialed, ...here]) assert.ok(isDialableHere(address), address)
  const others = left.filter((address) => !here.includes(address))
  for (const address of [...others, '/ip4/127.0.0.1/tcp/22']) assert.ok(!isDialableHere(address), address)
})

test('whatever a peer sends as an address is answered, without an error', () => {
  fc.assert(fc.property(fc.string(), (text) => assert.equal(isDialable(text), false)))
})

test('the peer is told our direct addresses, bare, once, and not more than it takes', () => {
  const own = [
    '/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWA',
    '/ip4/192.0.2.7/tcp/4001',
    '/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWA',
    '/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWR/p2p-circuit/p2p/12D3KooWA',
  ]
  assert.deepEqual(toTell(own, isDialable), ['/ip4/192.0.2.7/tcp/4001'])
  const many = Array.from({ length: 20 }, (_, k) => `/ip4/192.0.2.${k + 1}/tcp/4001`)
  assert.equal(toTell(many, isDialable).length, MAX_ADDRESSES)
})
