import assert from 'node:assert/strict'
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type DevicesInQuestion, deviceFindings } from '../../src/daemon/device-check.ts'
import type { Finding } from '../../src/daemon/finding.ts'
import { diskFinding, ownersFinding } from '../../src/daemon/home-check.ts'
import { type Machine, thisMachine } from '../../src/daemon/machine.ts'
import { nativeFindings, runtimeFinding } from '../../src/daemon/runtime-check.ts'
import { checkConfig, serviceFinding } from '../../src/daemon/service-check.ts'

const USB0 = '/dev/ttyUSB0'
const DIALOUT = 20
const UNIT = 'DevicePolicy=closed\nDeviceAllow=char-4 rw\nDeviceAllow=char-166 rw\n'

/** An adapter of group dialout, and anna, who is in that group. */
function machine(differences: Partial<Machine> = {}): Machine {
  return {
    node: { version: '24.21.0', path: '/usr/bin/node' },
    user: { name: 'anna', uid: 1000, gids: [1000, DIALOUT] },
    inContainer: false,
    groups: `root:x:0:\ndialout:x:${DIALOUT}:anna,ben\n`,
    unit: '',
    mayOpen: async () => undefined,
    device: async () => ({ gid: DIALOUT, mode: 0o20660, major: 188 }),
    ...differences,
  }
}

async function findings(
  differences: Partial<Machine>,
  question: Partial<DevicesInQuestion> = {},
): Promise<Finding[]> {
  const discovered = [{ path: USB0 }]
  return deviceFindings({
    ...{ machine: machine(differences), discovered, configured: [USB0], holderOf: async () => undefined },
    ...question,
  })
}

async function only(differences: Partial<Machine>, question?: Partial<DevicesInQuestion>): Promise<Finding> {
  const [finding, ...more] = await findings(differences, question)
  assert.deepEqual(more, [])
  return finding as Finding
}

const refusedBy = (code: string) => ({ mayOpen: async () => code })
const carl = { user: { name: 'carl', uid: 1001, gids: [1001] } }

test('a port that may be opened', async () => {
  assert.deepEqual(await only({}), { about: 'port', verdict: 'ok', text: '/dev/ttyUSB0 may be opened' })
})

test('who is not in the group is told the very command', async () => {
  const { verdict, remedy } = await only({ ...carl, ...refusedBy('EACCES') })
  assert.equal(verdict, 'bad')
  assert.equal(remedy, 'type  sudo usermod -aG dialout carl  and log in again')
})

test('what nobody has configured is worth a note and no more', async () => {
  const { verdict } = await only({ ...carl, ...refusedBy('EACCES') }, { configured: [] })
  assert.equal(verdict, 'note')
})

test('a login from before the group', async () => {
  const { remedy } = await only({
    user: { name: 'ben', uid: 1002, gids: [1002] },
    ...refusedBy('EACCES'),
  })
  assert.equal(remedy, 'log out and in again')
})

test('who is in the group and is refused all the same is not sent into the group', async () => {
  const { verdict, remedy } = await only(refusedBy('EACCES'))
  assert.equal(verdict, 'bad')
  assert.equal(remedy, undefined)
})

test('a device for root alone gets a udev rule', async () => {
  for (const [gid, mode] of [
    [0, 0o20660],
    [DIALOUT, 0o20600],
  ] as const) {
    const device = async () => ({ gid, mode, major: 188 })
    const { remedy } = await only({ device, ...refusedBy('EACCES') })
    assert.match(remedy ?? '', /KERNEL=="ttyUSB0", GROUP="dialout", MODE="0660"/)
  }
})

test('in a container it is the group, the device or its major', async () => {
  const group = await only({ ...carl, inContainer: true, ...refusedBy('EACCES') })
  assert.equal(group.remedy, 'start the container with --group-add 20')
  const device = await only({ inContainer: true, ...refusedBy('EPERM') })
  assert.match(device.remedy ?? '', /--device \/dev\/ttyUSB0,.*--device-cgroup-rule 'c 188:\* rmw'/)
})

test('a unit that leaves out a major is told the line', async () => {
  const missing = /DeviceAllow=char-188 rw$/
  const { verdict, remedy } = await only({ unit: UNIT })
  assert.equal(verdict, 'bad')
  assert.match(remedy ?? '', missing)
  assert.match((await only(refusedBy('EPERM'))).remedy ?? '', missing)
  // An empty line takes back those before it.
  const takenBack = `${UNIT}DeviceAllow=char-188 rw\nDeviceAllow=\nDeviceAllow=char-4 rw\n`
  assert.match((await only({ unit: takenBack })).remedy ?? '', missing)
  for (const more of ['DeviceAllow=char-188 rw', 'DeviceAllow=/dev/ttyUSB0', 'DeviceAllow=char-ttyUSB rw'])
    assert.equal((await only({ unit: `${UNIT}${more}\n` })).verdict, 'ok', more)
})

test('who holds a configured port, and what to do about that program', async () => {
  const held = (holder: string, farportPid = 1) => only({}, { holderOf: async () => holder, farportPid })
  const minicom = await held('minicom (process 4711)')
  assert.equal(minicom.verdict, 'bad')
  assert.equal(minicom.text, '/dev/ttyUSB0 is held by minicom (process 4711)')
  assert.match((await held('ModemManager (process 9)')).remedy ?? '', /mask --now ModemManager/)
  assert.match((await held('agetty (process 9)')).remedy ?? '', /serial-getty@ttyUSB0/)
  assert.equal((await held('node (process 4711)', 4711)).verdict, 'ok')
})

