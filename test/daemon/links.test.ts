import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import type { Link } from '../../src/config/config.ts'
import { type LinkStatus, Links, type LinkWatch } from '../../src/daemon/links.ts'

const link: Link = {
  peer: 'anna',
  port: 'plc',
  endpoint: { type: 'raw', host: '127.0.0.1', port: 4000 },
  resumeMs: 1_000,
}

/** One link, what it may tell of itself, and how it is. */
async function made() {
  let watch: LinkWatch | undefined
  const links = new Links({
    start: async (_, itsWatch) => {
      watch = itsWatch
      return {
        address: '127.0.0.1:4000',
        ended: new Promise<void>(() => {}),
        [Symbol.asyncDispose]: async () => {},
      }
    },
    report: () => {},
    lasting: true,
    log: pino({ level: 'silent' }),
  })
  await links.add(link)
  return { ...(watch as LinkWatch), status: () => links.statuses()[0] as LinkStatus }
}

const sums = { toDevice: 0, fromDevice: 0, dropped: 0, reconnects: 0 }
const is = { port: 'anna/plc', at: '127.0.0.1:4000' }

test('a link is idle until a program uses it, and again when that has left', async () => {
  const { report, released, status } = await made()
  assert.deepEqual(status(), { ...is, state: 'idle', ...sums })
  report({ state: 'up', path: 'relayed' })
  assert.deepEqual(status(), { ...is, state: 'up', path: 'relayed', ...sums })
  report({ state: 'moved', path: 'direct', roundTripMs: 3 })
  assert.deepEqual(status(), { ...is, state: 'up', path: 'direct', ...sums })
  released()
  assert.deepEqual(status(), { ...is, state: 'idle', ...sums })
})

test('connections that are lost and had again are counted, first ones and moves are not', async () => {
  const { report, released, status } = await made()
  report({ state: 'down', reason: 'in use' })
  report({ state: 'up' })
  report({ state: 'moved', roundTripMs: 3 })
  assert.equal(status().reconnects, 0)
  report({ state: 'down', reason: 'lost' })
  report({ state: 'down', reason: 'nobody answers' })
  assert.deepEqual([status().state, status().reason], ['down', 'nobody answers'])
  report({ state: 'up' })
  assert.equal(status().reconnects, 1)
  report({ state: 'down', reason: 'lost' })
  released()
  report({ state: 'down', reason: 'in use' })
  report({ state: 'up' })
  assert.equal(status().reconnects, 1)
})

test('bytes that are dropped are added up, and say nothing about the connection', async () => {
  const { report, status } = await made()
  report({ state: 'up', path: 'direct' })
  report({ state: 'skipped' })
  assert.deepEqual([status().state, status().path], ['up', 'direct'])
  report({ state: 'down', reason: 'lost' })
  for (const bytes of [5, 7]) report({ state: 'dropped', bytes })
  assert.deepEqual([status().state, status().reason, status().dropped], ['down', 'lost', 12])
})

test('bytes rise over programs, the round trip is of the present one', async () => {
  const { report, released, meter, status } = await made()
  report({ state: 'up' })
  meter.toDevice += 10
  meter.roundTripMs = 7
  assert.deepEqual([status().toDevice, status().roundTripMs], [10, 7])
  released()
  report({ state: 'up' })
  meter.toDevice += 1
  assert.deepEqual([status().toDevice, status().roundTripMs], [11, undefined])
})
