import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { pino } from 'pino'
import { FarportError } from '../../src/errors.ts'
import type { MemoryPort } from '../../src/serial/memory-port.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { PortSource, SerialPort } from '../../src/serial/port.ts'
import { type HostEvent, PortHost } from '../../src/session/host.ts'
import type { CarrierPath, KeeperOptions } from '../../src/session/keeper.ts'
import { type Listing, portsQuestion, readPorts } from '../../src/session/listing.ts'
import { openRemotePort, type RemoteEvent } from '../../src/session/remote.ts'
import type { Right } from '../../src/trust/grants.ts'
import { readMessage, writeMessage } from '../../src/wire/message.ts'
import { CarrierPair } from '../support/carrier.ts'
import { receive, send } from '../support/exchange.ts'

const log = pino({ level: 'silent' })
const ALL: Right[] = ['watch', 'use', 'configure', 'lines', 'steal']
const MIB = 1024 * 1024

type Wish = Pick<KeeperOptions, 'mode' | 'steal' | 'replayBytes' | 'onTaken'> & {
  peer?: string
  resumeMs?: number
}

interface Opened {
  readonly port: SerialPort
  readonly events: RemoteEvent[]
  /** Its carriers, the oldest first; `unreachable` keeps new ones from being had. */
  readonly carriers: CarrierPair[]
  unreachable: boolean
  /** New carriers take this path, which has become the best one. */
  prefer(path: CarrierPath): void
}

/** An agent that shares one end of a null-modem cable as `port`; the device is at the other end. */
class Agent implements AsyncDisposable {
  readonly rights = new Map<string, Set<Right>>()
  readonly told: HostEvent[] = []
  readonly host: PortHost
  opens = 0
  /** The device opens when it has resolved. */
  slow: Promise<void> | undefined
  isOpen = false
  /** The shared end of the cable, since it was opened last. */
  near: MemoryPort | undefined
  #device: Promise<MemoryPort> | undefined
  readonly #far: PortSource
  readonly #opened: SerialPort[] = []

  constructor({ replayBytes }: { replayBytes?: number } = {}) {
    const { a, b } = nullModemSources('test')
    this.#far = b
    const source: PortSource = {
      ...a,
      open: async (options) => {
        const port = await a.open(options)
        this.near = port as MemoryPort
        await this.slow
        this.opens++
        this.isOpen = true
        port.once('close', () => {
          this.isOpen = false
        })
        return port
      },
    }
    this.host = new PortHost({
      ports: [{ name: 'port', source, ...(replayBytes !== undefined && { replayBytes }) }],
      rights: (peer) => this.rights.get(peer) ?? new Set(ALL),
      nameOf: (peer) => `the ${peer}`,
      tell: (event) => void this.told.push(event),
      log,
    })
  }

  /** What the port is wired to. */
  device(): Promise<MemoryPort> {
    this.#device ??= this.#far.open({}) as Promise<MemoryPort>
    return this.#device
  }

  async open({ peer = 'client', resumeMs = 30_000, ...wish }: Wish = {}): Promise<Opened> {
    let path: CarrierPath = { id: 'over the relay', kind: 'relayed' }
    let announce = (_path: CarrierPath) => {}
    const opened = {
      events: [] as RemoteEvent[],
      carriers: [] as CarrierPair[],
      unreachable: false,
      prefer: (better: CarrierPath) => {
        path = better
        announce(better)
      },
    }
    const port = await openRemotePort(
      {
        port: 'port',
        ...wish,
        connect: async () => {
          if (opened.unreachable) throw new Error('no way there')
          const carrier = new CarrierPair()
          opened.carriers.push(carrier)
          void this.host.accept(carrier.b, peer)
          return { stream: carrier.a, path }
        },
        onBestPath: (listener) => {
          announce = listener
          return () => {}
        },
        resumeMs,
        report: (event) => void opened.events.push(event),
        log,
      },
      AbortSignal.timeout(5_000),
    )
    this.#opened.push(port)
    return Object.assign(opened, { port })
  }

  async watch(wish: Wish = {}): Promise<Opened> {
    return await this.open({ peer: 'watcher', mode: 'watch', ...wish })
  }

