import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createFile, replaceFile } from '../../src/trust/durable-file.ts'

const HOUR_MS = 60 * 60 * 1000

async function directoryWith(t: TestContext, files: readonly string[], ageMs: number): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'farport-durable-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  const then = new Date(Date.now() - ageMs)
  for (const file of files) {
    await writeFile(join(directory, file), file)
    await utimes(join(directory, file), then, then)
  }
  return directory
}

const OURS = 'trusted_peers.0123456789ab.tmp'
const KEY = 'identity.key.ba9876543210.tmp'

const writers = [
  ['replaceFile', (path: string) => replaceFile(path, 'new')],
  ['createFile', (path: string) => createFile(path, 'new')],
] as const
for (const [name, write] of writers)
  test(`${name} sweeps away what a killed writer left aside long ago, and nothing else`, async (t) => {
    const others = [
      'identity.key',
      'trusted_peers.tmp',
      'trusted_peers.0123456789ab',
      'trusted_peers.0123456789AB.tmp',
      'trusted_peers.0123456789a.tmp',
      // Nothing here is called notes, so it is no remains of writing it.
      'notes.0123456789ab.tmp',
    ]
    const directory = await directoryWith(t, [OURS, KEY, ...others], 2 * HOUR_MS)
    await write(join(directory, 'trusted_peers'))
    assert.deepEqual((await readdir(directory)).toSorted(), [...others, 'trusted_peers'].toSorted())
    assert.equal(await readFile(join(directory, 'trusted_peers'), 'utf8'), 'new')
  })

test('what another process is writing stays', async (t) => {
  const directory = await directoryWith(t, [OURS, KEY, 'identity.key'], HOUR_MS / 2)
  await replaceFile(join(directory, 'trusted_peers'), 'new')
  assert.deepEqual(
    (await readdir(directory)).toSorted(),
    [OURS, KEY, 'identity.key', 'trusted_peers'].toSorted(),
  )
})

test('a directory or a link that is called like ours stays, with what it leads to', async (t) => {
  const directory = await directoryWith(t, ['precious'], 2 * HOUR_MS)
  await mkdir(join(directory, OURS))
  await utimes(join(directory, OURS), 0, 0)
  const link = 'trusted_peers.aaaaaaaaaaaa.tmp'
  await symlink('precious', join(directory, link))
  await replaceFile(join(directory, 'trusted_peers'), 'new')
  assert.deepEqual(
    (await readdir(directory)).toSorted(),
    [OURS, 'precious', link, 'trusted_peers'].toSorted(),
  )
  assert.equal(await readFile(join(directory, 'precious'), 'utf8'), 'precious')
})
