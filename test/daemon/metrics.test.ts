import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createMetrics } from '../../src/daemon/metrics.ts'
import type { DaemonStatus } from '../../src/daemon/status.ts'
import { busy, idle } from '../support/daemon-status.ts'
import { parseExposition } from '../support/exposition.ts'

/** Of each of our metrics its samples. */
function ours(text: string): Record<string, Record<string, number>> {
  const mine = [...parseExposition(text)].filter(([name]) => name.startsWith('farport_'))
  return Object.fromEntries(mine.map(([name, { samples }]) => [name, Object.fromEntries(samples)]))
}

test('what a farport does is told under the names that its owner gave, and nothing else of it', async () => {
  const page = createMetrics({ status: async () => busy, peers: () => ['anna', 'bert'] })
  const { contentType, text } = await page()
  assert.equal(contentType, 'text/plain; version=0.0.4; charset=utf-8')
  const plc = 'link="anna/plc",at="/run/plc \\"1\\"\\\\"'
  assert.deepEqual(ours(text), {
    farport_build_info: { 'version="1.2.3"': 1 },
    farport_port_bytes_total: {
      'port="gps",direction="to_device"': 11,
      'port="gps",direction="from_device"': 22,
    },
    farport_port_line_errors_total: {
      'port="gps",kind="framing"': 1,
      'port="gps",kind="parity"': 2,
      'port="gps",kind="overrun"': 3,
      'port="gps",kind="break"': 4,
    },
    farport_port_state: {
      'port="gps",state="waiting"': 0,
      'port="gps",state="ready"': 0,
      'port="gps",state="open"': 1,
    },
    farport_port_holders: { 'port="gps"': 1 },
    farport_port_watchers: { 'port="gps"': 2 },
    farport_port_opens_total: { 'port="gps"': 5 },
    farport_port_sessions_total: { 'port="gps",mode="use"': 6, 'port="gps",mode="watch"': 7 },
    farport_port_skipped_bytes_total: { 'port="gps"': 8 },
    farport_link_bytes_total: {
      [`${plc},direction="to_device"`]: 33,
      [`${plc},direction="from_device"`]: 44,
    },
    farport_link_state: {
      [`${plc},state="failed"`]: 0,
      [`${plc},state="idle"`]: 0,
      [`${plc},state="up"`]: 1,
      [`${plc},state="waiting"`]: 0,
      [`${plc},state="down"`]: 0,
    },
    farport_link_round_trip_seconds: { [plc]: 0.0125 },
    farport_link_reconnects_total: { [plc]: 10 },
    farport_link_dropped_bytes_total: { [plc]: 9 },
    farport_connected_peers: { 'path="direct"': 1, 'path="relayed"': 1 },
    farport_peer_connected: {
      'peer="anna",path="direct"': 0,
      'peer="anna",path="relayed"': 1,
      'peer="bert",path="direct"': 0,
      'peer="bert",path="relayed"': 0,
    },
    farport_peer_round_trip_seconds: { 'peer="anna"': 0.04 },
    farport_relay_reserved: { 'relay="hub"': 1, 'relay="/ip4/192.0.2.2/tcp/4001"': 0 },
  })
  assert.doesNotMatch(text, /12D3Koo|192\.0\.2\.[89]|usb-secret/)
})

test('each page is of its moment: what has gone is gone, and sums rise', async () => {
  let status = busy
  const page = createMetrics({ status: async () => status, peers: () => [] })
  await page()
  const [gps] = busy.ports
  status = { ...idle, ports: [{ ...(gps as DaemonStatus['ports'][number]), toDevice: 12 }] }
  const now = ours((await page()).text)
  assert.equal(now.farport_port_bytes_total?.['port="gps",direction="to_device"'], 12)
  assert.deepEqual(now.farport_link_state, {})
  status = idle
  assert.deepEqual(ours((await page()).text).farport_port_bytes_total, {})
})

test('the process is told of, too, by the usual names', async () => {
  const families = parseExposition(
    (await createMetrics({ status: async () => idle, peers: () => [] })()).text,
  )
  const value = (name: string) => families.get(name)?.samples.get('')
  assert.ok((value('process_resident_memory_bytes') ?? 0) > 1_000_000)
  const age = Date.now() / 1000 - (value('process_start_time_seconds') ?? 0)
  assert.ok(age > -2 && age < 600, `${age} s old`)
  assert.ok(families.has('nodejs_eventloop_lag_p99_seconds'))
})

test('names follow the conventions: counters end with _total, times are seconds', async () => {
  const families = parseExposition(
    (await createMetrics({ status: async () => busy, peers: () => ['anna'] })()).text,
  )
  for (const [name, { type, help }] of families) {
    if (!name.startsWith('farport_')) continue
    assert.equal(name.endsWith('_total'), type === 'counter', name)
    assert.doesNotMatch(name, /_(ms|milliseconds|kib|mb)(_|$)/)
    assert.doesNotMatch(help, /\.$/, name)
  }
})

test('names and places may be any text, and many', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.string({ minLength: 1, unit: 'binary' }), { maxLength: 20 }),
      async (texts) => {
        const [link] = busy.links
        const links = texts.map((at) => ({ ...(link as DaemonStatus['links'][number]), at }))
        const page = createMetrics({ status: async () => ({ ...idle, links }), peers: () => texts })
        const now = ours((await page()).text)
        assert.equal(Object.keys(now.farport_link_dropped_bytes_total ?? {}).length, texts.length)
        assert.equal(Object.keys(now.farport_peer_connected ?? {}).length, 2 * texts.length)
      },
    ),
    { numRuns: 25 },
  )
  const thousands = Array.from({ length: 3_000 }, (_, i) => `peer-${i}`)
  const page = createMetrics({ status: async () => idle, peers: () => thousands })
  assert.equal(Object.keys(ours((await page()).text).farport_peer_connected ?? {}).length, 2_000)
})