  async list(peer: string): Promise<Listing | undefined> {
    const carrier = new CarrierPair()
    void this.host.answerPorts(carrier.b, peer)
    carrier.a.write(portsQuestion(undefined))
    const [listing] = await readPorts(carrier.a, AbortSignal.timeout(5_000))
    return listing
  }

  closes(): (HostEvent & { event: 'close' })[] {
    return this.told.filter((event) => event.event === 'close')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const port of this.#opened) port.destroy()
    await this.host[Symbol.asyncDispose]()
    await (await this.#device)?.[Symbol.asyncDispose]()
  }
}

/** What a port has brought so far, growing. */
function heardBy({ port }: Opened): { text: () => string } {
  const chunks: Buffer[] = []
  port.on('data', (chunk: Buffer) => void chunks.push(chunk))
  return { text: () => Buffer.concat(chunks).toString('latin1') }
}

/** Turns of the event loop until it is so, at most for as long as a test should take. */
async function until(isSo: () => boolean, what: string): Promise<void> {
  const giveUpAt = performance.now() + 5_000
  while (!isSo()) {
    if (performance.now() > giveUpAt) assert.fail(`never: ${what}`)
    await turn()
  }
}

const refusedWith =
  (code: string, words = /./) =>
  (error: unknown) =>
    error instanceof FarportError && error.code === code && words.test(error.message)

test('a watcher gets what the device sent before, up to what is kept, and from now on, like the holder', async () => {
  await using agent = new Agent({ replayBytes: 8 })
  const device = await agent.device()
  const holder = await agent.open()
  const held = heardBy(holder)
  device.write('0123456789')
  await until(() => held.text() === '0123456789', 'the holder hears it')
  const all = heardBy(await agent.watch())
  const some = heardBy(await agent.watch({ replayBytes: 3 }))
  const none = heardBy(await agent.watch({ replayBytes: 0 }))
  device.write('abc')
  await until(() => none.text() === 'abc', 'what comes now')
  await until(() => some.text() === '789abc', 'the last three')
  await until(() => all.text() === '23456789abc', 'all that is kept')
  assert.equal(held.text(), '0123456789abc')
})

test('nothing a watcher does reaches the device, and it is told so', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const atDevice: string[] = []
  device.on('data', (bytes) => atDevice.push(String(bytes)))
  device.on('lineErrors', () => atDevice.push('break'))
  const holder = await agent.open()
  const { port } = await agent.watch()
  const { settings, outputs } = holder.port
  device.on('lines', () => atDevice.push('lines'))
  port.write('rm -rf /')
  assert.deepEqual(await port.configure({ baudRate: 1200, parity: 'even' }), settings)
  assert.deepEqual(await port.setLines({ dtr: !outputs.dtr, rts: !outputs.rts }), outputs)
  await port.setBreak(true)
  await port.setBreak(false)
  // What the holder has not read yet would be lost to a purge of the device.
  holder.port.pause()
  await port.purge('both')
  await port.drain()
  port.end()
  await once(port, 'close')
  await until(() => agent.closes().length === 1, 'the watcher has left')
  holder.port.write('.')
  await until(() => atDevice.length > 0, 'the device hears the holder')
  assert.deepEqual(atDevice, ['.'])
  assert.deepEqual(holder.port.settings, settings)
  const [close] = agent.closes()
  assert.deepEqual([close?.mode, close?.toDevice, close?.ignored], ['watch', 0, 8])
  assert.ok(!agent.told.some(({ event }) => event === 'configure' || event === 'lines'))
})

test('a watcher is told of settings that the holder makes, and of lines that the device moves', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  const { port } = await agent.watch()
  // The first answer says that RFC 2217 is agreed upon.
  await port.setLines({ dtr: true })
  const settings = once(port, 'settings')
  await holder.port.configure({ baudRate: 57_600, dataBits: 7, parity: 'even' })
  await settings
  assert.deepEqual(
    [port.settings.baudRate, port.settings.dataBits, port.settings.parity],
    [57_600, 7, 'even'],
  )
  const lines = once(port, 'lines')
  await device.setLines({ rts: false })
  await lines
  assert.equal(port.lines.cts, false)
})

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

