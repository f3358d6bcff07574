import assert from 'node:assert/strict'
import { once } from 'node:events'
import { rmSync, statSync, symlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { test } from 'node:test'
import { linuxPort } from '../../src/device/linux-port.ts'
import { CFLAG } from '../../src/device/termios.ts'
import { farport } from '../support/cli.ts'
import { exchange } from '../support/exchange.ts'
import { FarDevice } from '../support/far-device.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { until } from '../support/until.ts'

test('a serial port of this machine is joined to one of another: 2 MiB both ways, and settings', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  const machine = homes.use(ptyPair())
  await homes.grant('ports=plc')
  await homes.share(`${device.slavePath}=plc`)
  const client = await homes.connect('a/plc', '--serial', machine.slavePath, '--line', '57600-8N2')
  assert.equal(client.links[0]?.at, machine.slavePath)
  for (const [where, pty] of Object.entries({ device, machine }))
    await until(`the ${where} has the line`, () => {
      const { ospeed, cflag } = pty.termios()
      return ospeed === 57_600 && (cflag & CFLAG.CSTOPB) !== 0
    })
  await exchange(machine.master, device.master, 2 * 1024 * 1024)
})

test('a local device that is unplugged is waited for', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  const path = homes.path('adapter')
  const heard: Buffer[] = []
  device.master.on('data', (bytes) => heard.push(bytes))
  await homes.grant('ports=plc')
  await homes.share(`${device.slavePath}=plc`)
  {
    await using before = ptyPair({ hold: false })
    symlinkSync(before.slavePath, path)
    const client = await homes.connect('a/plc', '--serial', path)
    await client.event('link', ({ state }) => state === 'up')
    before.master.write('before ')
    await until('the bytes arrive', () => Buffer.concat(heard).toString() === 'before ')
    // The name goes with the device: a PTY's number is used again at once.
    rmSync(path)
  }
  await using after = ptyPair()
  symlinkSync(after.slavePath, path)
  after.master.write('after')
  await until('bytes go on', () => Buffer.concat(heard).toString() === 'before after')
})

test('--mode and --group say who may open the PTY', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=plc')
  await homes.share(`${device.slavePath}=plc`)
  const group = process.getgid?.() ?? 0
  await homes.connect('a/plc', '--pty', homes.path('link'), '--mode', '606', '--group', String(group))
  const { mode, gid } = statSync(homes.path('link'))
  assert.equal(mode & 0o777, 0o606)
  assert.equal(gid, group)
})

test('--line is the line until a program sets its own; its data bits and parity stay', async () => {
  await using device = await FarDevice.behind('--pty', 'LINK', '--line', '1200-7O2')
  {
    await using program = await linuxPort(device.at).open({ settings: { baudRate: 1200, stopBits: 2 } })
    program.write('one')
    await device.hears('one')
    // Of 7O, PTYs as the one that plays the device keep the O.
    await device.shows('1200 baud, odd parity and 2 stop bits', ({ ospeed, cflag }) => {
      return ospeed === 1200 && (cflag & CFLAG.PARODD) !== 0 && (cflag & CFLAG.CSTOPB) !== 0
    })
  }
  await using program = await linuxPort(device.at).open({ settings: { baudRate: 38_400, parity: 'even' } })
  program.write('two')
  await device.hears('two')
  await device.shows('38400 baud and still odd parity', ({ ospeed, cflag }) => {
    return ospeed === 38_400 && (cflag & CFLAG.PARODD) !== 0 && (cflag & CFLAG.CSTOPB) === 0
  })
})

for (const end of ['--raw', '--rfc2217'])
  test(`--line with ${end}: it is there before the first byte`, async () => {
    await using device = await FarDevice.behind(end, '127.0.0.1:0', '--line', '4800-8N2')
    const socket = connect(Number(device.at.split(':')[1]), '127.0.0.1')
    await once(socket, 'connect')
    socket.write('hello')
    await device.hears('hello')
    await device.shows('4800 baud', ({ ospeed, cflag }) => ospeed === 4800 && (cflag & CFLAG.CSTOPB) !== 0)
    socket.destroy()
  })

const usage: [name: string, args: string[], said: RegExp][] = [
  ['no line', ['a/b', '--pty', '/tmp/x', '--line', '7X1'], /“7X1” is no line.*7E1.*9600-7E1/],
  [
    'too many lines',
    ['a/b', '--pty', '/tmp/x', '--line', '7E1', '--line', '8N1'],
    /2 lines for 1 PEER\/PORT/,
  ],
  ['a watcher with a line', ['a/b', '--pty', '/tmp/x', '--watch', '--line', '7E1'], /--line goes with using/],
  ['--no-lines elsewhere', ['a/b', '--pty', '/tmp/x', '--no-lines'], /--no-lines goes with --serial/],
  ['--mode elsewhere', ['a/b', '--raw', ':0', '--mode', '660'], /--mode, --owner and --group go with --pty/],
  ['no mode', ['a/b', '--pty', '/tmp/x', '--mode', 'rw'], /Three octal digits/],
]
for (const [name, args, said] of usage)
  test(`refused: ${name}`, async () => {
    const { code, stderr } = await farport(['connect', ...args])
    assert.equal(code, 2)
    assert.match(stderr, said)
  })
