import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { resolveHome } from '../../src/config/home.ts'

const everything = { FARPORT_HOME: '/env', XDG_CONFIG_HOME: '/xdg', HOME: '/home/me' }

test('the first place that is named wins', () => {
  const { FARPORT_HOME: _, ...noVariable } = everything
  assert.equal(resolveHome('/flag', everything), '/flag')
  assert.equal(resolveHome(undefined, everything), '/env')
  assert.equal(resolveHome(undefined, noVariable), '/xdg/farport')
  assert.equal(resolveHome(undefined, { HOME: '/home/me' }), '/home/me/.config/farport')
})

test('empty variables count as unset, a relative XDG_CONFIG_HOME is ignored', () => {
  assert.equal(resolveHome(undefined, { ...everything, FARPORT_HOME: '' }), '/xdg/farport')
  assert.equal(
    resolveHome(undefined, { XDG_CONFIG_HOME: 'etc', HOME: '/home/me' }),
    '/home/me/.config/farport',
  )
})

test('a relative home becomes absolute', () => {
  assert.equal(resolveHome('here/./there/..', {}), join(process.cwd(), 'here'))
  assert.equal(resolveHome(undefined, { FARPORT_HOME: 'here' }), join(process.cwd(), 'here'))
})

test('a home that is surely not meant is refused', () => {
  for (const [flag, env] of [
    [undefined, {}],
    [undefined, { HOME: '' }],
    [undefined, { HOME: 'not/absolute' }],
    ['', everything],
    ['~/farport', everything],
    [undefined, { FARPORT_HOME: '~' }],
  ] as const)
    assert.throws(() => resolveHome(flag, env), { name: 'FarportError', code: 'ERR_HOME' })
  assert.equal(resolveHome('~me', {}), join(process.cwd(), '~me'))
})