test('a watcher that does not read holds back nobody; what it misses is marked where it is missing', async () => {
  const total = 8 * MIB
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  const stalled = await agent.watch({ replayBytes: 0 })
  const [one, two] = [await agent.watch({ peer: 'one' }), await agent.watch({ peer: 'two' })]
  const gaps: number[] = []
  let taken = 0
  stalled.port.on(
    'lineErrors',
    ({ overrun }) => overrun > 0 && gaps.push(taken + stalled.port.readableLength),
  )
  // Never further ahead of those who read than a line is: in memory a device is faster than any event loop.
  const readers = [holder, one, two]
  const progress = readers.map(() => 0)
  const line = new Writable({
    async write(bytes: Buffer, _encoding, done) {
      sentBytes += bytes.length
      await until(() => Math.min(...progress) > sentBytes - MIB / 4, 'those who read keep up')
      device.write(bytes, done)
    },
  })
  let sentBytes = 0
  const [sent, ...received] = await Promise.all([
    send(line, total),
    ...readers.map(({ port }, i) =>
      receive(port, total, (bytes) => {
        progress[i] = bytes
      }),
    ),
  ])
  assert.deepEqual(received, [sent, sent, sent])
  assert.deepEqual(gaps, [])

  const rest: Buffer[] = []
  stalled.port.on('data', (bytes: Buffer) => {
    taken += bytes.length
    rest.push(bytes)
  })
  await until(() => gaps.length > 0, 'the gap is marked')
  for (const { port } of readers) port.resume()
  const end = Buffer.from('the end')
  await until(() => {
    device.write(end)
    return Buffer.concat(rest.slice(-20)).includes(end)
  }, 'the watcher is live again')
  assert.equal(gaps.length, 1)
  const before = Buffer.concat(rest).subarray(0, gaps[0])
  assert.ok(before.length >= 0.9 * MIB, `${before.length} bytes before the gap`)
  assert.ok(before.length < 2 * MIB, `${before.length} bytes before the gap`)
  assert.equal(String(Buffer.concat(rest).subarray(gaps[0], (gaps[0] ?? 0) + end.length)), String(end))
  stalled.port.destroy()
  await until(() => agent.closes().length === 1, 'it has left')
  const [close] = agent.closes()
  assert.ok((close?.skipped ?? 0) >= total - 2 * MIB, `${close?.skipped} skipped`)
})

test('however slow those who watch are, the holder gets every byte as fast as the device sends', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  const watchers = [await agent.watch(), await agent.watch(), await agent.watch()]
  watchers[0]?.port.resume()
  for (const carrier of watchers[1]?.carriers ?? []) carrier.stall()
  const [sent, received] = await Promise.all([send(device, 8 * MIB), receive(holder.port, 8 * MIB)])
  assert.equal(received, sent)
})

test('a holder that does not read holds back the device, as it does without watchers', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const holder = await agent.open()
  holder.port.pause()
  const seen = heardBy(await agent.watch())
  let accepted = 0
  // As long as the device takes some within a few turns.
  for (let idle = 0; idle < 50; idle++) {
    if (!device.writableNeedDrain) {
      device.write(Buffer.alloc(16 * 1024, 'x'))
      idle = 0
    }
    await turn()
  }
  accepted = seen.text().length
  assert.ok(accepted < 2 * MIB, `${accepted} bytes`)
  holder.port.resume()
  await once(device, 'drain')
  await until(() => seen.text().length > accepted, 'it goes on')
})

test('carriers of a watcher are cut during a transfer and not a byte is lost or repeated', async () => {
  const total = 512 * 1024
  await using agent = new Agent()
  const device = await agent.device()
  const watcher = await agent.watch()
  let next = 50_000
  const [sent, received] = await Promise.all([
    send(device, total),
    receive(watcher.port, total, (bytes) => {
      if (bytes < next) return
      next += 50_000
      watcher.carriers.at(-1)?.cut()
    }),
  ])
  assert.equal(received, sent)
  assert.ok(watcher.carriers.length > 5, `${watcher.carriers.length} carriers`)
  assert.ok(!watcher.events.some(({ state }) => state === 'dropped' || state === 'skipped'))
})

