import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describedKeys } from '../../src/config/describe-keys.ts'
import { farport } from '../support/cli.ts'

const help = (...rest: string[]) => farport(['config', 'help', ...rest])

test('farport config help prints every key with an example', async () => {
  const { code, stdout } = await help()
  assert.equal(code, 0)
  for (const { key } of describedKeys().filter(({ key }) => !key.startsWith('defaults.')))
    assert.ok(stdout.includes(`${key}\n    `), key)
  assert.match(stdout, /^ports\.NAME\.line\n {4}how the line is .*\n {4}line: 19200-8E1$/m)
})

test('a key is found by its name, wherever it stands, with what is in it', async () => {
  const keysOf = async (key: string) => {
    const { code, stdout } = await help(key, '--json')
    assert.equal(code, 0)
    return (JSON.parse(stdout) as { keys: { key: string }[] }).keys.map((each) => each.key)
  }
  assert.deepEqual(await keysOf('line'), ['ports.NAME.line', 'links[].line'])
  assert.deepEqual(await keysOf('on-open'), [
    'ports.NAME.on-open',
    'ports.NAME.on-open.dtr',
    'ports.NAME.on-open.rts',
  ])
  assert.deepEqual(await keysOf('defaults.pack.gap'), ['ports.NAME.pack.gap'])
  assert.ok((await keysOf('links')).includes('links[].pty'))
})

test('a key that there is not is a mistake', async () => {
  const { code, stderr } = await help('sped')
  assert.equal(code, 2)
  assert.match(stderr, /there is no key sped in farport\.yaml: `farport config help` prints them all/)
})
