import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'

/** Nothing of it is lost. */
const PLAIN = '#!/bin/sh\nsocat pty,link=/dev/vgps,raw,echo=0 tcp:gps.example.org:7000\n'
/** The LED is. */
const LOSSY = '2000:raw:0:/dev/ttyS0:led-tx=front\n'

async function tempFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'farport-import-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

test('what another program was told becomes a file that farport reads', async () => {
  await using folder = await tempFolder()
  const file = join(folder.path, 'farport.yaml')
  const imported = await farport(['import', '-', '--output', file], { input: PLAIN })
  assert.deepEqual({ code: imported.code, stdout: imported.stdout }, { code: 0, stdout: '' })
  assert.match(imported.stderr, /farport\.yaml: 0 ports to share, 1 links, 0 things left out/)
  const checked = await farport(['config', 'check', '--config', file, '--home', folder.path])
  assert.equal(checked.code, 0, checked.stderr)
  assert.match(checked.stdout, /1 links/)
})

test('what is left out is told by its line on standard error, and the exit code says so', async () => {
  await using folder = await tempFolder()
  const file = join(folder.path, 'ser2net.conf')
  await writeFile(file, LOSSY)
  const { code, stdout, stderr } = await farport(['import', file])
  assert.equal(code, 1)
  assert.match(stdout, /^ports:$/m)
  assert.match(stdout, /device: \/dev\/ttyS0/)
  assert.match(stderr, /^ser2net\.conf:1: led-tx=front: farport drives no LEDs$/m)
})

test('under --json all of it is one object', async () => {
  const { code, stdout, stderr } = await farport(['import', '-', '--json'], { input: LOSSY })
  assert.deepEqual({ code, stderr }, { code: 1, stderr: '' })
  const { format, ports, links, leftOut, yaml } = JSON.parse(stdout)
  assert.deepEqual({ format, ports, links }, { format: 'ser2net.conf', ports: 1, links: 0 })
  assert.ok(
    leftOut.some(({ line, what }: { line: number; what: string }) => line === 1 && what === 'led-tx=front'),
  )
  assert.match(yaml, /^ports:$/m)
})

test('a file that is there stays as it is without --force', async () => {
  await using folder = await tempFolder()
  const file = join(folder.path, 'farport.yaml')
  await writeFile(file, 'mine\n')
  const refused = await farport(['import', '-', '--output', file], { input: PLAIN })
  assert.equal(refused.code, 2)
  assert.match(refused.stderr, /is there already: --force/)
  assert.equal(await readFile(file, 'utf8'), 'mine\n')
  const forced = await farport(['import', '-', '--output', file, '--force'], { input: PLAIN })
  assert.equal(forced.code, 0, forced.stderr)
  assert.match(await readFile(file, 'utf8'), /pty: \/dev\/vgps/)
})

test('what is none of them ends with 2, and --from says what it is', async () => {
  const none = await farport(['import', '-'], { input: 'hello\n' })
  assert.deepEqual({ code: none.code, stdout: none.stdout }, { code: 2, stdout: '' })
  assert.match(none.stderr, /standard input is none of what farport can take over/)
  const said = await farport(['import', '-', '--from', 'commands'], { input: 'hello\n' })
  assert.equal(said.code, 1)
  assert.match(said.stderr, /standard input:1: hello/)
  const missing = await farport(['import', '/nowhere/ser2net.yaml'])
  assert.equal(missing.code, 2)
})
