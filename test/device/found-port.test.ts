import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { deviceSearch } from '../../src/device/device-search.ts'
import { foundPort } from '../../src/device/found-port.ts'
import { FakeMachine } from '../support/fake-machine.ts'
import { ptyPair } from '../support/pty-pair.ts'

const limits = {
  skip: process.platform === 'linux' ? false : 'only Linux has these ttys',
  timeout: 10_000,
}

const portAt = (machine: FakeMachine, name: string) =>
  foundPort(
    name,
    deviceSearch(name, () => machine.list()),
  )

test('a device is found by what it is, each time it is opened', limits, async () => {
  await using machine = await FakeMachine.make()
  const source = portAt(machine, 'usb:0403:6001')
  assert.equal(await source.present(), false)
  await assert.rejects(source.open({}), { code: 'ERR_DEVICE_ABSENT', message: /not plugged in/ })
  for (const tty of ['ttyUSB0', 'ttyUSB7']) {
    await using pty = ptyPair()
    await machine.plug('1-1', tty, { serial: 'A1', target: pty.slavePath })
    assert.equal(await source.present(), true)
    await using port = await source.open({})
    assert.equal(port.description.usb?.serialNumber, 'A1')
    assert.equal(port.description.path, 'usb:0403:6001')
    port.write('x')
    const [bytes] = await once(pty.master, 'data')
    assert.equal(String(bytes), 'x')
    await machine.unplug('1-1', tty)
  }
})

test('an open port finds its device again under another number', limits, async () => {
  await using machine = await FakeMachine.make()
  const first = ptyPair()
  await machine.plug('1-1', 'ttyUSB0', { serial: 'A1', target: first.slavePath })
  await using port = await portAt(machine, `${machine.dev}/ttyUSB*`).open({ settings: { baudRate: 57_600 } })
  const gone = once(port, 'state')
  await machine.unplug('1-1', 'ttyUSB0')
  await first[Symbol.asyncDispose]()
  assert.deepEqual(await gone, ['absent'])
  await using second = ptyPair()
  const back = once(port, 'state')
  await machine.plug('1-1', 'ttyUSB3', { serial: 'A1', target: second.slavePath })
  assert.deepEqual(await back, ['open'])
  assert.equal(second.termios().ospeed, 57_600)
})

test('of two nobody guesses: they are named, and the port waits', limits, async () => {
  await using machine = await FakeMachine.make()
  await using pty = ptyPair()
  await machine.plug('1-1', 'ttyUSB0', { serial: 'A1' })
  await machine.plug('1-2', 'ttyUSB1', { serial: 'B2', target: pty.slavePath })
  const source = portAt(machine, 'usb:0403:6001')
  assert.equal(await source.present(), false)
  await assert.rejects(source.open({}), {
    code: 'ERR_DEVICE_ABSENT',
    message: /is 2 devices: .*ttyUSB0, .*ttyUSB1\. Say which by its serial number/,
  })
  await using port = await portAt(machine, 'usb:0403:6001:B2').open({})
  assert.equal(port.description.usb?.serialNumber, 'B2')
  await machine.unplug('1-1', 'ttyUSB0')
  assert.equal(await source.present(), true)
})