test('a device that is not plugged in is waited for', async () => {
  const { verdict, text } = await only({ device: async () => undefined })
  assert.equal(verdict, 'note')
  assert.match(text, /is not there/)
})

test('a port that is configured by its link is told once, and no port at all is fine', async () => {
  const byId = '/dev/serial/by-id/usb-x'
  await only({}, { discovered: [{ path: USB0, byId }], configured: [byId] })
  assert.equal((await only({}, { discovered: [], configured: [] })).verdict, 'ok')
})

test('a device that is looked for is examined by what is found, and waited for where nothing is', async () => {
  const discovered = [
    { path: USB0, usb: { vendorId: '0403', productId: '6001' } },
    { path: '/dev/ttyUSB1', usb: { vendorId: '0403', productId: '6015' } },
  ]
  const holderOf = async () => 'minicom (process 4711)'
  const told = await findings({}, { discovered, configured: ['usb:0403:*', 'usb:2341:*'], holderOf })
  assert.deepEqual(
    told.map(({ verdict, text }) => [verdict, text]),
    [
      ['note', 'usb:2341:* finds no device now; farport waits for one'],
      ['bad', '/dev/ttyUSB0 is held by minicom (process 4711)'],
      ['bad', '/dev/ttyUSB1 is held by minicom (process 4711)'],
    ],
  )
})

test('a Node out of range is named, with its range', () => {
  const verdictOf = (version: string) => runtimeFinding({ node: { version, path: '/n' } }).verdict
  assert.deepEqual(['23.9.0', '24.0.0', '25.1.0', '26.0.0'].map(verdictOf), ['bad', 'ok', 'ok', 'bad'])
})

test('native code works here, and what does not is told with its reason', async () => {
  for (const { verdict, text } of await nativeFindings()) assert.equal(verdict, 'ok', text)
  const broken = async () => {
    throw new Error('wrong ELF class\nRequire stack: …')
  }
  const [finding] = await nativeFindings('linux', { sodium: broken })
  assert.equal(finding?.verdict, 'bad')
  assert.equal(finding?.text, 'sodium does not work: wrong ELF class')
})

test('a disk with room, with little and with none', async () => {
  const verdictWith = async (bytes: number) => (await diskFinding('/home', async () => bytes))?.verdict
  assert.equal(await verdictWith(1e9), 'ok')
  assert.equal(await verdictWith(10e6), 'note')
  assert.equal(await verdictWith(1000), 'bad')
  assert.equal(await diskFinding('/there/is/none'), undefined)
})

test('farport.yaml: none, one with devices, one with mistakes', async (t) => {
  const home = await temporary(t)
  const told: Finding[] = []
  const check = () => checkConfig(home, (finding) => told.push(finding))
  assert.deepEqual(await check(), [])
  assert.equal(told.length, 0)
  const file = join(home, 'farport.yaml')
  await writeFile(
    file,
    'ports:\n  a: /dev/ttyUSB0\n  b: simulated:gps\nlinks:\n  - port: x/y\n    serial: /dev/ttyS9\n',
  )
  assert.deepEqual(await check(), ['/dev/ttyUSB0', '/dev/ttyS9'])
  await writeFile(file, 'prots: {}\nlisten: 7\n')
  assert.deepEqual(await check(), [])
  assert.deepEqual(
    told.map(({ verdict }) => verdict),
    ['ok', 'bad', 'bad'],
  )
  assert.match(told[1]?.text ?? '', /farport\.yaml:1:1: prots: .*ports is meant/)
})

test('no farport, and one that can not be asked', async (t) => {
  const home = await temporary(t)
  const { signal } = new AbortController()
  assert.equal((await serviceFinding(home, signal)).finding.verdict, 'ok')
  const server = createServer((socket) => socket.destroy())
  await new Promise<void>((resolve) => server.listen(join(home, 'control.sock'), resolve))
  t.after(() => server.close())
  const { finding } = await serviceFinding(home, signal)
  assert.equal(finding.verdict, 'bad')
  assert.match(finding.remedy ?? '', /restart/)
})

test("root's files in somebody's home", { skip: process.geteuid?.() !== 0 && 'needs root' }, async (t) => {
  const home = await temporary(t)
  assert.equal((await ownersFinding(home))?.verdict, 'ok')
  await writeFile(join(home, 'audit.log'), '')
  await chown(home, 65534, 65534)
  await writeFile(join(home, 'farport.yaml'), '')
  const finding = await ownersFinding(home)
  assert.equal(finding?.verdict, 'bad')
  assert.match(finding?.text ?? '', /user: audit\.log$/)
  assert.equal(finding?.remedy, `type  sudo chown -R 65534 ${home}`)
})

test('the machine it runs on', async () => {
  const here = await thisMachine('/nowhere')
  assert.equal(here.node.version, process.versions.node)
  assert.equal(here.unit, '')
  assert.equal(await here.mayOpen('/dev/null'), undefined)
  assert.equal(await here.mayOpen('/dev/there-is-none'), 'ENOENT')
  assert.equal((await here.device('/dev/null'))?.major, 1)
})

async function temporary(t: { after(clean: () => Promise<void>): void }): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'farport-machine-'))
  t.after(() => rm(home, { recursive: true }))
  await chmod(home, 0o700)
  return home
}
