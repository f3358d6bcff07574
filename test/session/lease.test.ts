import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { FarportError } from '../../src/errors.ts'
import { Agent, type Opened, refusedWith, until } from '../support/agent.ts'

test('of two peers that come at the same moment one gets the port, and the other hears that it is in use', async () => {
  await using agent = new Agent()
  const opening = Promise.withResolvers<void>()
  agent.slow = opening.promise
  const first = agent.open({ peer: 'first' })
  await assert.rejects(agent.open({ peer: 'second' }), refusedWith('ERR_PORT_BUSY', /another peer/))
  // Taking over is from a holder, and there is none yet.
  await assert.rejects(agent.open({ peer: 'thief', steal: true }), refusedWith('ERR_PORT_BUSY'))
  opening.resolve()
  assert.equal((await first).port.state, 'open')
})

test('a holder without a byte for too long loses the port, and is told as if another had taken it', async () => {
  await using agent = new Agent({ idleTimeoutMs: 50 })
  const taken = Promise.withResolvers<FarportError>()
  const idle = await agent.open({
    peer: 'idle',
    onTaken: (error) => {
      idle.port.destroy()
      taken.resolve(error)
    },
  })
  const { code, message } = await taken.promise
  assert.deepEqual([code, message], ['ERR_PORT_BUSY', 'port was let go: no byte came or went for too long'])
  assert.equal((await agent.open({ peer: 'next' })).port.state, 'open')
  assert.equal(agent.closes()[0]?.reason, message)
})

/** A thief's claim on a port whose device fails at that very moment: the holder goes by itself, and then it opens. */
async function claimed(agent: Agent, opening: Promise<void>): Promise<{ thief: Promise<Opened> }> {
  const holder = await agent.open({ peer: 'holder' })
  let asked = 0
  agent.onAsked = (peer) => {
    // First whether it may use the port; then whether it may have it now, and from there on it is as good as its own.
    if (peer !== 'thief' || ++asked !== 2) return
    holder.unreachable = true
    agent.slow = opening
    agent.near?.destroy(new Error('it was pulled out'))
  }
  const thief = agent.open({ peer: 'thief', steal: true })
  thief.catch(() => {})
  await until(() => agent.closes().length === 1, 'the holder has lost it')
  return { thief }
}

test('a device that fails while its port is being taken over leaves the port to whoever comes next', async () => {
  await using agent = new Agent()
  const opening = Promise.withResolvers<void>()
  const { thief } = await claimed(agent, opening.promise)
  opening.reject(new FarportError('ERR_DEVICE_ABSENT', 'it is not plugged in'))
  await assert.rejects(thief, refusedWith('ERR_DEVICE_ABSENT', /not plugged in/))
  agent.slow = undefined
  assert.equal((await agent.open({ peer: 'next' })).port.state, 'open')
})

test('a port whose holder has gone by itself meanwhile is not told as taken over', async () => {
  await using agent = new Agent()
  const opening = Promise.withResolvers<void>()
  const { thief } = await claimed(agent, opening.promise)
  opening.resolve()
  assert.equal((await thief).port.state, 'open')
  assert.deepEqual(
    agent.told.map(({ event, peerId }) => [event, peerId]),
    [
      ['open', 'holder'],
      ['close', 'holder'],
      ['open', 'thief'],
    ],
  )
})

test('who waits for a port is told of once for each that holds it', async () => {
  await using agent = new Agent()
  const isRefusal = ({ event, peerId }: { event: string; peerId: string }) =>
    event === 'refuse' && peerId === 'waits'
  const refusals = () => agent.told.filter(isRefusal).length
  for (const [i, peer] of ['first', 'second'].entries()) {
    const holder = await agent.open({ peer })
    for (let tries = 0; tries < 3; tries++)
      await assert.rejects(agent.open({ peer: 'waits' }), refusedWith('ERR_PORT_BUSY'))
    assert.equal(refusals(), i + 1)
    holder.port.end()
    await once(holder.port, 'close')
  }
})

