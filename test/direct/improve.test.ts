import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { type Duplex, duplexPair } from 'node:stream'
import { mock, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Improver, type ImproverOptions, startImproving } from '../../src/direct/improve.ts'
import { PathStream } from '../../src/direct/path-stream.ts'
import { createLog } from '../../src/log.ts'
import { peerIdOf } from '../../src/trust/identity.ts'
import { deadline, until } from '../overlay/nodes.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND

/** A peer and a node that are no more than what the improver sees of them. Time is mocked. */
class Scene implements AsyncDisposable {
  direct = false
  /** What opening a stream does. */
  reachable = true
  /** What dialing does. */
  dials: (signal: AbortSignal) => Promise<void> = async () => {
    throw new Error('connection refused')
  }
  rounds = 0
  /** The peer's end of the last round's stream. */
  far: PathStream | undefined
  farStream: Duplex | undefined
  readonly improver: Improver
  readonly #ended = new AbortController()

  constructor() {
    mock.timers.enable({ apis: ['setTimeout', 'Date'] })
    const options: ImproverOptions = {
      peerId: peerIdOf(randomBytes(32)),
      openStream: async () => {
        this.rounds++
        if (!this.reachable) throw new Error('not reachable')
        const [near, far] = duplexPair()
        for (const stream of [near, far]) stream.on('error', () => {})
        this.farStream = far
        this.far = new PathStream(far)
        void this.#answer(this.far).catch(() => {})
        return near
      },
      hasDirect: () => this.direct,
      addresses: () => [],
      stun: () => [],
      dialDirect: async (_, signal) => await this.dials(signal),
      adopt: async () => assert.fail('no socket to adopt'),
      log: createLog('silent'),
      signal: this.#ended.signal,
    }
    this.improver = startImproving(options)
  }

  async #answer(path: PathStream): Promise<void> {
    await path.expect(['hello'], deadline())
    path.send({ type: 'hello', addresses: ['/ip4/192.0.2.1/tcp/4001'] })
  }

  becomes(direct: boolean): void {
    this.direct = direct
    this.improver.pathsChanged()
  }

  async reaches(state: Improver['state']['state']): Promise<void> {
    await until(() => this.improver.state.state === state)
  }

  /** Whether a round begins within this time. */
  async triesWithin(ms: number): Promise<boolean> {
    const before = this.rounds
    mock.timers.tick(ms)
    for (let turn = 0; turn < 20; turn++) await nextTurn()
    return this.rounds > before
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort(new Error('the test is over'))
    await this.improver.done
    this.farStream?.destroy()
    mock.timers.reset()
  }
}

test('without a direct path it tries at once, then less and less often', async () => {
  await using scene = new Scene()
  for (const waitMs of [10 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, 10 * MINUTE]) {
    await scene.reaches('waiting')
    const { state } = scene.improver
    assert.ok(state.state === 'waiting')
    assert.equal(state.untilMs, Date.now() + waitMs)
    assert.match(state.reason, /connection refused/)
    assert.equal(await scene.triesWithin(waitMs - 1), false)
    assert.equal(await scene.triesWithin(1), true)
  }
})

test('with a direct path it does nothing; when that is lost it tries at once', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  scene.becomes(true)
  await scene.reaches('direct')
  assert.equal(await scene.triesWithin(60 * MINUTE), false)
  scene.becomes(false)
  assert.equal(await scene.triesWithin(0), true)
})

test('a round that finds a path ends in it, and its stream is closed', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  scene.dials = async () => scene.becomes(true)
  assert.equal(await scene.triesWithin(10 * SECOND), true)
  await scene.reaches('direct')
  assert.equal(await scene.far?.receive(deadline()).catch(() => undefined), undefined)
})

test('the round that makes the connection is not cut off when it is announced', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  let cut = false
  scene.dials = async (signal) => {
    scene.becomes(true)
    cut = signal.aborted
    await Promise.resolve()
    cut ||= signal.aborted
  }
  await scene.triesWithin(10 * SECOND)
  await scene.reaches('direct')
  assert.equal(cut, false)
})

test('when the peer gets through to us first, our own attempts end', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  const dialing = Promise.withResolvers<AbortSignal>()
  scene.dials = async (signal) => {
    dialing.resolve(signal)
    await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  }
  await scene.triesWithin(10 * SECOND)
  const signal = await dialing.promise
  scene.becomes(true)
  await scene.reaches('direct')
  assert.ok(signal.aborted)
})

test('an address of ours that changes is worth a round at once, and begins the back-off anew', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  for (const waitMs of [10 * SECOND, 30 * SECOND]) {
    assert.equal(await scene.triesWithin(waitMs), true)
    await scene.reaches('waiting')
  }
  await scene.triesWithin(5 * SECOND)
  scene.improver.addressesChanged()
  assert.equal(await scene.triesWithin(0), true)
  await scene.reaches('waiting')
  const { state } = scene.improver
  assert.ok(state.state === 'waiting')
  assert.equal(state.untilMs, Date.now() + 10 * SECOND)
})

test('so is one of the peer, which it tells over the stream of the last round', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  await scene.triesWithin(5 * SECOND)
  scene.far?.send({ type: 'changed' })
  assert.equal(await scene.triesWithin(0), true)
})

test('however often addresses change, rounds begin two seconds apart', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  for (let k = 0; k < 5; k++) {
    scene.improver.addressesChanged()
    assert.equal(await scene.triesWithin(1999), false)
    scene.improver.addressesChanged()
    assert.equal(await scene.triesWithin(1), true)
    await scene.reaches('waiting')
  }
})

test('a direct path that does not last counts as a failure', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  scene.becomes(true)
  await scene.reaches('direct')
  await scene.triesWithin(9 * SECOND)
  scene.becomes(false)
  assert.equal(await scene.triesWithin(0), false)
  await scene.reaches('waiting')
  assert.equal(await scene.triesWithin(9 * SECOND), false)
  assert.equal(await scene.triesWithin(SECOND), true)
})

test('an unreachable peer is tried again when a path to it appears', async () => {
  await using scene = new Scene()
  scene.reachable = false
  await scene.reaches('waiting')
  scene.improver.addressesChanged()
  await scene.triesWithin(2 * SECOND)
  await scene.reaches('waiting')
  scene.reachable = true
  await scene.triesWithin(2 * SECOND)
  scene.improver.pathsChanged()
  assert.equal(await scene.triesWithin(0), true)
})

test('a peer that breaks the rules, or ends the stream, is a failure like any other', async () => {
  await using scene = new Scene()
  await scene.reaches('waiting')
  scene.far?.send({ type: 'go' })
  assert.equal(await scene.triesWithin(10 * SECOND - 1), false)
  assert.equal(await scene.triesWithin(1), true)
  await scene.reaches('waiting')
  scene.farStream?.end()
  assert.equal(await scene.triesWithin(29 * SECOND), false)
  scene.improver.pathsChanged()
  assert.equal(await scene.triesWithin(0), true)
})

test('it ends with its signal, from wherever it is', async () => {
  for (const state of ['trying', 'waiting', 'direct'] as const) {
    const scene = new Scene()
    scene.dials = async (signal) => {
      if (state === 'trying')
        await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      throw new Error('connection refused')
    }
    if (state === 'direct') scene.becomes(true)
    await scene.reaches(state)
    await scene[Symbol.asyncDispose]()
    assert.equal(scene.improver.state.state, 'ended')
  }
})
