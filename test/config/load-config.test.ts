import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { loadConfig } from '../../src/config/load-config.ts'

async function load(t: TestContext, ...lines: string[]): Promise<Config> {
  const dir = mkdtempSync(join(tmpdir(), 'farport-config-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const path = join(dir, 'farport.yaml')
  writeFileSync(path, lines.join('\n'))
  return await loadConfig(path, '/home/farport')
}

test('each key of a port counts, and of the defaults those it does not say itself', async (t) => {
  const { shares } = await load(
    t,
    'defaults: {watchers: 3, replay: 0, banner: hello, reset: esp32, pack: {size: 9}}',
    'ports:',
    '  plain: /dev/plain',
    '  told:',
    '    device: /dev/told',
    '    line: 19200-7E1',
    '    flow: rtscts',
    '    on-open: {dtr: true, rts: false}',
    '    on-close: {dtr: false}',
    '    open-string: hi',
    '    close-string: bye',
    '    banner: welcome',
    '    idle-timeout: 2m',
    '    watchers: 4',
    '    replay: 4KiB',
    '    reset: off',
    '    pack: {gap: 2ms, until: "\\n"}',
  )
  const [plain, told] = shares
  assert.deepEqual(
    { ...plain, reset: plain?.reset !== undefined },
    {
      name: 'plain',
      device: '/dev/plain',
      watchers: 3,
      replayBytes: 0,
      banner: 'hello',
      reset: true,
      pack: { sizeBytes: 9 },
    },
  )
  assert.deepEqual(told, {
    name: 'told',
    device: '/dev/told',
    line: { baudRate: 19_200, dataBits: 7, parity: 'even', stopBits: 1 },
    flow: 'rtscts',
    onOpen: { dtr: true, rts: false },
    onClose: { dtr: false },
    openString: 'hi',
    closeString: 'bye',
    banner: 'welcome',
    idleTimeoutMs: 120_000,
    watchers: 4,
    replayBytes: 4096,
    pack: { gapMs: 2, until: '\n' },
  })
})

test('who shares or relays listens; who only uses ports of others does not', async (t) => {
  assert.notEqual((await load(t, 'ports: {a: /dev/a}')).listen.length, 0)
  assert.notEqual((await load(t, 'relay: {}')).listen.length, 0)
  assert.deepEqual((await load(t, 'links: [{port: a/b, pty: /tmp/b}]')).listen, [])
  assert.deepEqual((await load(t, 'listen: []', 'ports: {a: /dev/a}')).listen, [])
})

test('a relay answers STUN unless it is told not to', async (t) => {
  assert.deepEqual((await load(t, 'relay: {}')).relay, { stunPorts: [3478, 3479] })
  assert.deepEqual((await load(t, 'relay: {stun: [1, 2]}')).relay, { stunPorts: [1, 2] })
  assert.deepEqual((await load(t, 'relay: {stun: false}')).relay, {})
})

test('links wait for their ports for ever, at every kind of local end', async (t) => {
  const { links } = await load(
    t,
    'links:',
    '  - {port: a/b, pty: /p, mode: "600", owner: nobody, group: tty, line: 7E1, resume: 1m}',
    '  - {port: a/b, rfc2217: ":1"}',
    '  - {port: a/b, raw: ":2", watch: true, replay: 1KiB}',
    '  - {port: a/b, serial: /dev/x, modem-lines: false}',
  )
  const common = { peer: 'a', port: 'b', wait: true, resumeMs: 30_000 }
  assert.deepEqual(links, [
    {
      ...common,
      resumeMs: 60_000,
      endpoint: { type: 'pty', path: '/p', access: { mode: 0o600, owner: 'nobody', group: 'tty' } },
      line: { dataBits: 7, parity: 'even', stopBits: 1 },
    },
    { ...common, endpoint: { type: 'rfc2217', host: '127.0.0.1', port: 1 } },
    { ...common, endpoint: { type: 'raw', host: '127.0.0.1', port: 2 }, mode: 'watch', replayBytes: 1024 },
    { ...common, endpoint: { type: 'serial', device: '/dev/x', modemLines: false } },
  ])
})
