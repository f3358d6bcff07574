import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseConfigFile } from '../../src/config/config-file.ts'
import { parseShareOptions, shareOptions } from '../../src/config/share-options.ts'

const parse = (...said: [name: string, value: string][]) => parseShareOptions(said, (name) => `--${name}`)

test('the words of farport.yaml mean on the command line what they mean there', () => {
  const table: [said: [name: string, value: string][], yaml: string][] = [
    [[], '{}'],
    [[['line', '19200-8E1']], '{line: 19200-8E1}'],
    [[['line', '7E1']], '{line: 7E1}'],
    [[['flow', 'rtscts']], '{flow: rtscts}'],
    [[['on-open', 'dtr=off,rts=on']], '{on-open: {dtr: false, rts: true}}'],
    [[['on-open.dtr', 'false']], '{on-open: {dtr: false}}'],
    [[['on-close', 'rts=true']], '{on-close: {rts: true}}'],
    [[['open-string', 'ATZ\\r']], '{open-string: "ATZ\\\\r"}'],
    [[['close-string', 'bye']], '{close-string: bye}'],
    [[['banner', '1']], '{banner: "1"}'],
    [[['idle-timeout', '10m']], '{idle-timeout: 10m}'],
    [[['watchers', '2']], '{watchers: 2}'],
    [[['replay', '4KiB']], '{replay: 4KiB}'],
    [[['reset', 'off']], '{reset: off}'],
    [[['reset', 'esp32']], '{reset: esp32}'],
    [[['pack', 'gap=2ms,size=256']], '{pack: {gap: 2ms, size: 256}}'],
    [
      [
        ['pack.until', '\\r\\n'],
        ['pack.gap', '2ms'],
      ],
      '{pack: {gap: 2ms, until: "\\\\r\\\\n"}}',
    ],
  ]
  for (const [said, yaml] of table)
    assert.deepEqual(parse(...said), parseConfigFile(`defaults: ${yaml}`, 'farport.yaml').defaults, yaml)
})

test('there is each key of a port, and no other', () => {
  const names = shareOptions().map(({ name }) => name)
  assert.ok(['line', 'flow', 'on-open', 'pack', 'reset', 'watchers'].every((name) => names.includes(name)))
  assert.ok(!names.includes('device') && names.every((name) => !name.includes('.')))
  assert.deepEqual(shareOptions().find(({ name }) => name === 'on-open')?.parts, ['dtr', 'rts'])
})

test('a mistake is named as it was written, with what would be right', () => {
  const mistakes: [said: [name: string, value: string], message: RegExp][] = [
    [['rest', 'esp32'], /“rest” is no option .* there are line=, .*on-open\.dtr=, .*pack\.gap=/],
    [['pack.gaps', '2ms'], /“pack\.gaps” is no option/],
    [['line.x', '1'], /“line\.x” is no option/],
    [['reset', 'esp'], /--reset is esp32, /],
    [['line', '19200-9E1'], /--line is a line: /],
    [['flow', 'maybe'], /--flow is none, rtscts or xonxoff/],
    [['watchers', 'two'], /--watchers is a number/],
    [['watchers', '17'], /--watchers is 16 at most/],
    [['on-open', 'dtr'], /--on-open is something like dtr=…/],
    [['on-open', 'cts=on'], /--on-open is something like dtr=…: there are dtr, rts/],
    [['on-open', 'dtr=on,dtr=off'], /--on-open\.dtr is said twice/],
    [['pack.gap', '2'], /--pack\.gap is a length of time, such as/],
    [['pack.gap', '1001ms'], /1000ms at most/],
    [['pack.size', '0'], /--pack\.size is 1 at least/],
    [['pack.until', ''], /--pack\.until is one to eight bytes/],
  ]
  for (const [said, message] of mistakes)
    assert.throws(() => parse(said), { code: 'ERR_USAGE', message }, said.join('='))
  assert.throws(() => parse(['reset', 'off'], ['reset', 'off']), {
    code: 'ERR_USAGE',
    message: /--reset is said twice/,
  })
  assert.throws(() => parse(['pack', 'gap=2ms'], ['pack.gap', '3ms']), {
    code: 'ERR_USAGE',
    message: /twice/,
  })
})

test('whatever is said, there are options or one kind of mistake', () => {
  const names = shareOptions().flatMap(({ name, parts }) => [name, ...parts.map((part) => `${name}.${part}`)])
  const name = fc.oneof(fc.constantFrom(...names, '__proto__', 'constructor', 'pack.__proto__'), fc.string())
  fc.assert(
    fc.property(fc.array(fc.tuple(name, fc.string()), { maxLength: 4 }), (said) => {
      try {
        parse(...said)
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'ERR_USAGE', String(error))
      }
    }),
  )
})
