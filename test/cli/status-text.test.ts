import assert from 'node:assert/strict'
import { test } from 'node:test'
import { drawStatus } from '../../src/cli/status-text.ts'
import type { DaemonStatus } from '../../src/daemon/status.ts'
import { busy } from '../support/daemon-status.ts'

const [gps] = busy.ports as [DaemonStatus['ports'][number]]
const [plc] = busy.links as [DaemonStatus['links'][number]]

/** The row of `gps` in the table of ports, cell by cell. */
function port(now: Partial<typeof gps>, before?: Partial<typeof gps>, afterMs = 1_000): string[] {
  const at = (uptimeMs: number, change: Partial<typeof gps>) => ({
    ...{ ...busy, uptimeMs },
    ports: [{ ...gps, ...change }],
  })
  const text = drawStatus(at(5_000 + afterMs, now), before && at(5_000, before))
  const row = text.split('\n').find((line) => line.startsWith('gps')) ?? ''
  return row.split(/ {2,}/)
}

test('sums, paths and round trips stand in the tables', () => {
  const text = drawStatus({
    ...busy,
    uptimeMs: 120_000,
    ports: [{ ...gps, path: 'relayed', roundTripMs: 40.4 }],
  })
  const [head, ...lines] = text.split('\n').map((line) => line.trim().split(/ {2,}/))
  assert.match(head?.[0] ?? '', /^farport 1\.2\.3, 12D3\S+, process 1, up 2 min: 1 port, 1 link/)
  const row = (first: string) => lines.find(([cell]) => cell === first)
  assert.deepEqual(row('gps'), ['gps', 'open', 'anna', 'relayed, 40 ms', '2', '11 B', '22 B', gps.device])
  assert.deepEqual(row('anna/plc'), ['anna/plc', 'up', 'direct, 13 ms', '33 B', '44 B', plc.at])
  assert.deepEqual(row('anna'), ['anna', 'relayed, 40 ms', '/ip4/192.0.2.9/tcp/1'])
  const near = drawStatus({ ...busy, links: [{ ...plc, roundTripMs: 0.3456 }] })
  assert.match(near, /direct, 0\.3 ms/)
})

test('amounts are short', () => {
  const amount = (fromDevice: number) => port({ fromDevice })[5]
  assert.deepEqual([0, 9_999, 10_000, 10_240_000, 2 ** 40, 2 ** 60].map(amount), [
    '0 B',
    '9999 B',
    '9.8 KiB',
    '9.8 MiB',
    '1024 GiB',
    '1048576 TiB',
  ])
})

test('with how it was before, bytes per second stand there, too', () => {
  const now = port({ toDevice: 3_000, fromDevice: 100_000 }, { toDevice: 1_000, fromDevice: 50_000 }, 2_000)
  assert.deepEqual(now.slice(4, 6), ['3000 B, 1000 B/s', '98 KiB, 24 KiB/s'])
  assert.equal(port({ toDevice: 5 }, { toDevice: 5 })[4], '5 B, 0 B/s')
  // A port that is configured anew begins anew, and so does another process.
  assert.equal(port({ toDevice: 5 }, { toDevice: 500 })[4], '5 B')
  assert.equal(port({ toDevice: 5 }, { toDevice: 0 }, -4_000)[4], '5 B')
  assert.equal(port({ toDevice: 5 }, { name: 'another', toDevice: 0 })[4], '5 B')
})

test('links to the same port are told apart', () => {
  const links = (...sums: number[]) => sums.map((toDevice, i) => ({ ...plc, at: `/run/${i}`, toDevice }))
  const text = drawStatus(
    { ...busy, uptimeMs: 1_000, links: links(10, 20) },
    { ...busy, uptimeMs: 0, links: links(0, 20) },
  )
  assert.match(text, /10 B, 10 B\/s .*\/run\/0/)
  assert.match(text, /20 B, 0 B\/s .*\/run\/1/)
})

test('metrics that can not be had are told with why', () => {
  const at = 'http://127.0.0.1:9464/metrics'
  assert.match(drawStatus({ ...busy, metrics: { at } }), /METRICS\nhttp:\/\/127\.0\.0\.1:9464\/metrics\n$/)
  assert.match(drawStatus({ ...busy, metrics: { at, reason: 'taken' } }), /metrics +not there: taken\n$/)
})
