import assert from 'node:assert/strict'
import { globSync } from 'node:fs'
import { access, readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { describe, test } from 'node:test'
import { unlessThere } from '../support/needed-programs.ts'
import { Machines } from './machines.ts'
import { readPage } from './page.ts'

/** Pages without markers, and why nothing of them is run here. A page that is neither marked nor in here fails the test. */
const NOT_RUN: Readonly<Record<string, string>> = {
  'compatibility.md': 'printed by `npm run compat`, not typed',
  'performance.md': 'written by `npm run bench -- --docs` and `npm run bench:growth -- --docs`',
}

const root = new URL('../..', import.meta.url).pathname
const onLinux = process.platform === 'linux'

// Most of the time they wait for each other's machines and not for ours.
describe('the pages', { concurrency: 2 }, () => {
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
    test(`${path}: what it says to type works`, { timeout: 300_000, skip }, async () => {
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
})

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
