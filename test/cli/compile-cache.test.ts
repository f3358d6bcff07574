import assert from 'node:assert/strict'
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { farport } from '../support/cli.ts'

const unix = process.getuid === undefined ? 'only Unix has owners and modes' : false

function place(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'farport-cache-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

async function startsWith(env: NodeJS.ProcessEnv): Promise<void> {
  const ended = await farport(['--version'], {
    env: { NODE_COMPILE_CACHE: '', CACHE_DIRECTORY: '', XDG_CACHE_HOME: '', ...env },
  })
  assert.deepEqual({ ...ended, stdout: ended.stdout.trim() }, { code: 0, stdout: '0.1.0', stderr: '' })
}

test('what is compiled is kept in the user’s cache, for the user alone', { skip: unix }, async (t) => {
  const home = place(t)
  await startsWith({ HOME: home })
  const cache = join(home, '.cache', 'farport')
  assert.equal(statSync(cache).mode & 0o777, 0o700)
  assert.notEqual(readdirSync(cache).length, 0)
})

test('the places that XDG and systemd name come first', { skip: unix }, async (t) => {
  const home = place(t)
  for (const name of ['XDG_CACHE_HOME', 'CACHE_DIRECTORY']) {
    const given = place(t)
    await startsWith({ HOME: home, [name]: given })
    assert.notEqual(readdirSync(join(given, 'farport')).length, 0, name)
  }
  assert.deepEqual(readdirSync(home), [])
})

test('a cache that others could have written to is not used', { skip: unix }, async (t) => {
  const home = place(t)
  mkdirSync(join(home, '.cache', 'farport'), { recursive: true })
  chmodSync(join(home, '.cache', 'farport'), 0o777)
  await startsWith({ HOME: home })
  assert.deepEqual(readdirSync(join(home, '.cache', 'farport')), [])
})

test('without a good place farport starts all the same', { skip: unix }, async (t) => {
  const home = place(t)
  symlinkSync('/nowhere/at/all', join(home, '.cache'))
  await startsWith({ HOME: home })
  assert.ok(lstatSync(join(home, '.cache')).isSymbolicLink())
  for (const HOME of ['', '/proc', '/dev/null', 'relative']) await startsWith({ HOME })
})
