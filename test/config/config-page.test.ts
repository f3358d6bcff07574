import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { parseConfigFile } from '../../src/config/config-file.ts'
import { describedKeys } from '../../src/config/describe-keys.ts'
import { KEY_EXAMPLES } from '../../src/config/key-examples.ts'

const page = await readFile(new URL('../../docs/config.md', import.meta.url), 'utf8')

test('docs/config.md has every key as the schema describes it, with an example, and no other', () => {
  const rows = [...page.matchAll(/^\| `([^`]+)` \| (.*) \| `(.*)` \|$/gm)].map(([, key, text, example]) => [
    key,
    text,
    example,
  ])
  // What all ports are told has the keys of one port.
  const keys = describedKeys().filter(({ key }) => !key.startsWith('defaults.'))
  assert.deepEqual(
    rows,
    keys.map(({ key, text, example }) => [key, text.replaceAll('|', '\\|'), example]),
  )
})

/** What has to stand in a group besides. */
const REQUIRED: Readonly<Record<string, string>> = { capture: 'file: x, ' }

/** A whole file in which the key has this value. */
function fileWith(key: string, value: string): string {
  const [, top = '', inside = key] = /^(defaults|ports\.NAME|links\[\])\.(.*)$/.exec(key) ?? []
  const entry = inside
    .split('.')
    .reduceRight(
      (inner, name, i, names) =>
        `${name}: ${i < names.length - 1 ? `{${REQUIRED[name] ?? ''}${inner}}` : inner}`,
      value,
    )
  if (inside === 'capture.file') return `ports: {NAME: {device: /dev/null, capture: {file: ${value}}}}`
  if (top === 'defaults') return `defaults: {${entry}}`
  if (top === 'ports.NAME')
    return `ports: {NAME: {${inside === 'device' ? '' : 'device: /dev/null, '}${entry}}}`
  if (top === '') return entry
  const port = inside === 'port' ? '' : 'port: a/b, '
  const end = ['pty', 'rfc2217', 'raw', 'serial'].includes(inside) ? '' : 'pty: /x, '
  return `links: [{${port}${end}${entry}}]`
}

test('each example is a value that the key may have', () => {
  for (const { key, example } of describedKeys()) {
    assert.ok(example !== undefined, `${key} has no example`)
    const file = fileWith(key, example)
    assert.doesNotThrow(() => parseConfigFile(file, file), file)
  }
})

test('an example that could not be would be found', () => {
  for (const [key, value] of [
    ['ports.NAME.pack.gap', '4'],
    ['ports.NAME.on-open', '{cts: true}'],
    ['defaults.watchers', '17'],
    ['links[].rfc2217', 'nowhere'],
    ['relay.stun', '[1]'],
  ] as const)
    assert.throws(() => parseConfigFile(fileWith(key, value), 'x'), { code: 'ERR_USAGE' }, key)
})

test('the example of docs/config.md is a configuration', () => {
  const [, example = ''] = /```yaml\n([\s\S]*?)```/.exec(page) ?? []
  const { ports = {}, links = [] } = parseConfigFile(example, 'example')
  assert.ok(Object.keys(ports).length >= 3 && links.length >= 2)
})

test('there is no example of a key that is not', () => {
  const keys = new Set(describedKeys().map(({ key }) => key))
  assert.deepEqual(
    Object.keys(KEY_EXAMPLES).filter((key) => !keys.has(key)),
    [],
  )
})
