import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { parseConfigFile } from '../../src/config/config-file.ts'
import { importConfig } from '../../src/import/import-config.ts'

const DEBIAN = '/etc/ser2net.yaml'

test("Debian's ser2net.yaml as it comes with the package", { skip: !existsSync(DEBIAN) }, async () => {
  const imported = importConfig(await readFile(DEBIAN, 'utf8'), 'ser2net.yaml')
  assert.equal(imported.format, 'ser2net.yaml')
  const { ports = {} } = parseConfigFile(imported.yaml, 'farport.yaml')
  assert.deepEqual(Object.fromEntries(Object.entries(ports).map(([name, { device }]) => [name, device])), {
    con0096: '/dev/ttyS0',
    con1096: '/dev/ttyS1',
    con0192: '/dev/ttyS0',
    con1192: '/dev/ttyS1',
  })
  const lost = new Set(imported.leftOut.map(({ what }) => what))
  assert.ok(lost.has('kickolduser') && lost.has('telnet-brk-on-sync'))
})
