import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { deviceFindings } from '../../src/daemon/device-check.ts'

const file = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), 'utf8')
const unit = await file('deploy/systemd/farport.service')

/** Of the kernel's Documentation/admin-guide/devices.txt: 204 is that of low-density serial ports. */
const MAJORS: Readonly<Record<string, number>> = { ttyS: 4, ttyACM: 166, ttyUSB: 188, ttyAMA: 204, PTYs: 136 }

const valuesOf = (key: string) =>
  [...unit.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].flatMap(([, value = '']) => value.split(' '))

test('the service may open every kind of port that deploy/README.md names, by number', async () => {
  const readme = await file('deploy/README.md')
  const [, list = ''] = /only serial\ndevices: ([\s\S]*?), by major number/.exec(readme) ?? []
  const kinds = list.split(/, | and /)
  assert.ok(kinds.length >= 5, 'the sentence of deploy/README.md is not there any more')
  assert.deepEqual(valuesOf('DevicePolicy'), ['closed'])
  for (const kind of kinds) {
    const major = MAJORS[kind]
    assert.ok(major !== undefined, `no number is known for ${kind}`)
    assert.match(unit, new RegExp(`^DeviceAllow=char-${major} rw$`, 'm'), kind)
    assert.match(unit, new RegExp(`^#.* ${major} .*${kind}`, 'm'), `${kind} has no comment`)
  }
  // A name is looked up when the unit starts, and is not there before the first adapter was plugged in.
  assert.doesNotMatch(unit, /^DeviceAllow=char-[^\d]/m)
})

test('what doctor reads in the unit agrees with that', async () => {
  const machine = {
    node: { version: '24.21.0', path: '/usr/bin/node' },
    inContainer: false,
    groups: '',
    unit,
    mayOpen: async () => undefined,
  }
  const verdictOf = async (major: number) => {
    const device = async () => ({ gid: 20, mode: 0o20660, major })
    const [finding] = await deviceFindings({
      machine: { ...machine, device },
      discovered: [],
      configured: ['/dev/x'],
      holderOf: async () => undefined,
    })
    return finding?.verdict
  }
  for (const major of Object.values(MAJORS)) assert.equal(await verdictOf(major), 'ok', String(major))
  assert.equal(await verdictOf(250), 'bad')
})

test('the group of the service is that of the devices, wherever it is named', async () => {
  assert.deepEqual(valuesOf('SupplementaryGroups'), ['dialout'])
  assert.match(await file('deploy/debian/farport.sysusers'), /^m farport dialout$/m)
  assert.match(await file('deploy/README.md'), /in group `dialout`/)
})

test('PTYs of links can be made, and lock files be written', () => {
  assert.match(unit, /^DeviceAllow=\/dev\/ptmx rw$/m)
  assert.match(unit, /^ReadWritePaths=-\/run\/lock$/m)
  // Neither a private /dev nor a private /run would leave them where others look.
  assert.doesNotMatch(unit, /^(PrivateDevices|TemporaryFileSystem)=/m)
})
