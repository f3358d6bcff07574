import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import fc from 'fast-check'
import { memberName } from '../../src/daemon/port-family.ts'
import { SharedPorts } from '../../src/daemon/shared-ports.ts'
import type { DiscoveredPort } from '../../src/device/discovery.ts'
import { createLog } from '../../src/log.ts'
import { PortHost } from '../../src/session/host.ts'
import { rightsOn } from '../../src/trust/grants.ts'
import { FakeMachine } from '../support/fake-machine.ts'
import { ptyPair } from '../support/pty-pair.ts'

const limits = { skip: process.platform === 'linux' ? false : 'only Linux has these ttys', timeout: 10_000 }
const log = createLog('silent')
const FTDI = { name: 'ftdi-*', device: 'usb:0403:*' }

const names = (ports: SharedPorts) => ports.ports.map(({ name }) => name)

async function sharedOn(machine: FakeMachine, shares = [FTDI]): Promise<SharedPorts> {
  return await SharedPorts.start(shares, { log, list: () => machine.list() })
}

test('a port is called after what stays of its device', () => {
  const usb = (serialNumber?: string) => ({
    usb: { vendorId: '0403', productId: '6001', ...(serialNumber !== undefined && { serialNumber }) },
  })
  const table: [port: DiscoveredPort, name: string][] = [
    [{ path: '/dev/ttyUSB0', ...usb('A50285BI') }, 'ftdi-A50285BI'],
    [{ path: '/dev/ttyUSB1', ...usb('A50285BI'), usbPart: 'if01' }, 'ftdi-A50285BI-if01'],
    [{ path: '/dev/ttyUSB0', ...usb('a/../b c\n*é') }, 'ftdi-a-..-b-c-'],
    [
      { path: '/dev/ttyUSB0', ...usb(), byId: '/dev/serial/by-id/usb-1a86_Serial-if00-port0' },
      'ftdi-1a86_Serial-if00-port0',
    ],
    [{ path: '/dev/ttyUSB0', ...usb() }, 'ftdi-ttyUSB0'],
    [{ path: '/dev/ttyUSB0', ...usb('9'.repeat(100)) }, `ftdi-${'9'.repeat(59)}`],
  ]
  for (const [port, name] of table) assert.equal(memberName('ftdi-*', { path: port.path, port }), name)
  assert.equal(memberName('*', { path: '/dev/x', port: { path: '/dev/x', ...usb('-_x') } }), 'x')
})

test('whatever a device says it is, its port has a name that can be one', () => {
  fc.assert(
    fc.property(fc.constantFrom('p*', '*', '*x'), fc.string({ minLength: 1 }), (pattern, serialNumber) => {
      const usb = { vendorId: '0403', productId: '6001', serialNumber }
      const name = memberName(pattern, { path: '/dev/ttyUSB0', port: { path: '/dev/ttyUSB0', usb } })
      assert.match(name, /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/)
    }),
  )
})

test(
  'each device of the kind is a port, as they come; who goes keeps its name and waits',
  limits,
  async () => {
    await using machine = await FakeMachine.make()
    const ports = await sharedOn(machine)
    assert.deepEqual(names(ports), [])
    assert.deepEqual(await ports.absent(), [{ port: 'ftdi-*', device: 'usb:0403:*' }])
    await machine.plug('1-1', 'ttyUSB0', { serial: 'A1' })
    await machine.plug('1-2', 'ttyUSB1', { serial: 'OTHER', vendorId: '10c4' })
    await ports.look()
    assert.deepEqual(names(ports), ['ftdi-A1'])
    assert.deepEqual(await ports.absent(), [])
    const [first] = ports.ports
    assert.equal(first?.source.description.usb?.serialNumber, 'A1')
    await machine.plug('1-3', 'ttyUSB2', { serial: 'B2', productId: '6015' })
    await ports.look()
    assert.deepEqual(names(ports), ['ftdi-A1', 'ftdi-B2'])
    assert.equal(ports.ports[0], first)

    await machine.unplug('1-1', 'ttyUSB0')
    await ports.look()
    assert.deepEqual(names(ports).sort(), ['ftdi-A1', 'ftdi-B2'])
    assert.equal(await first?.source.present(), false)
    await machine.plug('1-4', 'ttyUSB9', { serial: 'A1' })
    await ports.look()
    assert.equal(await first?.source.present(), true)
    assert.equal(
      ports.ports.find(({ name }) => name === 'ftdi-A1'),
      first,
    )
  },
)

