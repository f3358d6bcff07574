import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { before, test } from 'node:test'
import { Command, CommanderError } from 'commander'
import { inlineCode } from './page.ts'

const ROOT = new URL('../../', import.meta.url).pathname
const PAGES = ['README.md', 'docs/*.md', 'deploy/*.md', 'keys/*.md']
/** What every command has, of which program.ts makes the options: it runs the command line when it is loaded. */
const COMMON = ['--home <dir>', '--log-level <level>', '--json']
const UNFINISHED = ['commander.missingArgument', 'commander.optionMissingArgument']
/** What runs when it is loaded. */
const PROGRAMS = ['main.ts', 'program.ts']

const commands = new Map<string, Command>()

before(async () => {
  const files = globSync('src/cli/*.ts', { cwd: ROOT }).filter((file) => !PROGRAMS.includes(basename(file)))
  for (const file of files) {
    const exported: Record<string, unknown> = await import(`${ROOT}${file}`)
    for (const command of Object.values(exported))
      if (command instanceof Command) commands.set(command.name(), inert(command))
  }
})

/** It reads its command line, and does nothing. */
function inert(command: Command): Command {
  for (const option of COMMON) command.option(option)
  for (const inner of command.commands) inert(inner)
  return command
    .exitOverride()
    .configureOutput({ writeErr: () => {}, writeOut: () => {} })
    .action(() => {})
}

/** Why farport would not take that command line; undefined where it would. */
async function refusal(line: string): Promise<string | undefined> {
  const [name = '', ...words] = wordsOf(line)
  if (name === '' || name.startsWith('-')) return undefined
  const command = commands.get(name)
  if (command === undefined) return `there is no command ${name}`
  // `farport share` alone is how a page speaks of the command.
  if (words.length === 0) return undefined
  try {
    await command.parseAsync(words, { from: 'user' })
    return undefined
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    // `farport connect --watch` is how it speaks of an option.
    const speaksOfIt = words[0]?.startsWith('--') && UNFINISHED.includes(error.code)
    return error.exitCode === 0 || speaksOfIt ? undefined : error.message
  }
}

/** As a shell has them, up to what is no longer the command's; `[PORT...]` and `NAME...` are notation for some words. */
function wordsOf(line: string): string[] {
  const [command = ''] = line.split(/ (?:[|&;#]|\d?>)/)
  return [...command.matchAll(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g)]
    .map(([word]) => word.replaceAll(/['"]/g, ''))
    .map((word) => word.replaceAll(/^\[|\]$|\.{3}/g, ''))
    .filter((word) => word !== '…')
}

/** Each command line of a page: between backticks, or in a block. */
function commandLines(page: string): string[] {
  const lines: string[] = []
  let isBlock = false
  for (const line of page.split('\n')) {
    if (line.startsWith('```')) isBlock = !isBlock
    else lines.push(...(isBlock ? [line.trim()] : inlineCode(line)))
  }
  return lines.flatMap((line) => /^(?:sudo (?:-u farport )?)?farport ([a-z-].*)/.exec(line)?.[1] ?? [])
}

test('farport understands every command line that a page has', async () => {
  const found: string[] = []
  let count = 0
  for (const path of globSync(PAGES, { cwd: ROOT }).sort()) {
    for (const line of commandLines(readFileSync(`${ROOT}${path}`, 'utf8'))) {
      count++
      const reason = await refusal(line)
      if (reason !== undefined) found.push(`${path}: farport ${line}: ${reason}`)
    }
  }
  assert.ok(count > 200, `${count}`)
  assert.deepEqual(found, [])
})

test('one that it does not understand is found out', async () => {
  for (const line of [
    'conect pi/gps',
    'connect pi/gps --ptty /tmp/gps',
    'ping pi --count many',
    'peers pi',
    'config chek',
    'relay --stun 3478',
  ])
    assert.notEqual(await refusal(line), undefined, line)
})