test('a watcher moves to a better path during a transfer and not a byte is lost or repeated', async () => {
  const total = 512 * 1024
  await using agent = new Agent()
  const device = await agent.device()
  const watcher = await agent.watch()
  let moves = false
  const [sent, received] = await Promise.all([
    send(device, total),
    receive(watcher.port, total, (bytes) => {
      if (bytes < 50_000 || moves) return
      moves = true
      watcher.prefer({ id: 'straight', kind: 'direct' })
    }),
  ])
  assert.equal(received, sent)
  await until(() => watcher.events.some(({ state }) => state === 'moved'), 'it has moved')
  assert.ok(!watcher.events.some(({ state }) => state === 'down' || state === 'skipped'))
  const seen = heardBy(watcher)
  watcher.port.resume()
  device.write('on the direct path')
  await until(() => seen.text() === 'on the direct path', 'it goes on there')
})

test('a watcher that is away for long misses what has no room, is told, and costs no more than that', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const watcher = await agent.watch()
  const seen = heardBy(watcher)
  let gaps = 0
  watcher.port.on('lineErrors', () => gaps++)
  device.write('0')
  await until(() => seen.text() === '0', 'it is there')
  watcher.unreachable = true
  for (const carrier of watcher.carriers) carrier.cut()
  await until(() => watcher.events.some(({ state }) => state === 'down'), 'it knows')
  const sent = await send(device, 3 * MIB)
  assert.equal(createHash('sha256').update(seen.text()).digest('hex') === sent, false)
  watcher.unreachable = false
  // The device goes on while the watcher catches up: that is the same gap.
  await until(() => {
    device.write('.')
    return gaps > 0 && seen.text().endsWith('..')
  }, 'the gap is marked')
  assert.ok(seen.text().length >= 0.9 * MIB && seen.text().length < 2 * MIB, `${seen.text().length} bytes`)
  device.write('live')
  await until(() => seen.text().endsWith('live'), 'live again')
  assert.equal(gaps, 1)
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
  assert.ok(performance.now() - startedAt < 2_000, 'it does not wait for long')
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

test('watchers are counted: so many of one peer, whose lost programs make room, and so many in all', async () => {
  await using agent = new Agent()
  const mine = []
  for (let i = 0; i < 4; i++) mine.push(await agent.watch({ peer: 'many' }))
  await assert.rejects(agent.watch({ peer: 'many' }), refusedWith('ERR_PORT_BUSY', /as many watchers/))
  const [ghost] = mine
  assert.ok(ghost)
  ghost.unreachable = true
  for (const carrier of ghost.carriers) carrier.cut()
  await until(() => ghost.events.some(({ state }) => state === 'down'), 'its program is dead')
  await agent.watch({ peer: 'many' })
  for (let i = 4; i < 16; i++) await agent.watch({ peer: `one of many ${i}` })
  await assert.rejects(agent.watch({ peer: 'one more' }), refusedWith('ERR_PORT_BUSY', /as many watchers/))
  await agent.open()
  assert.equal((await agent.list('client'))?.watchers, 16)
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

test('a watcher that comes back after its channel has expired is not shown the same again', async () => {
  await using agent = new Agent()
  const device = await agent.device()
  const anchor = await agent.watch({ peer: 'anchor' })
  anchor.port.resume()
  const watcher = await agent.watch({ resumeMs: 100 })
  const seen = heardBy(watcher)
  device.write('old ')
  await until(() => seen.text() === 'old ', 'heard')
  watcher.unreachable = true
  for (const carrier of watcher.carriers) carrier.cut()
  assert.deepEqual(await once(watcher.port, 'state'), ['absent'])
  watcher.unreachable = false
  assert.deepEqual(await once(watcher.port, 'state'), ['open'])
  device.write('new')
  await until(() => seen.text().endsWith('new'), 'heard again')
  assert.equal(seen.text(), 'old new')
})
