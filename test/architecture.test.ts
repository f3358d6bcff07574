import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path/posix'
import { test } from 'node:test'

/** Which folders of src a folder may import. A folder missing here fails the test. */
const mayImport: Record<string, string[]> = {
  telnet: [],
  rfc2217: ['telnet'],
  serial: [],
  device: ['serial'],
  channel: [],
  trust: [],
  wire: [],
  stun: [],
  relay: ['wire', 'trust'],
  capture: [],
  config: ['serial', 'device', 'capture'],
  import: ['config'],
  session: ['channel', 'rfc2217', 'telnet', 'serial', 'trust', 'wire'],
  lan: ['trust'],
  overlay: ['stun', 'trust'],
  direct: ['overlay', 'lan', 'stun'],
  endpoints: ['session', 'serial', 'device'],
  daemon: [
    'capture',
    'endpoints',
    'overlay',
    'direct',
    'lan',
    'relay',
    'session',
    'stun',
    'trust',
    'serial',
    'device',
    'config',
    'wire',
  ],
  cli: ['daemon', 'config', 'import', 'capture', 'endpoints', 'serial', 'device', 'trust'],
  library: ['daemon', 'session', 'serial', 'config'],
}
/** Folders that hold only protocol logic: no Node, no packages, not even our errors. */
const pure = ['telnet', 'rfc2217']
/** The one folder that knows libp2p, so that the rest can be tested without a network. */
const packagesOf: Record<string, RegExp> = {
  channel: /^node:/,
  session: /^(node:|valibot$)/,
  wire: /^(node:|valibot$)/,
  relay: /^(node:|valibot$)/,
  stun: /^node:/,
  lan: /^(node:|@dnsquery\/dns-packet$)/,
  direct: /^(node:|valibot$)/,
  endpoints: /^node:/,
  // koffi for one datagram to systemd.
  daemon: /^(node:|valibot$|koffi$|prom-client$)/,
  capture: /^node:/,
  config: /^(node:|valibot$|yaml$)/,
  import: /^(node:|yaml$)/,
  // tab's file that knows commander.
  cli: /^(node:|commander$|@bomb\.sh\/tab\/commander$)/,
}

for (const file of globSync('src/*/**/*.ts')) {
  test(`${file} imports only what its folder may`, () => {
    const folder = file.split('/')[1] as string
    const allowed = mayImport[folder]
    assert.ok(allowed, `add ${folder} to the table`)
    const source = readFileSync(file, 'utf8')
    for (const [, target] of source.matchAll(/(?:from |import\(|import )'([^']+)'/g)) {
      // The version, which is nobody's layer.
      if (target === undefined || target === '../../package.json') continue
      if (!target.startsWith('.')) {
        assert.ok(!pure.includes(folder), `${folder} is pure, yet imports ${target}`)
        assert.match(target, packagesOf[folder] ?? /./, `${folder} does not need ${target}`)
        continue
      }
      const to = relative('src', join(dirname(file), target)).split('/')
      if (to.length === 1) assert.ok(!pure.includes(folder), `${folder} is pure, yet imports ${target}`)
      else
        assert.ok([folder, ...allowed].includes(to[0] as string), `${folder} may not import ${to.join('/')}`)
    }
  })
}

test('folders are one deep', () => {
  assert.deepEqual(globSync('src/*/*/*'), [])
})
