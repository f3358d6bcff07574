import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

const ROOT = new URL('../../', import.meta.url).pathname
/** What stands for a name in the page, and for anything in a source. */
const HOLE = '…'

const page = readFileSync(`${ROOT}docs/troubleshooting.md`, 'utf8')
const source = globSync('src/*/*.ts', { cwd: ROOT })
  .map((file) => readFileSync(`${ROOT}${file}`, 'utf8'))
  .join('\n')
  // As they come out: without the marks of literals, and with long ones in one piece.
  .replaceAll(/' \+\n\s*'|` \+\n\s*`/g, '')
  .replaceAll(/\\([`'"])/g, '$1')

/** The first column of the tables about what farport says. */
const messages = page
  .split('\n')
  .map((line) => /^\| `([^`]+)` \|/.exec(line)?.[1])
  .filter((message) => message !== undefined)

/** Finds a message in one line of a source, with something in each place that the page leaves open. */
function isSaid(message: string): boolean {
  const parts = message.split(HOLE).map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  return new RegExp(parts.join('[^\\n]{1,160}?')).test(source)
}

test('farport says each message in docs/troubleshooting.md', () => {
  assert.ok(messages.length > 30)
  assert.deepEqual(
    messages.filter((message) => !isSaid(message)),
    [],
  )
})

test('a message that nobody says is found out', () => {
  assert.ok(!isSaid('No permission to open …: the moon must be in the house that owns it'))
})

test('the page leaves enough of a message to be looked for', () => {
  for (const message of messages) assert.ok(message.replaceAll(HOLE, '').length >= 12, message)
})
