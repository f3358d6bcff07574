import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePage } from './page.ts'

/** What each block of a page does, and its text. */
function blocksOf(...lines: string[]) {
  return parsePage(lines.join('\n'), 'page.md').blocks.map(({ does, text }) => [does, text])
}

test('a block does what the marker before it says', () => {
  const marked = (marker: string) => blocksOf(`<!-- ${marker} -->`, '```sh', 'ls', '```')[0]?.[0]
  const run = { kind: 'run', machine: 'pi', exitCode: 0, types: undefined }
  assert.deepEqual(marked('on pi'), run)
  assert.deepEqual(marked('on pi, ends with 7'), { ...run, exitCode: 7 })
  assert.deepEqual(marked('on pi, types A{2,}'), { ...run, types: /A{2,}/ })
  assert.deepEqual(marked('on pi, stays'), { kind: 'stay', machine: 'pi', types: undefined })
  assert.deepEqual(marked('on pi, stays, types A'), { kind: 'stay', machine: 'pi', types: /A/ })
  assert.deepEqual(marked('on pi, each until a, b'), { kind: 'until', machine: 'pi', printed: /a, b/ })
  assert.deepEqual(marked('file on pi: a/b.yaml'), { kind: 'file', machine: 'pi', path: 'a/b.yaml' })
  assert.deepEqual(marked('is a farport.yaml'), { kind: 'config' })
  assert.deepEqual(marked('shows'), { kind: 'shows' })
  assert.deepEqual(marked('not run: why'), { kind: 'not run', reason: 'why' })
})

test('a block without a marker is found out; a picture needs none', () => {
  assert.deepEqual(blocksOf('```sh', 'ls', '```'), [[{ kind: 'unmarked' }, 'ls']])
  assert.deepEqual(blocksOf('```yaml', 'a: 1', '```'), [[{ kind: 'unmarked' }, 'a: 1']])
  assert.deepEqual(blocksOf('```text', '┌─┐', '```'), [])
  assert.deepEqual(blocksOf('<!-- not run from here: why -->', '```', 'ls', '```'), [
    [{ kind: 'not run', reason: 'why' }, 'ls'],
  ])
})

test('a block inside of a comment is run like any other', () => {
  const block = ['<!-- on pi, stays', '```sh', 'ls', '```', '-->']
  assert.deepEqual(blocksOf(...block, '<!-- shows -->', '```', 'a', '```'), [
    [{ kind: 'stay', machine: 'pi', types: undefined }, 'ls'],
    [{ kind: 'shows' }, 'a'],
  ])
})

test('commands between backticks are run up to the next heading', () => {
  const until = { kind: 'until', machine: 'pi', printed: /ok/ }
  assert.deepEqual(
    blocksOf(
      '`farport share a`',
      '<!-- inline: farport share on pi until ok -->',
      '| `farport share b`, `farport shared` | `farport share` |',
      '## Next',
      '`farport share c`',
    ),
    [
      [until, 'farport share b'],
      [until, 'farport share'],
    ],
  )
})

test('what a page needs, and who is paired with whom', () => {
  const { standIns, needs, blocks } = parsePage(
    '<!-- in the test: a => b -->\n<!-- needs: socat -->\n<!-- paired: laptop with pi, gps --may use -->\n',
    'page.md',
  )
  assert.deepEqual([standIns, needs], [[['a', 'b']], ['socat']])
  assert.deepEqual(blocks, [
    { line: 3, text: 'gps --may use', does: { kind: 'paired', guest: 'laptop', host: 'pi' } },
  ])
})

test('a marker that says nothing, or stands before no block, is a mistake', () => {
  for (const lines of [
    ['<!-- onn pi -->', '```', 'ls', '```'],
    ['<!-- on pi, ends with x -->', '```', 'ls', '```'],
    ['<!-- on pi -->', 'text', '```', 'ls', '```'],
    ['<!-- on pi -->', '<!-- shows -->', '```', 'ls', '```'],
  ])
    assert.throws(() => blocksOf(...lines), /page\.md:\d/, lines.join('\n'))
  assert.throws(() => blocksOf('<!-- on pi -->'), /page\.md/)
  assert.throws(() => blocksOf('<!-- on pi', '```', 'ls', '```'), /page\.md/)
  assert.throws(() => blocksOf('```', 'ls'), /page\.md/)
})
