import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { readMessage, writeMessage } from '../../src/wire/message.ts'
import { Agent, heardBy, refusedWith, until } from '../support/agent.ts'
import { CarrierPair } from '../support/carrier.ts'

test('the device stays open while anybody holds or watches it, and is the same for who comes later', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const dtr: boolean[] = []
  const watcher = await agent.watch()
  const seen = heardBy(watcher)
  assert.equal(device.lines.dsr, true)
  device.on('lines', ({ dsr }) => dtr.push(dsr))
  device.write('boot ')
  await until(() => seen.text() === 'boot ', 'the watcher alone hears it')

  const holder = await agent.open()
  await holder.port.configure({ baudRate: 19_200 })
  device.write('login ')
  holder.port.resume()
  await until(() => seen.text() === 'boot login ', 'both hear it')
  holder.port.end()
  await once(holder.port, 'close')
  await until(() => agent.closes().length === 1, 'the holder has left')
  device.write('bye')
  await until(() => seen.text() === 'boot login bye', 'the watcher alone hears it again')
  assert.equal((await agent.open({ peer: 'next' })).port.settings.baudRate, 19_200)
  assert.deepEqual([agent.opens, agent.isOpen, dtr], [1, true, []])

  await agent.host[Symbol.asyncDispose]()
  assert.equal(agent.isOpen, false)
})

test('the last to leave closes the device, and the next to come opens it again', async () => {
  await using agent = new Agent()
  for (const mode of ['watch', 'use', 'watch'] as const) {
    const { port } = await agent.open({ mode })
    port.end()
    await once(port, 'close')
    await until(() => !agent.isOpen, 'closed')
  }
  assert.equal(agent.opens, 3)
  const together = await Promise.all([agent.open(), agent.watch(), agent.watch({ peer: 'another' })])
  assert.equal(agent.opens, 4)
  for (const { port } of together) port.destroy()
  await until(() => !agent.isOpen, 'closed')
})

test('a channel to watch is not one to use, and the other way round', async () => {
  await using agent = new Agent()
  const hello = async (mode: 'use' | 'watch', channel: string, fresh: boolean) => {
    const carrier = new CarrierPair()
    void agent.host.accept(carrier.b, 'client')
    writeMessage(carrier.a, { version: 1, port: 'port', mode, channel, fresh, received: 0, resumeMs: 1000 })
    const answer = (await readMessage(carrier.a, AbortSignal.timeout(5_000))) as {
      ok: boolean
      code?: string
    }
    return answer.ok ? 'welcome' : answer.code
  }
  for (const [one, other] of [
    ['use', 'watch'],
    ['watch', 'use'],
  ] as const) {
    const channel = randomBytes(16).toString('hex')
    assert.equal(await hello(one, channel, true), 'welcome')
    assert.equal(await hello(other, channel, false), 'ERR_CHANNEL_LOST')
    assert.equal(await hello(one, channel, false), 'welcome')
  }
})

test('a right that is withdrawn ends what lived by it, and nothing else', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open({ peer: 'holder' })
  const cut = await agent.watch({ peer: 'cut' })
  const stays = await agent.watch({ peer: 'stays' })
  const [seen, none] = [heardBy(stays), heardBy(cut)]
  agent.rights.set('cut', new Set(['configure']))
  agent.rights.set('holder', new Set(['watch']))
  const lost = Promise.all([once(cut.port, 'state'), once(holder.port, 'state')])
  agent.host.enforce()
  assert.deepEqual(await lost, [['absent'], ['absent']])
  device.write('secret')
  await until(() => seen.text() === 'secret', 'the other watcher hears it')
  assert.equal(none.text(), '')
  assert.deepEqual(
    agent
      .closes()
      .map(({ peerId }) => peerId)
      .sort(),
    ['cut', 'holder'],
  )
})

