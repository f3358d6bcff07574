import assert from 'node:assert/strict'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { pino } from 'pino'
import { type AuditLogOptions, openAuditLog } from '../../src/daemon/audit-log.ts'
import { FarportError } from '../../src/errors.ts'
import type { CallerPath } from '../../src/session/port-event.ts'

const path: CallerPath = { kind: 'direct', remoteAddress: '/ip4/192.0.2.7/tcp/4001' }
const peerId = '12D3KooWanna'
const gps = { peerId, path, port: 'gps' }
const closed = { ...gps, toDevice: 12, fromDevice: 3456, durationMs: 7890, reason: 'the peer closed it' }

function setUp(t: TestContext, options: Partial<AuditLogOptions> = {}) {
  const home = mkdtempSync(join(tmpdir(), 'farport-audit-'))
  t.after(() => rmSync(home, { recursive: true }))
  const logged: string[] = []
  const log = pino({}, { write: (line: string) => void logged.push(JSON.parse(line).msg) })
  const file = join(home, 'audit.log')
  return {
    home,
    file,
    logged,
    open: () => openAuditLog({ home, nameOf: (id) => (id === peerId ? 'anna' : undefined), log, ...options }),
    lines: (name = file) =>
      readFileSync(name, 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line): Record<string, unknown> => JSON.parse(line)),
  }
}

const withoutTime = ({ time, ...fields }: Record<string, unknown>) => fields

test('one line for each thing that happened, with who did it', (t) => {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'], now: Date.UTC(2026, 10, 22, 12) })
  const { open, lines, file } = setUp(t)
  using audit = open()
  audit.record({ event: 'pair', peerId, ports: ['gps'], may: ['watch', 'use'], by: 'code' })
  audit.record({ event: 'open', ...gps })
  audit.record({ event: 'close', ...closed })
  audit.record({ event: 'refuse', peerId, path, reason: 'gps is in use' })
  audit.record({ event: 'refuse', peerId: '12D3KooWmallory', address: '192.0.2.8', reason: 'who?' })
  audit.record({ event: 'revoke', peerId, reason: 'its line is gone' })
  const anna = { time: '2026-11-22T12:00:00.000Z', peer: peerId, name: 'anna' }
  const from = { path: 'direct', address: '/ip4/192.0.2.7/tcp/4001' }
  const { event: _, ...rest } = { event: 0, ...closed }
  const { peerId: _p, path: _q, ...figures } = rest
  assert.deepEqual(lines(), [
    { ...anna, event: 'pair', ports: ['gps'], may: ['watch', 'use'], by: 'code' },
    { ...anna, event: 'open', port: 'gps', ...from },
    { ...anna, event: 'close', ...from, ...figures },
    { ...anna, event: 'refuse', ...from, reason: 'gps is in use' },
    { time: anna.time, event: 'refuse', peer: '12D3KooWmallory', address: '192.0.2.8', reason: 'who?' },
    { ...anna, event: 'revoke', reason: 'its line is gone' },
  ])
  assert.equal(statSync(file).mode & 0o777, 0o600)
})

test('a program that toggles DTR a thousand times costs a line a second, before the close at the latest', (t) => {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'] })
  const { open, lines } = setUp(t)
  using audit = open()
  for (let i = 0; i < 1000; i++) audit.record({ event: 'lines', ...gps, changed: { dtr: i % 2 === 0 } })
  audit.record({ event: 'lines', ...gps, changed: { break: true } })
  audit.record({ event: 'configure', ...gps, from: '9600 8N1', to: '1200 8N1' })
  audit.record({ event: 'configure', ...gps, from: '1200 8N1', to: '115200 7E1' })
  t.mock.timers.tick(1000)
  audit.record({ event: 'lines', ...gps, changed: { rts: true } })
  audit.record({ event: 'close', ...closed })
  t.mock.timers.tick(10_000)
  const about = { peer: peerId, name: 'anna', port: 'gps' }
  const all = lines().map(withoutTime)
  assert.deepEqual(all.slice(0, 3), [
    { event: 'configure', ...about, from: '9600 8N1', to: '115200 7E1', changes: 2 },
    { event: 'lines', ...about, dtr: { on: false, changes: 1000 }, break: { on: true, changes: 1 } },
    { event: 'lines', ...about, rts: { on: true, changes: 1 } },
  ])
  assert.deepEqual(
    all.slice(3).map(({ event }) => event),
    ['close'],
  )
})

test('resets that were run are named and counted', (t) => {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'] })
  const { open, lines } = setUp(t)
  using audit = open()
  audit.record({ event: 'lines', ...gps, changed: { sequence: 'esp32' } })
  audit.record({ event: 'lines', ...gps, changed: { dtr: false } })
  audit.record({ event: 'lines', ...gps, changed: { sequence: 'esp32' } })
  t.mock.timers.tick(1000)
  const [line] = lines()
  assert.deepEqual(line?.sequence, { name: 'esp32', runs: 2 })
  assert.deepEqual(line?.dtr, { on: false, changes: 1 })
})

test('what is held back is written when the log is closed', (t) => {
  const { open, lines } = setUp(t)
  const audit = open()
  audit.record({ event: 'lines', ...gps, changed: { rts: true } })
  audit[Symbol.dispose]()
  assert.deepEqual(
    lines().map(({ event }) => event),
    ['lines'],
  )
})

