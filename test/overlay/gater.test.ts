import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ConnectionGater, MultiaddrConnection } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { type Logger, pino } from 'pino'
import { createGater, type GaterOptions } from '../../src/overlay/gater.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'

const peer = (n: number) => peerIdFromString(formatPeerId(Buffer.alloc(32, n)))

interface Line {
  msg: string
  peer?: string
  address?: string
  why?: string
  count?: number
}

function recorder(): { log: Logger; lines: Line[] } {
  const lines: Line[] = []
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) })
  return { log, lines }
}

/** As much of a connection as the gater looks at. */
class Connection extends EventTarget {
  readonly remoteAddr
  constructor(host: string) {
    super()
    this.remoteAddr = multiaddr(`/ip4/${host}/tcp/4001`)
  }
}

const connection = (host = '192.0.2.1') => new Connection(host) as unknown as MultiaddrConnection

function gaterOf(options: Partial<GaterOptions>): ConnectionGater {
  return createGater({ admits: () => true, connectionsOf: () => 0, log: recorder().log, ...options })
}

type Question = 'denyInboundConnection' | 'denyInboundEncryptedConnection' | 'denyOutboundConnection'
function ask<Q extends Question>(gater: ConnectionGater, question: Q): NonNullable<ConnectionGater[Q]> {
  const answer = gater[question]
  assert.ok(answer)
  return answer
}

test('peers that are not admitted are refused in both directions, others are not', () => {
  const gater = gaterOf({ admits: (id) => id === peer(1).toString() })
  const inbound = ask(gater, 'denyInboundEncryptedConnection')
  const outbound = ask(gater, 'denyOutboundConnection')
  assert.deepEqual([inbound(peer(1), connection()), inbound(peer(2), connection())], [false, true])
  assert.deepEqual([outbound(peer(1), connection()), outbound(peer(2), connection())], [false, true])
})

test('a refusal is one line with peer and address; knocking again adds none', () => {
  const { log, lines } = recorder()
  let now = 0
  const refuse = ask(
    gaterOf({ admits: () => false, log, clock: () => now }),
    'denyInboundEncryptedConnection',
  )
  for (let i = 0; i < 5; i++) refuse(peer(1), connection('192.0.2.7'))
  assert.equal(lines.length, 1)
  assert.equal(lines[0]?.peer, peer(1).toString())
  assert.equal(lines[0]?.address, '/ip4/192.0.2.7/tcp/4001')

  now += 60_000
  refuse(peer(1), connection('192.0.2.7'))
  assert.deepEqual(
    lines.slice(1).map(({ msg, count }) => [msg, count]),
    [
      ['refused more connections', 4],
      ['refused a connection', undefined],
    ],
  )
})

test('whoever keeps account is told each refusal, also those the log leaves out, and nothing else', () => {
  const told: string[][] = []
  const gater = gaterOf({
    admits: (id) => id === peer(1).toString(),
    onRefused: (...refusal) => void told.push(refusal),
  })
  const denied = ask(gater, 'denyInboundEncryptedConnection')
  denied(peer(1), connection())
  for (let i = 0; i < 2; i++) denied(peer(2), connection('192.0.2.7'))
  const refusal = [peer(2).toString(), '/ip4/192.0.2.7/tcp/4001', 'it is not in trusted_peers']
  assert.deepEqual(told, [refusal, refusal])
})

test('an admitted peer gets so many connections and no more', () => {
  let connections = 0
  const { log, lines } = recorder()
  const denied = ask(gaterOf({ connectionsOf: () => connections, log }), 'denyInboundEncryptedConnection')
  while (!denied(peer(1), connection())) connections++
  assert.equal(connections, 16)
  assert.match(lines[0]?.why ?? '', /too many connections/)
})

test('made-up PeerIDs do not fill the log', () => {
  const { log, lines } = recorder()
  const refuse = ask(gaterOf({ admits: () => false, log, clock: () => 0 }), 'denyInboundEncryptedConnection')
  for (let i = 0; i < 250; i++) refuse(peer(i), connection())
  assert.equal(lines.length, 20)
})

test('one address can not keep more than its share of handshakes open; ended ones free their place', () => {
  const gater = gaterOf({})
  const denied = ask(gater, 'denyInboundConnection')
  const open = Array.from({ length: 32 }, () => connection())
  assert.deepEqual(new Set(open.map((c) => denied(c))), new Set([false]))
  assert.equal(denied(connection()), true)
  assert.equal(denied(connection('192.0.2.2')), false, 'another address is not affected')

  open[0]?.dispatchEvent(new Event('close'))
  ask(gater, 'denyInboundEncryptedConnection')(peer(1), open[1] as MultiaddrConnection)
  // A place is freed once, though the connection also closes later.
  open[1]?.dispatchEvent(new Event('close'))
  assert.deepEqual(
    [1, 2, 3].map(() => denied(connection())),
    [false, false, true],
  )
})