test('a right that is withdrawn, or an agent that ends, while the device opens counts', async () => {
  for (const mode of ['use', 'watch'] as const) {
    await using agent = new Agent()
    const opening = Promise.withResolvers<void>()
    agent.slow = opening.promise
    const refused = assert.rejects(agent.open({ mode }), refusedWith('ERR_NOT_GRANTED'))
    for (let i = 0; i < 20; i++) await turn()
    agent.rights.set('client', new Set())
    agent.host.enforce()
    opening.resolve()
    await refused
    await until(() => !agent.isOpen, 'closed')

    agent.rights.clear()
    const late = Promise.withResolvers<void>()
    agent.slow = late.promise
    const ended = assert.rejects(agent.open({ mode }), refusedWith('ERR_CHANNEL_LOST', /shutting down/))
    for (let i = 0; i < 20; i++) await turn()
    const closed = agent.host[Symbol.asyncDispose]()
    late.resolve()
    await ended
    await closed
    assert.equal(agent.isOpen, false)
  }
})

test('a device that is unplugged is so for all who use it, and comes back to all', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const both = [await agent.open({ peer: 'holder' }), await agent.watch()]
  await Promise.all(both.map(({ port }) => port.drain()))
  const away = Promise.all(both.map(({ port }) => once(port, 'state')))
  agent.near?.unplug()
  assert.deepEqual(await away, [['absent'], ['absent']])
  for (const { port, events } of both) {
    assert.deepEqual(events.at(-1), { state: 'absent' })
    assert.deepEqual(port.lines, { cts: false, dsr: false, ri: false, dcd: false })
  }
  const [status] = await agent.host.statuses()
  assert.equal(status?.state, 'waiting')
  const late = await agent.watch({ peer: 'late' })
  if (late.port.state === 'open') await once(late.port, 'state')
  assert.equal((await agent.list('watcher'))?.state, 'held')

  const back = Promise.all([...both, late].map(({ port }) => once(port, 'state')))
  agent.near?.plug()
  assert.deepEqual(await back, [['open'], ['open'], ['open']])
  const heard = both.map(heardBy)
  device.write('again')
  await until(() => heard.every(({ text }) => text() === 'again'), 'both hear it')
  assert.equal((await agent.host.statuses())[0]?.state, 'open')
})

test('a listing tells who holds a port to itself and to who could take it, and how many watch', async () => {
  await using agent = new Agent()
  agent.rights.set('guest', new Set(['watch', 'use']))
  agent.rights.set('stranger', new Set())
  assert.deepEqual(
    [(await agent.list('guest'))?.state, (await agent.list('guest'))?.holder],
    ['free', undefined],
  )
  await agent.watch()
  assert.deepEqual([(await agent.list('guest'))?.state, (await agent.list('guest'))?.watchers], ['free', 1])
  await agent.open({ peer: 'guest' })
  assert.deepEqual((await agent.list('guest'))?.holder, { you: true, name: 'the guest' })
  assert.deepEqual((await agent.list('thief'))?.holder, { you: false, name: 'the guest' })
  agent.rights.set('other', new Set(['watch', 'use']))
  assert.deepEqual((await agent.list('other'))?.holder, { you: false })
  assert.equal(await agent.list('stranger'), undefined)
})

test('a port that only a lost program of a peer holds is free to that peer, and to nobody else', async () => {
  await using agent = new Agent()
  const ghost = await agent.open({ peer: 'client' })
  assert.deepEqual((await agent.list('client'))?.holder, { you: true, name: 'the client' })
  ghost.unreachable = true
  for (const carrier of ghost.carriers) carrier.cut()
  await until(() => ghost.events.some(({ state }) => state === 'down'), 'its program is dead')
  assert.deepEqual(
    [(await agent.list('client'))?.state, (await agent.list('other'))?.state],
    ['free', 'held'],
  )
  const [status] = await agent.host.statuses()
  assert.equal(status?.holder, 'client')
})
