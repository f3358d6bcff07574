import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { type Attachment, MemoryPort, type MemoryPortOptions } from '../../src/serial/memory-port.ts'
import type { OutputLines } from '../../src/serial/port.ts'
import { type Device, type Rig, serialPortCompliance } from '../compliance/serial-port.ts'

/** A device with everything: it moves each line by itself, sees breaks end, and is told when it is unplugged. */
class Bench extends Duplex implements Attachment {
  readonly port: MemoryPort
  readonly outputs: OutputLines[] = []
  readonly breaks: boolean[] = []
  #taking = true
  #unsent: { bytes: Uint8Array; readonly done: () => void } | undefined

  constructor(options: Partial<MemoryPortOptions> = {}) {
    super()
    this.port = new MemoryPort({
      description: { path: 'bench', modemLines: true },
      attach: () => this,
      ...options,
    })
  }

  onBytes(bytes: Uint8Array): number {
    if (!this.#taking) return 0
    this.#taking = this.push(Buffer.from(bytes))
    return bytes.length
  }

  onRoom(): void {
    if (this.#unsent) this.#send(this.#unsent)
  }

  onOutputs(outputs: Readonly<OutputLines>): void {
    this.outputs?.push(outputs)
  }

  onBreak(on: boolean): void {
    this.breaks.push(on)
  }

  onClose(): void {}

  override _read(): void {
    this.#taking = true
    this.port?.transmitMore()
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#send({ bytes, done })
  }

  #send(unsent: { bytes: Uint8Array; readonly done: () => void }): void {
    this.#unsent = unsent
    while (unsent.bytes.length > 0) {
      const taken = this.port.receive(unsent.bytes)
      if (taken === 0) return
      unsent.bytes = unsent.bytes.subarray(taken)
    }
    this.#unsent = undefined
    unsent.done()
  }
}

async function rig(): Promise<Rig> {
  const bench = new Bench()
  const { port } = bench
  const device: Device = {
    stream: bench,
    force: (lines) => port.drive(lines),
    outputs: bench.outputs,
    breaks: bench.breaks,
    sendBreak: () => port.report({ break: 1 }),
    settings: () => port.settings,
    unplug: () => port.unplug(),
    replug: () => port.plug(),
  }
  return {
    port,
    device,
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      bench.destroy()
    },
  }
}

serialPortCompliance('memory port', rig)

test('XOFF stops the output, XON lets it go on, and neither is read', async () => {
  const bench = new Bench()
  await using port = bench.port
  await port.configure({ outputFlow: 'xonxoff' })
  bench.write('a\x13b')
  port.write('stopped')
  assert.equal(String(port.read()), 'ab')
  assert.equal(bench.read(), null)
  bench.write('\x11')
  assert.equal(String(bench.read()), 'stopped')
  assert.equal(port.read(), null)
})

test('an output stopped by XOFF goes on when that flow control is switched off', async () => {
  const bench = new Bench()
  await using port = bench.port
  await port.configure({ outputFlow: 'xonxoff' })
  bench.write('\x13')
  port.write('stopped')
  assert.equal(bench.read(), null)
  await port.configure({ outputFlow: 'none' })
  assert.equal(String(bench.read()), 'stopped')
  bench.write('\x13')
  assert.equal(String(port.read()), '\x13', 'without flow control it is a byte like others')
  await port.configure({ outputFlow: 'xonxoff' })
  port.write('not stopped any more')
  assert.equal(String(bench.read()), 'not stopped any more')
})

for (const [outputFlow, line] of [
  ['dsr', 'dsr'],
  ['dcd', 'dcd'],
  ['rtscts', 'cts'],
] as const) {
  test(`output flow ${outputFlow} goes by ${line.toUpperCase()}`, async () => {
    const bench = new Bench()
    await using port = bench.port
    port.drive({ cts: true, dsr: true, dcd: true, [line]: false })
    await port.configure({ outputFlow })
    port.write('stopped')
    assert.equal(bench.read(), null)
    port.drive({ [line]: true })
    assert.equal(String(bench.read()), 'stopped')
  })
}

test('an unplugged port has no line high, whatever the device does', async () => {
  const bench = new Bench()
  await using port = bench.port
  port.drive({ cts: true, dcd: true })
  port.unplug()
  const low = { cts: false, dsr: false, ri: false, dcd: false }
  assert.deepEqual(port.lines, low)
  port.drive({ dsr: true, dcd: false })
  assert.deepEqual(port.lines, low)
  port.plug()
  assert.deepEqual(port.lines, { cts: true, dsr: true, ri: false, dcd: false })
})

test('bytes take the time that the settings say', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 5000 })
  let sent = 0
  await using port = new MemoryPort({
    description: { path: 'paced', modemLines: true },
    paced: true,
    clock: Date.now,
    attach: () => ({
      onBytes(bytes) {
        sent += bytes.length
        return bytes.length
      },
      onRoom() {},
      onOutputs() {},
      onBreak() {},
      onClose() {},
    }),
  })
  const sentAt = (ms: number) => {
    while (Date.now() < 5000 + ms) t.mock.timers.tick(1)
    return sent
  }
  // A start bit, seven data bits, parity and two stop bits: 11 bits a byte, 100 bytes a second.
  await port.configure({ baudRate: 1100, dataBits: 7, parity: 'even', stopBits: 2 })
  port.write(Buffer.alloc(50))
  assert.deepEqual([9, 10, 11, 100, 250, 499, 500, 600].map(sentAt), [0, 1, 1, 10, 25, 49, 50, 50])

  // Nothing was saved up in the idle time.
  port.write(Buffer.alloc(50))
  assert.deepEqual([609, 610, 1100].map(sentAt), [50, 51, 100])

  // Purged in the middle: the line is free at once.
  port.write(Buffer.alloc(50))
  assert.equal(sentAt(1205), 110)
  await port.purge('tx')
  port.write(Buffer.alloc(1))
  assert.deepEqual([1214, 1215, 1500].map(sentAt), [110, 111, 111])
})