test('a peer may use what its grant covers, as soon as it is plugged in', limits, async () => {
  await using machine = await FakeMachine.make()
  await using pty = ptyPair()
  const ports = await SharedPorts.start(
    [{ ...FTDI, line: { baudRate: 19_200, dataBits: 8, parity: 'none', stopBits: 1 } }],
    {
      log,
      list: () => machine.list(),
      lookMs: 10,
    },
  )
  const grant = { ports: ['ftdi-*'], may: ['watch', 'use'] as const }
  const rights = (_peer: string, port: string) => rightsOn(grant, port, 0)
  await using host = new PortHost({ ports: ports.ports, rights, log })
  const changed = Promise.withResolvers<void>()
  await using _following = ports.follow(async (now) => {
    await host.become(now)
    changed.resolve()
  })
  await machine.plug('1-1', 'ttyUSB0', { serial: 'A1', target: pty.slavePath })
  await changed.promise
  const [status, ...others] = await host.statuses()
  assert.deepEqual([status?.name, status?.state, others.length], ['ftdi-A1', 'ready', 0])
  const source = ports.ports[0]?.source
  assert.ok(source)
  await using port = await source.open({})
  port.write('x')
  assert.equal(String((await once(pty.master, 'data'))[0]), 'x')
  const gone = once(port, 'state')
  await machine.unplug('1-1', 'ttyUSB0')
  await pty[Symbol.asyncDispose]()
  await gone
  assert.equal((await host.statuses())[0]?.state, 'waiting')
})

test('two devices that say they are the same one are named, not mixed up', limits, async () => {
  await using machine = await FakeMachine.make()
  await machine.plug('1-1', 'ttyUSB0', { serial: '0001' })
  await machine.plug('1-2', 'ttyUSB1', { serial: '0001' })
  const ports = await sharedOn(machine)
  assert.deepEqual(names(ports), ['ftdi-0001'])
  await assert.rejects(async () => await ports.ports[0]?.source.open({}), {
    code: 'ERR_DEVICE_ABSENT',
    message: /is 2 devices: .*ttyUSB0, .*ttyUSB1/,
  })
})

test('a port with a name of its own goes before one that a * gives the same', limits, async () => {
  await using machine = await FakeMachine.make()
  await machine.plug('1-1', 'ttyUSB0', { serial: 'A1' })
  const ports = await sharedOn(machine, [FTDI, { name: 'ftdi-A1', device: 'simulated:echo' }])
  assert.deepEqual(
    ports.ports.map(({ source }) => source.description.path),
    ['simulated:echo'],
  )
})

test('what a new configuration leaves as it was is the same port as before', limits, async () => {
  await using machine = await FakeMachine.make()
  await machine.plug('1-1', 'ttyUSB0', { serial: 'A1' })
  const echo = { name: 'echo', device: 'simulated:echo' }
  const ports = await sharedOn(machine, [FTDI, echo])
  const before = new Set(ports.ports)
  assert.deepEqual(await ports.become([{ ...FTDI }, { name: 'gps', device: 'simulated:gps' }]), {
    added: 1,
    removed: 1,
    kept: 1,
  })
  assert.deepEqual(names(ports).sort(), ['ftdi-A1', 'gps'])
  assert.equal(ports.ports.filter((port) => before.has(port)).length, 1)
  await assert.rejects(ports.become([{ name: 'bad', device: 'nowhere' }]), { code: 'ERR_USAGE' })
  assert.deepEqual(names(ports).sort(), ['ftdi-A1', 'gps'])
})

test('of very many devices the first are shared; one that is gone makes room for one that comes', async () => {
  let plugged: DiscoveredPort[] = []
  const device = (i: number) => ({
    path: `/dev/ttyUSB${i}`,
    usb: { vendorId: '0403', productId: '6001', serialNumber: `S${i}` },
  })
  const ports = await SharedPorts.start([FTDI], { log, list: async () => plugged })
  plugged = Array.from({ length: 70 }, (_, i) => device(i))
  await ports.look()
  assert.equal(ports.ports.length, 64)
  plugged = [...plugged.slice(1, 64), device(99)]
  await ports.look()
  assert.equal(ports.ports.length, 64)
  assert.ok(names(ports).includes('ftdi-S99'))
  assert.ok(!names(ports).includes('ftdi-S0'))
})
