import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { configPath, type Owners, resolveHome } from '../../src/config/home.ts'

/** A machine without the service. */
const plain: Owners = { us: 1000, ownerOf: () => undefined }
const everything = { FARPORT_HOME: '/env', XDG_CONFIG_HOME: '/xdg', HOME: '/home/me' }

test('the first place that is named wins', () => {
  const { FARPORT_HOME: _, ...noVariable } = everything
  assert.equal(resolveHome('/flag', everything), '/flag')
  assert.equal(resolveHome(undefined, everything), '/env')
  assert.equal(resolveHome(undefined, noVariable, plain), '/xdg/farport')
  assert.equal(resolveHome(undefined, { HOME: '/home/me' }, plain), '/home/me/.config/farport')
})

test('empty variables count as unset, a relative XDG_CONFIG_HOME is ignored', () => {
  assert.equal(resolveHome(undefined, { ...everything, FARPORT_HOME: '' }, plain), '/xdg/farport')
  assert.equal(
    resolveHome(undefined, { XDG_CONFIG_HOME: 'etc', HOME: '/home/me' }, plain),
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
    assert.throws(() => resolveHome(flag, env, plain), { name: 'FarportError', code: 'ERR_HOME' })
  assert.equal(resolveHome('~me', {}), join(process.cwd(), '~me'))
})

/** With the Debian package: the service's user is 990. */
function packaged(us: number | undefined, homes: Record<string, number> = {}): Owners {
  const files: Record<string, number> = { '/var/lib/farport': 990, ...homes }
  return { us, ownerOf: (path) => files[path] }
}

test("the service's user has the service's home, whatever HOME says", () => {
  const { FARPORT_HOME: _, ...env } = everything
  assert.equal(resolveHome(undefined, env, packaged(990)), '/var/lib/farport')
  assert.equal(resolveHome(undefined, {}, packaged(990)), '/var/lib/farport')
  assert.equal(resolveHome('/flag', env, packaged(990)), '/flag')
  assert.equal(resolveHome(undefined, everything, packaged(990)), '/env')
})

test('other users keep their own home', () => {
  assert.equal(resolveHome(undefined, { HOME: '/home/me' }, packaged(1000)), '/home/me/.config/farport')
  // Windows.
  assert.equal(resolveHome(undefined, { HOME: '/home/me' }, packaged(undefined)), '/home/me/.config/farport')
})

test("root is sent to the service's user, unless root has a home or names one", () => {
  const env = { HOME: '/root' }
  const toTheService = { code: 'ERR_HOME', message: /sudo -u farport farport/ }
  assert.throws(() => resolveHome(undefined, env, packaged(0)), toTheService)
  assert.throws(() => resolveHome(undefined, {}, packaged(0)), toTheService)
  assert.equal(resolveHome('/var/lib/farport', env, packaged(0)), '/var/lib/farport')
  const own = '/root/.config/farport'
  assert.equal(resolveHome(undefined, env, packaged(0, { [own]: 0 })), own)
  assert.equal(resolveHome(undefined, env, { us: 0, ownerOf: () => undefined }), own)
})

test("the service's farport.yaml is where administrators look for it", () => {
  assert.equal(configPath('/var/lib/farport'), '/etc/farport/farport.yaml')
  assert.equal(configPath('/home/me/.config/farport'), '/home/me/.config/farport/farport.yaml')
})
