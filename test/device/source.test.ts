import assert from 'node:assert/strict'
import { test } from 'node:test'
import { portSource } from '../../src/device/source.ts'

const examples = [
  { spec: '/dev/ttyUSB0', platform: 'linux' },
  { spec: '/dev/serial/by-id/usb-FTDI_FT232R-if00-port0', platform: 'linux' },
  { spec: '/dev/cu.usbserial-1', platform: 'darwin' },
  { spec: 'COM3', platform: 'win32' },
  { spec: '\\\\.\\COM10', platform: 'win32' },
  { spec: 'usb:0403:6001', platform: 'linux' },
  { spec: 'usb:0403:6001:A50285BI', platform: 'linux' },
  { spec: 'simulated:gps', platform: 'win32' },
  { spec: 'tcp://plc.example.org:4001', platform: 'linux' },
  { spec: 'tcp://[2001:db8::7]:4001', platform: 'win32' },
] as const
for (const { spec, platform } of examples) {
  test(`${spec} is a port on ${platform}`, () => {
    assert.equal(portSource(spec, { platform }).description.path, spec)
  })
}

const mistakes = [
  { spec: 'ttyUSB0', platform: 'linux', says: /full path, like \/dev\/ttyUSB0/ },
  { spec: '', platform: 'linux', says: /full path/ },
  { spec: '/dev/ttyUSB0', platform: 'win32', says: /like COM3/ },
  { spec: 'COM', platform: 'win32', says: /like COM3/ },
  { spec: 'simulated:toaster', platform: 'linux', says: /no simulated:toaster/ },
  { spec: 'usb:403:6001', platform: 'linux', says: /usb:VID:PID/ },
  { spec: 'tcp://plc', platform: 'linux', says: /write HOST:PORT/ },
  { spec: 'tcp://plc:70000', platform: 'linux', says: /write HOST:PORT/ },
  { spec: 'tcp://2001:db8::7:4001', platform: 'linux', says: /\[2001:db8::7\]:2000/ },
] as const
for (const { spec, platform, says } of mistakes) {
  test(`“${spec}” is a mistake on ${platform}`, () => {
    assert.throws(() => portSource(spec, { platform }), { code: 'ERR_USAGE', message: says })
  })
}

test('a device that is not there is absent, not a mistake', async () => {
  const source = portSource('/dev/there-is-no-such-port')
  assert.equal(await source.present(), false)
  await assert.rejects(source.open({}), { code: 'ERR_DEVICE_ABSENT' })
})

test('both ends of a cable are found by its name', async () => {
  const cables = new Map()
  await using a = await portSource('simulated:null-modem/desk/a', { cables }).open({})
  await using b = await portSource('simulated:null-modem/desk/b', { cables }).open({})
  await using other = await portSource('simulated:null-modem/shelf/b', { cables }).open({})
  assert.equal(b.lines.dsr, true)
  assert.equal(other.lines.dsr, false)
  await a.setLines({ dtr: false })
  assert.equal(b.lines.dsr, false)
})
