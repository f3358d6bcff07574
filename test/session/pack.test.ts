import assert from 'node:assert/strict'
import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { test } from 'node:test'
import { pino } from 'pino'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { Packing } from '../../src/serial/packer.ts'
import { servePort } from '../../src/session/serve.ts'

const log = pino({ level: 'silent' })
/** Longer than any test takes: what arrives has not waited for it. */
const NEVER_MS = 60_000

/** A port that is served to `program`, which speaks RFC 2217 by hand, and the device at its line. */
async function served(pack: Packing) {
  const { a, b } = nullModemSources('test')
  const [port, device] = await Promise.all([a.open({}), b.open({})])
  const [program, stream] = duplexPair()
  const ended = servePort(stream, port, { may: () => true, pack, log })
  const pieces: string[] = []
  const chunks: Buffer[] = []
  program.on('data', (bytes: Buffer) => void chunks.push(bytes))
  device.on('data', (bytes: Buffer) => void pieces.push(bytes.toString('latin1')))
  return {
    port,
    device,
    program,
    ended,
    pieces,
    chunks,
    /** Waits until the program has heard this. */
    async heard(bytes: Buffer): Promise<void> {
      while (!Buffer.concat(chunks).includes(bytes)) await once(program, 'data')
    },
    async [Symbol.asyncDispose]() {
      program.destroy()
      await ended
      await port[Symbol.asyncDispose]()
      await device[Symbol.asyncDispose]()
    },
  }
}

const command = (...bytes: number[]) => Buffer.from([0xff, 0xfa, 44, ...bytes, 0xff, 0xf0])
const PURGE_RX = command(12, 1)
const PURGE_TX = command(12, 2)
const DTR_OFF = command(5, 9)
const ASK_BAUD = command(1, 0, 0, 0, 0)

test('a frame that comes in pieces is one write, whatever is in it', async () => {
  await using line = await served({ gapMs: 20 })
  line.program.write(Buffer.from([0x01, 0x03, 0x00]))
  line.program.write(Buffer.from([0xff, 0xff, 0xff]))
  line.program.write(Buffer.from([0xff, 0x7c]))
  await once(line.device, 'data')
  assert.deepEqual(line.pieces, ['\x01\x03\x00\xff\xff\x7c'])
})

test('what the device sends in pieces is one write to the program', async () => {
  await using line = await served({ until: '\n', gapMs: NEVER_MS })
  for (const bytes of ['a', 'bc', '\xff', 'd\ne']) line.device.write(Buffer.from(bytes, 'latin1'))
  await line.heard(Buffer.from('\n'))
  assert.equal(line.chunks.at(-1)?.toString('latin1'), 'abc\xff\xffd\n')
})

test('a command comes behind the bytes before it', async () => {
  await using line = await served({ gapMs: NEVER_MS })
  const order: string[] = []
  line.device.on('data', (bytes: Buffer) => void order.push(bytes.toString()))
  line.device.on('lines', ({ dsr }) => void order.push(`dsr ${dsr}`))
  const moved = once(line.device, 'lines')
  line.program.write(Buffer.concat([Buffer.from('x'), DTR_OFF]))
  await moved
  assert.deepEqual(order, ['x', 'dsr false'])
})

test('a purge drops what waits for the device', async () => {
  await using line = await served({ gapMs: NEVER_MS })
  line.program.write(Buffer.concat([Buffer.from('old'), PURGE_TX, Buffer.from('new'), ASK_BAUD]))
  await once(line.device, 'data')
  assert.deepEqual(line.pieces, ['new'])
})

test('a purge drops what waits for the program', async () => {
  await using line = await served({ until: '\n', gapMs: NEVER_MS })
  const taken = once(line.port, 'data')
  line.device.write('old')
  await taken
  line.program.write(PURGE_RX)
  await line.heard(command(112, 1))
  line.device.write('new\n')
  await line.heard(Buffer.from('\n'))
  assert.equal(line.chunks.at(-1)?.toString(), 'new\n')
})

test('a program that leaves has its last bytes written', async () => {
  await using line = await served({ gapMs: NEVER_MS })
  line.program.end('last')
  await line.ended
  assert.deepEqual(line.pieces, ['last'])
})

test('the device is heard to its last byte when the program has said its own', async () => {
  await using line = await served({ gapMs: NEVER_MS })
  const taken = once(line.port, 'data')
  line.device.write('last')
  await taken
  line.program.end()
  await line.heard(Buffer.from('last'))
})