test('a flood of refusals leaves a few lines and a count, and others are still heard', (t) => {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'] })
  const { open, lines } = setUp(t)
  using audit = open()
  const knock = (host: string, port: number) =>
    audit.record({
      event: 'refuse',
      peerId: `12D3KooW${port}`,
      address: `/ip4/${host}/tcp/${port}`,
      reason: 'no',
    })
  for (let i = 0; i < 5000; i++) knock('192.0.2.7', i)
  knock('192.0.2.8', 1)
  assert.equal(lines().length, 6)
  assert.equal(lines().at(-1)?.address, '/ip4/192.0.2.8/tcp/1')
  t.mock.timers.tick(60_000)
  assert.deepEqual(withoutTime(lines().at(-1) ?? {}), { event: 'left-out', refusals: 4995, addresses: 1 })
  knock('192.0.2.7', 1)
  assert.equal(lines().at(-1)?.event, 'refuse')
})

test('an attacker with many addresses gets no more than twenty lines a minute', (t) => {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'] })
  const { open, lines } = setUp(t)
  using audit = open()
  for (let i = 0; i < 1000; i++)
    audit.record({ event: 'refuse', peerId, address: `/ip6/2001:db8::${i.toString(16)}/tcp/1`, reason: 'no' })
  assert.equal(lines().length, 20)
  t.mock.timers.tick(60_000)
  assert.deepEqual(withoutTime(lines().at(-1) ?? {}), { event: 'left-out', refusals: 980, addresses: 256 })
})

test('a full file becomes audit.log.1 in the place of the one before, and no line is lost on the way', (t) => {
  const { open, lines, file } = setUp(t, { maxBytes: 2000 })
  using audit = open()
  const ports: string[] = []
  for (let i = 0; ports.length < 60; i++) {
    audit.record({ event: 'open', ...gps, port: `p${i}` })
    ports.push(`p${i}`)
  }
  for (const name of [file, `${file}.1`]) {
    assert.ok(statSync(name).size <= 2000, `${name} has ${statSync(name).size} bytes`)
    assert.equal(statSync(name).mode & 0o777, 0o600)
  }
  const kept = [...lines(`${file}.1`), ...lines()].map(({ port }) => port)
  assert.ok(kept.length > 10)
  assert.deepEqual(kept, ports.slice(-kept.length))
})

test('a full disk stops nobody: told once, counted, and said in the file when there is room again', (t) => {
  let full = true
  const write = (fd: number, line: Buffer) => {
    if (full) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
    return writeSync(fd, line)
  }
  const { open, lines, logged } = setUp(t, { write })
  using audit = open()
  for (let i = 0; i < 100; i++) audit.record({ event: 'open', ...gps })
  assert.deepEqual(logged, ['the audit log can not be written; lines are lost'])
  full = false
  audit.record({ event: 'close', ...closed })
  assert.deepEqual(
    lines().map(({ event, lines }) => [event, lines]),
    [
      ['lost', 100],
      ['close', undefined],
    ],
  )
  assert.deepEqual(logged.slice(1), ['the audit log can be written again'])
})

test('a disk that takes half a line leaves none of it', (t) => {
  let half = false
  const { open, lines } = setUp(t, {
    write: (fd, line) => writeSync(fd, half ? line.subarray(0, line.length / 2) : line),
  })
  using audit = open()
  for (const now of [false, true, false]) {
    half = now
    audit.record({ event: 'open', ...gps })
  }
  assert.deepEqual(
    lines().map(({ event }) => event),
    ['open', 'lost', 'open'],
  )
})

test('a file others can read or write is no account of anything: the start is refused, with the remedy', (t) => {
  const { open, file } = setUp(t)
  for (const mode of [0o640, 0o602, 0o666]) {
    writeFileSync(file, '')
    chmodSync(file, mode)
    assert.throws(
      open,
      (error) => error instanceof FarportError && /chmod go= .*audit\.log/.test(error.message),
    )
  }
  chmodSync(file, 0o600)
  open()[Symbol.dispose]()
})

test('modes that are loosened later lose lines until they are put right', (t) => {
  const { open, file, lines, logged } = setUp(t)
  using audit = open()
  audit.record({ event: 'open', ...gps })
  chmodSync(file, 0o666)
  audit.record({ event: 'open', ...gps })
  assert.equal(lines().length, 1)
  assert.equal(logged.length, 1)
  chmodSync(file, 0o600)
  audit.record({ event: 'close', ...closed })
  assert.deepEqual(
    lines().map(({ event }) => event),
    ['open', 'lost', 'close'],
  )
})

test('a directory in its place is reported at the start or when there is a line, and stops nobody', (t) => {
  const { open, file, logged } = setUp(t)
  mkdirSync(file)
  using audit = open()
  audit.record({ event: 'open', ...gps })
  assert.equal(logged.length, 1)
})

test('a file that was moved away is begun anew', (t) => {
  const { open, file, lines } = setUp(t)
  using audit = open()
  audit.record({ event: 'open', ...gps })
  rmSync(file)
  audit.record({ event: 'close', ...closed })
  assert.deepEqual(
    lines().map(({ event }) => event),
    ['close'],
  )
})

test('what a peer said stays one line, short, and does nothing to a terminal', (t) => {
  const { open, file, lines } = setUp(t)
  using audit = open()
  const evil = '\u001b]0;owned\u0007\u009b2J\r\n{"event":"pair"}\u202e'
  audit.record({ event: 'refuse', peerId, path, reason: evil })
  audit.record({ event: 'open', ...gps, port: evil, path: { kind: 'direct', remoteAddress: evil } })
  audit.record({ event: 'close', ...closed, reason: evil + 'x'.repeat(100_000) })
  const text = readFileSync(file, 'utf8')
  assert.doesNotMatch(text.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u)
  assert.deepEqual(
    lines().map(({ event }) => event),
    ['refuse', 'open', 'close'],
  )
  assert.match(String(lines()[0]?.reason), /^\\u\{1b\}\]0;owned\\u\{7\}/)
  assert.ok(text.length < 3000)
})
