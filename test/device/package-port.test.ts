import assert from 'node:assert/strict'
import { mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { packagePort } from '../../src/device/package-port.ts'
import { FarportError } from '../../src/errors.ts'
import { DEFAULT_SETTINGS } from '../../src/serial/settings.ts'
import { type Rig, serialPortCompliance } from '../compliance/serial-port.ts'
import { ptyPair } from '../support/pty-pair.ts'

const skip = process.platform === 'linux' ? false : 'the test rig is a Linux PTY'

/** A PTY behind a link: unplugging hangs it up, replugging points the link to a new one. */
async function rig(): Promise<Rig> {
  const folder = await mkdtemp(join(tmpdir(), 'farport-'))
  const path = join(folder, 'device')
  let pty = ptyPair()
  await symlink(pty.slavePath, path)
  const port = await packagePort(path, { retryMs: 5 }).open({})
  const lacking = () => assert.fail('a PTY has no such thing')
  const remove = async () => {
    await rm(path)
    await pty[Symbol.asyncDispose]()
  }
  return {
    port,
    device: {
      get stream() {
        return pty.master
      },
      force: lacking,
      outputs: [],
      breaks: [],
      sendBreak: lacking,
      settings: () => ({ ...DEFAULT_SETTINGS, baudRate: pty.termios().ospeed }),
      unplug: remove,
      async replug() {
        pty = ptyPair()
        await symlink(pty.slavePath, path)
      },
    },
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      await pty[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
}

if (!skip)
  serialPortCompliance('serialport package', rig, {
    // The package changes nothing but the speed of an open port, and that with a flush.
    settings: { dataBits: [8], parity: ['none'], stopBits: [1], outputFlow: ['none'], inputFlow: ['none'] },
    observableSettings: ['baudRate'],
    speedChangeFlushes: true,
    outputLines: false,
    inputLines: [],
    breakOut: false,
    breakIn: false,
  })

test('the settings a port is opened with are those in force, as far as the package knows them', {
  skip,
}, async () => {
  await using pty = ptyPair()
  await using port = await packagePort(pty.slavePath).open({
    settings: { baudRate: 74880, stopBits: 2, inputFlow: 'rtscts', parity: 'mark' },
  })
  assert.deepEqual(port.settings, {
    baudRate: 74880,
    dataBits: 8,
    parity: 'none',
    stopBits: 2,
    outputFlow: 'rtscts',
    inputFlow: 'rtscts',
  })
  assert.equal(pty.termios().ospeed, 74880)
  assert.equal(port.description.modemLines, false)
})

test('the device gets back the speed it had', { skip }, async () => {
  await using same = await rig()
  const { port, device } = same
  await port.configure({ baudRate: 57600 })
  const away = new Promise((resolve) => port.once('state', resolve))
  await device.unplug()
  assert.equal(await away, 'absent')
  await port.configure({ baudRate: 38400 })
  const back = new Promise((resolve) => port.once('state', resolve))
  await device.replug()
  assert.equal(await back, 'open')
  assert.equal(device.settings().baudRate, 38400)
})

test('says what is wrong when a port can’t be opened', { skip }, async () => {
  await using pty = ptyPair()
  const source = packagePort(pty.slavePath)
  assert.equal(await source.present(), true)
  await using port = await source.open({})
  assert.equal(port.state, 'open')
  await assert.rejects(source.open({}), { code: 'ERR_PORT_BUSY' })

  const missing = packagePort('/dev/there-is-no-such-port')
  assert.equal(await missing.present(), false)
  await assert.rejects(missing.open({}), { code: 'ERR_DEVICE_ABSENT' })

  const file = packagePort(import.meta.filename)
  await assert.rejects(file.open({}), (error) => error instanceof FarportError && error.code === 'ERR_UNFIT')
})
