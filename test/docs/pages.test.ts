import assert from 'node:assert/strict'
import { globSync } from 'node:fs'
import { access, readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { test } from 'node:test'
import { unlessThere } from '../support/needed-programs.ts'
import { Machines } from './machines.ts'
import { readPage } from './page.ts'

/** Pages without markers, and why nothing of them is run here. A page that is neither marked nor in here fails the test. */
const NOT_RUN: Readonly<Record<string, string>> = {
  'compatibility.md': 'printed by `npm run compat`, not typed',
  'config.md': 'made of the schema, whose tests are in test/config',
  'from-ser2net.md': 'other programs’ configurations; test/import runs them',
  'library.md': 'TypeScript; test/library runs it',
  'nat.md': 'needs NATs; test/e2e/nat.test.ts and doctor.test.ts have them',
  'pack.md': 'needs devices; test/e2e/pack.test.ts stands in',
  'pty.md': 'needs other programs; test/interop runs them',
  'relay.md': 'needs three machines; test/e2e/relay.test.ts stands in',
  'reset.md': 'needs a board; test/e2e/reset.test.ts has one that is made up',
  'troubleshooting.md': 'its messages, not its commands: troubleshooting.test.ts',
}

const root = new URL('../..', import.meta.url).pathname
const onLinux = process.platform === 'linux'

for (const path of ['README.md', ...globSync('docs/*.md', { cwd: root })].sort()) {
  const page = readPage(`${root}${path}`)
  const name = basename(path)
  const reason = path.startsWith('docs/') ? NOT_RUN[name] : undefined

  for (const { line, does } of page.blocks)
    if (does.kind === 'not run') test(`${path}:${line}`, { skip: does.reason }, () => {})

  if (reason !== undefined) {
    test(path, { skip: reason }, () => {})
    continue
  }
  const skip = onLinux ? unlessThere(...page.needs) : 'bash and PTYs'
  test(`${path}: what it says to type works`, { timeout: 120_000, skip }, async () => {
    assert.deepEqual(
      page.blocks.filter(({ does }) => does.kind === 'unmarked').map(({ line }) => `${path}:${line}`),
      [],
      'each block is marked, see page.ts, or its page is in NOT_RUN',
    )
    if (page.blocks.every(({ does }) => does.kind === 'not run')) return
    await using machines = await Machines.make(page)
    for (const block of page.blocks) await machines.play(block)
    machines.checkStaying()
  })
}

test('every link of a page leads to a page or a file', async () => {
  const broken: string[] = []
  for (const path of [...globSync('{*,docs/*,deploy/*,keys/*}.md', { cwd: root })]) {
    const text = await readFile(`${root}${path}`, 'utf8')
    for (const [, target] of text.matchAll(/\]\(((?!https?:)[^)#]+)(?:#[^)]*)?\)/g)) {
      const file = new URL(target as string, `file://${root}${path}`)
      await access(file).catch(() => broken.push(`${path}: ${target}`))
    }
  }
  assert.deepEqual(broken, [])
})
