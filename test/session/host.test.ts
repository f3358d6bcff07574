import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { FarportError } from '../../src/errors.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { PortSource } from '../../src/serial/port.ts'
import type { Right } from '../../src/trust/grants.ts'
import { readMessage, writeMessage } from '../../src/wire/message.ts'
import { SessionPair } from '../support/session-pair.ts'
import { until } from '../support/until.ts'

const refusedWith = (code: string) => (error: unknown) => error instanceof FarportError && error.code === code

function gone(): PortSource {
  return {
    description: { path: '/dev/gone', modemLines: true },
    present: async () => false,
    open: async () => {
      throw new FarportError('ERR_DEVICE_ABSENT', 'it is not plugged in')
    },
  }
}

test('refusals come with their code, and rights come before existence', async () => {
  const { a } = nullModemSources('test')
  await using pair = new SessionPair({ port: a, gone: gone() })
  await assert.rejects(pair.open('nothing'), refusedWith('ERR_NO_SUCH_PORT'))
  await assert.rejects(pair.open('gone'), refusedWith('ERR_DEVICE_ABSENT'))
  const port = await pair.open('port')
  await assert.rejects(pair.open('port', { peer: 'another' }), refusedWith('ERR_PORT_BUSY'))
  await assert.rejects(pair.open('port'), refusedWith('ERR_PORT_BUSY'))
  pair.rights = new Set<Right>(['watch'])
  await assert.rejects(pair.open('nothing'), refusedWith('ERR_NOT_GRANTED'))
  await assert.rejects(pair.open('port'), refusedWith('ERR_NOT_GRANTED'))
  await port[Symbol.asyncDispose]()
})

test('a port is free again as soon as its holder has closed it', async () => {
  const { a } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  for (const peer of ['one', 'two', 'one']) {
    const port = await pair.open('port', { peer })
    port.end()
    await once(port, 'close')
  }
})

test('who comes while the last bytes of a holder that has left are stuck waits, and gets the port', async () => {
  const { a, b } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  // It reads nothing, and what it has room for is soon full.
  await using device = await b.open({ signal: AbortSignal.timeout(5_000) })
  const first = await pair.open('port')
  first.on('error', () => {})
  first.write(Buffer.alloc(512 * 1024))
  await until('bytes are at the device', () => device.readableLength > 0)
  first.destroy()
  await until('the host has heard of it', () => pair.carriers().length === 0)
  const second = await pair.open('port', { peer: 'another' })
  await second[Symbol.asyncDispose]()
})

test('a peer whose program died gets its port back at once, another peer does not', async () => {
  const { a } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  const ghost = await pair.open('port')
  pair.unreachable = new Error('the program is dead')
  const down = new Promise<void>((resolve) => {
    pair.events.push = (...events) => {
      resolve()
      return events.length
    }
  })
  pair.cut()
  await down
  pair.unreachable = undefined
  await assert.rejects(pair.open('port', { peer: 'another' }), refusedWith('ERR_PORT_BUSY'))
  ghost.destroy()
  const port = await pair.open('port')
  await port[Symbol.asyncDispose]()
})

test('a withdrawn right ends the channel', async () => {
  const { a } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  const port = await pair.open('port')
  pair.rights = new Set()
  const [state] = (await Promise.all([once(port, 'state'), pair.host.enforce()]))[0]
  assert.equal(state, 'absent')
  await port[Symbol.asyncDispose]()
})

test('what a peer may not do is answered with what is in force, and does not happen', async () => {
  const { a, b } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  pair.rights = new Set<Right>(['watch', 'use'])
  const far = await b.open({})
  const port = await pair.open('port')
  const before = port.settings.baudRate
  assert.equal((await port.configure({ baudRate: 1200 })).baudRate, before)
  assert.deepEqual(await port.setLines({ dtr: false, rts: false }), { dtr: true, rts: true })
  assert.deepEqual({ cts: far.lines.cts, dsr: far.lines.dsr }, { cts: true, dsr: true })
  await port[Symbol.asyncDispose]()
  await far[Symbol.asyncDispose]()
})

test('a channel belongs to the peer that opened it', async () => {
  const { a } = nullModemSources('test')
  await using pair = new SessionPair({ port: a })
  const hello = {
    version: 1,
    port: 'port',
    mode: 'use',
    channel: '00'.repeat(16),
    received: 0,
    resumeMs: 1000,
  }
  const owner = pair.connect('owner')
  writeMessage(owner, { ...hello, fresh: true })
  assert.equal(((await readMessage(owner, AbortSignal.timeout(5000))) as { ok: boolean }).ok, true)
  const thief = pair.connect('thief')
  writeMessage(thief, { ...hello, fresh: false })
  const answer = (await readMessage(thief, AbortSignal.timeout(5000))) as { ok: boolean; code: string }
  assert.deepEqual({ ok: answer.ok, code: answer.code }, { ok: false, code: 'ERR_CHANNEL_LOST' })
  owner.destroy()
})

for (const [what, bytes] of [
  ['an endless message', Buffer.from([0xff, 0xff, 0x7b])],
  ['no JSON', Buffer.from([0, 3, 0x7b, 0x7b, 0x7b])],
  ['another version', frame({ version: 2, port: 'port' })],
  ['a port that is not a name', frame({ version: 1, port: 7, mode: 'use' })],
  [
    'counts out of range',
    frame({
      version: 1,
      port: 'p',
      mode: 'use',
      channel: '00'.repeat(16),
      fresh: true,
      received: -1,
      resumeMs: 0,
    }),
  ],
] as const) {
  test(`a hello with ${what} is refused with one typed answer`, async () => {
    const { a } = nullModemSources('test')
    await using pair = new SessionPair({ port: a })
    const stream = pair.connect()
    stream.write(bytes)
    const answer = (await readMessage(stream, AbortSignal.timeout(5000))) as { ok: boolean; code: string }
    assert.deepEqual({ ok: answer.ok, code: answer.code }, { ok: false, code: 'ERR_PROTOCOL' })
    stream.destroy()
  })
}

function frame(message: object): Buffer {
  const body = Buffer.from(JSON.stringify(message))
  return Buffer.concat([Buffer.from([body.length >> 8, body.length & 0xff]), body])
}
