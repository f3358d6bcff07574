import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { parseConfigFile } from '../../src/config/config-file.ts'
import { describedKeys } from '../../src/config/describe-keys.ts'

const page = await readFile(new URL('../../docs/config.md', import.meta.url), 'utf8')

test('docs/config.md has every key as the schema describes it, and no other', () => {
  const rows = [...page.matchAll(/^\| `([^`]+)` \| (.*) \|$/gm)].map(([, key, text]) => [key, text])
  // What all ports are told has the keys of one port.
  const keys = describedKeys().filter(({ key }) => !key.startsWith('defaults.'))
  assert.deepEqual(
    rows,
    keys.map(({ key, text }) => [key, text.replaceAll('|', '\\|')]),
  )
})

test('the example of docs/config.md is a configuration', () => {
  const [, example = ''] = /```yaml\n([\s\S]*?)```/.exec(page) ?? []
  const { ports = {}, links = [] } = parseConfigFile(example, 'example')
  assert.ok(Object.keys(ports).length >= 3 && links.length >= 2)
})
