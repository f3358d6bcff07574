import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { Command } from 'commander'
import { commandsPage, configPage } from '../../src/cli/manual-page.ts'
import { describedKeys } from '../../src/config/describe-keys.ts'
import { fileSchema } from '../../src/config/file-schema.ts'
import { farport } from '../support/cli.ts'

const GROFF = 'groff'

test('every command that the help tells of is in farport(1)', async () => {
  const [{ stdout: help }, { stdout: page }] = await Promise.all([farport(['--help']), farport(['manual'])])
  const commands = [...help.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name)
  assert.ok(commands.length > 10)
  for (const name of commands.filter((name) => name !== 'help'))
    assert.match(page, new RegExp(`^\\.Ss "farport ${name} `, 'm'))
  assert.match(page, /^\.It 7\nThis machine has to be mended/m)
})

test('every key of farport.yaml is in farport.yaml(5), also those inside others', () => {
  const page = configPage()
  const keys = describedKeys().map(({ key }) => key)
  for (const key of Object.keys(fileSchema.entries)) assert.ok(keys.includes(key), key)
  for (const key of ['relay.stun', 'ports.NAME.device', 'links[].pty']) assert.ok(keys.includes(key), key)
  for (const key of keys) assert.ok(page.includes(`.It Cm "${key}"`), key)
  assert.ok(describedKeys().find(({ key }) => key === 'ports.NAME.device')?.mayBeLeftOut === false)
})

test('what looks like a macro or an escape is text', () => {
  const program = new Command('farport').addCommand(
    new Command('x')
      .description(".Sh not a heading\n'nor this")
      .option('--y <a>', String.raw`pack.until='\n'`),
  )
  const page = commandsPage(program)
  assert.match(page, /^\\&\.Sh not a heading\n\\&'nor this$/m)
  assert.match(page, /pack\.until='\\en'/)
})

test('man(1) has nothing against the pages', { skip: whyNoGroff() }, async () => {
  for (const page of ['farport', 'farport.yaml']) {
    const { stdout: input } = await farport(['manual', page])
    const { stderr, stdout } = spawnSync(GROFF, ['-ww', '-mdoc', '-Tutf8', '-P-cbou'], {
      input,
      encoding: 'utf8',
    })
    assert.equal(stderr, '')
    assert.match(stdout, /^SEE ALSO$/m)
  }
})

function whyNoGroff(): string | false {
  return spawnSync(GROFF, ['-mdoc', '-Tutf8'], { input: '.Dd x\n' }).status === 0 ? false : 'needs groff'
}
