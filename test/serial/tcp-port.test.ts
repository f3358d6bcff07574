import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { DEFAULT_SETTINGS } from '../../src/serial/settings.ts'
import { tcpPort } from '../../src/serial/tcp-port.ts'
import { type Device, type Rig, serialPortCompliance } from '../compliance/serial-port.ts'

const host = '127.0.0.1'

/** The device: whatever socket there is at the moment, as one stream. */
class Far extends Duplex {
  #socket: Socket | undefined
  #waiting: (() => void) | undefined

  plug(socket: Socket): void {
    this.#socket = socket
    socket
      .on('error', () => {})
      .on('data', (chunk) => {
        if (!this.push(chunk)) socket.pause()
      })
    this.#waiting?.()
  }

  unplug(): void {
    this.#socket?.destroy()
    this.#socket = undefined
  }

  override _read(): void {
    this.#socket?.resume()
  }

  override _write(bytes: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    if (this.#socket) this.#socket.write(bytes, () => done())
    else
      this.#waiting = () => {
        this.#waiting = undefined
        this._write(bytes, _encoding, done)
      }
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.unplug()
    done(error)
  }
}

async function listen(far: Far, port = 0): Promise<Server> {
  const server = createServer({ allowHalfOpen: false }, (socket) => far.plug(socket)).listen(port, host)
  await once(server, 'listening')
  return server
}

async function rig(): Promise<Rig> {
  const far = new Far()
  let server = await listen(far)
  const { port: number } = server.address() as AddressInfo
  const port = await tcpPort({ host, port: number }).open({})
  const device: Device = {
    stream: far,
    force: () => {},
    outputs: [],
    breaks: [],
    sendBreak: () => {},
    settings: () => assert.fail('TCP shows no settings'),
    unplug: () => {
      server.close()
      far.unplug()
    },
    replug: async () => {
      server = await listen(far, number)
    },
  }
  return {
    port,
    device,
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      far.destroy()
      server.close()
    },
  }
}

serialPortCompliance('tcp port', rig, {
  observableSettings: [],
  outputLines: false,
  inputLines: [],
  breakOut: false,
  breakIn: false,
  holdsBytes: 14 * 1024 * 1024,
})

test('settings, lines and breaks are taken and change nothing', async () => {
  await using all = await rig()
  const { port, device } = all
  const settings = { ...DEFAULT_SETTINGS, baudRate: 115_200, dataBits: 7, parity: 'even' } as const
  assert.deepEqual(await port.configure(settings), settings)
  assert.deepEqual(await port.setLines({ rts: false }), { dtr: true, rts: false })
  await port.setBreak(true)
  port.write('x')
  assert.equal(String((await once(device.stream, 'data'))[0]), 'x')
})

test('nobody there is absent, somebody is present', async () => {
  const nobody = tcpPort({ host, port: 1 })
  assert.equal(await nobody.present(), false)
  await assert.rejects(nobody.open({}), { code: 'ERR_DEVICE_ABSENT', message: /127\.0\.0\.1:1 refuses/ })
  const server = await listen(new Far())
  const { port } = server.address() as AddressInfo
  assert.equal(await tcpPort({ host, port }).present(), true)
  server.close()
})

test('an open that is called off ends with the reason', async () => {
  const reason = new Error('enough')
  await assert.rejects(
    tcpPort({ host, port: 1 }).open({ signal: AbortSignal.abort(reason) }),
    (e) => e === reason,
  )
})