test('a port is taken over: the device is the same, the holder is told by whom, and waits until it is free', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const moved: string[] = []
  const said: string[] = []
  let taken: FarportError | undefined
  const loser = await agent.open({
    peer: 'loser',
    steal: true,
    onTaken: (error) => {
      taken = error
    },
  })
  await loser.port.configure({ baudRate: 57_600 })
  device.on('lines', () => moved.push('lines'))
  device.on('data', (bytes) => said.push(String(bytes)))
  loser.port.write('from the loser ')
  await loser.port.drain()

  const thief = await agent.open({ peer: 'thief', steal: true })
  assert.equal(thief.port.settings.baudRate, 57_600)
  thief.port.write('from the thief ')
  await until(() => said.join('') === 'from the loser from the thief ', 'in their order')
  await until(() => taken !== undefined, 'the loser is told')
  assert.deepEqual([taken?.code, taken?.message], ['ERR_PORT_BUSY', 'port was taken over by the thief'])
  assert.deepEqual([agent.opens, moved], [1, []])

  // It asks again, but for what is free.
  const asked = () => loser.carriers.length
  const before = asked()
  await until(() => asked() > before + 1, 'it asks again')
  assert.equal(thief.port.state, 'open')
  loser.port.write('later')
  const back = once(loser.port, 'state')
  thief.port.destroy()
  assert.deepEqual(await back, ['open'])
  await until(() => said.join('').endsWith('later'), 'it has the port')
  assert.equal(agent.opens <= 2, true)
  const story = agent.told.filter(({ event }) => ['open', 'close', 'steal'].includes(event))
  assert.deepEqual(
    story
      .slice(0, 5)
      .map((event) => [event.event, event.peerId, ...(event.event === 'steal' ? [event.from] : [])]),
    [
      ['open', 'loser'],
      ['close', 'loser'],
      ['steal', 'thief', 'loser'],
      ['open', 'thief'],
      ['close', 'thief'],
    ],
  )
  // Asking every now and then is not told each time.
  assert.equal(agent.told.filter(({ event, peerId }) => event === 'refuse' && peerId === 'loser').length, 1)
})

test('a holder that was away learns at its return who has taken the port', async () => {
  await using agent = new Agent()
  let taken: FarportError | undefined
  const loser = await agent.open({
    peer: 'loser',
    onTaken: (error) => {
      taken = error
      loser.port.destroy()
    },
  })
  loser.unreachable = true
  for (const carrier of loser.carriers) carrier.cut()
  await until(() => loser.events.some(({ state }) => state === 'down'), 'it knows')
  await agent.open({ peer: 'thief', steal: true })
  loser.unreachable = false
  await until(() => taken !== undefined, 'it is told')
  assert.match(taken?.message ?? '', /taken over by the thief/)
})

test('what a holder leaves behind does not come to the next one: a break, bytes that are stuck', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const said: string[] = []
  device.on('data', (bytes) => said.push(String(bytes)))
  const watcher = await agent.watch()
  watcher.port.resume()
  const loser = await agent.open({ peer: 'loser' })
  await loser.port.configure({ outputFlow: 'rtscts' })
  await loser.port.setBreak(true)
  const low = once(loser.port, 'lines')
  await device.setLines({ rts: false })
  await low
  // More than a port takes at once, and ended in order: it would have half a minute.
  loser.port.write("yesterday's commands ".repeat(2_000))
  loser.port.configure({ baudRate: 1200 }).catch(() => {})
  loser.port.end()
  // Until all of it is at the agent.
  for (let i = 0; i < 100; i++) await turn()
  const startedAt = performance.now()
  const thief = await agent.open({ peer: 'thief', steal: true })
  assert.ok(performance.now() - startedAt < 5_000, 'it does not wait for long')
  // Only the first break of two is one, unless it ended in between.
  const again = once(device, 'lineErrors')
  const cts = once(thief.port, 'lines')
  await device.setLines({ rts: true })
  await cts
  await thief.port.setBreak(true)
  await again
  await thief.port.setBreak(false)
  thief.port.write('today')
  await until(() => said.join('').endsWith('today'), 'it hears the new holder')
  assert.equal(said.join(''), 'today')
  assert.notEqual((await agent.watch()).port.settings.baudRate, 1200)
  assert.equal(agent.opens, 1)
})

test('only who may steal does, and only who may watch', async () => {
  await using agent = new Agent()
  agent.rights.set('guest', new Set(['watch', 'use']))
  agent.rights.set('blind', new Set(['configure']))
  agent.rights.set('reader', new Set(['watch']))
  const free = await agent.open({ peer: 'guest', steal: true })
  free.port.destroy()
  await until(() => !agent.isOpen, 'closed')
  const holder = await agent.open()
  await assert.rejects(
    agent.open({ peer: 'guest', steal: true }),
    refusedWith('ERR_NOT_GRANTED', /take it over/),
  )
  await assert.rejects(agent.open({ peer: 'guest' }), refusedWith('ERR_PORT_BUSY', /another peer/))
  await assert.rejects(agent.open({ peer: 'reader', steal: true }), refusedWith('ERR_NOT_GRANTED'))
  await assert.rejects(agent.watch({ peer: 'blind' }), refusedWith('ERR_NOT_GRANTED', /may not use port/))
  assert.equal(holder.port.state, 'open')
})
