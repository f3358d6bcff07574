import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AbstractMessageStream } from '@libp2p/utils'
import fc from 'fast-check'
import { createLog } from '../../src/log.ts'
import { libp2pLog } from '../../src/overlay/libp2p-log.ts'
import { giveShortWay } from '../../src/overlay/short-way.ts'

/** A stream over a wire that takes so many bytes, until it is emptied. */
class Wire extends AbstractMessageStream {
  readonly told: string[] = []
  room = 8
  sent = ''
  /** What is sent while something is being sent. */
  within: string[] = []

  constructor({ short }: { short: boolean }) {
    super({ log: libp2pLog(createLog('silent')).forComponent('wire') })
    if (short) giveShortWay(this, (bytes) => (bytes.length <= this.room ? this.#write(bytes) : undefined))
    this.addEventListener('idle', () => this.told.push('idle'))
    this.addEventListener('end', () => this.told.push('end'))
    this.addEventListener('close', () => this.told.push('close'))
  }

  sendData(data: { byteLength: number; subarray(from: number, to: number): Uint8Array }) {
    const sentBytes = Math.min(this.room, data.byteLength)
    return {
      sentBytes,
      canSendMore: this.#write(data.subarray(0, sentBytes)) && sentBytes === data.byteLength,
    }
  }

  #write(bytes: Uint8Array): boolean {
    this.room -= bytes.length
    this.sent += Buffer.from(bytes).toString('latin1')
    const within = this.within.shift()
    if (within !== undefined) this.send(Buffer.from(within))
    return this.room > 0
  }

  empty(): void {
    this.room = 8
    this.safeDispatchEvent('drain')
  }

  override async close(): Promise<void> {}
  sendReset(): void {}
  sendPause(): void {}
  sendResume(): void {}
}

const SEEN = [
  'status',
  'readStatus',
  'writeStatus',
  'readBufferLength',
  'writeBufferLength',
  'writableNeedsDrain',
] as const

type Step = (wire: Wire) => unknown
const text = fc.string({ maxLength: 12, unit: fc.constantFrom('a', 'b', 'c', 'd') })
const listener = (wire: Wire) => (event: { data: { subarray(): Uint8Array } }) =>
  wire.told.push(`"${Buffer.from(event.data.subarray())}"`)

/** Runs the same steps on a stream with and one without the short way, and compares all there is to be seen of them. */
async function compare(steps: readonly Step[]): Promise<void> {
  const [plain, short] = [new Wire({ short: false }), new Wire({ short: true })]
  for (const step of steps) {
    const answers = []
    for (const wire of [plain, short]) {
      try {
        answers.push(step(wire))
      } catch (error) {
        answers.push((error as Error).name)
      }
    }
    // A drained stream goes on in a microtask.
    await Promise.resolve()
    assert.deepEqual(answers[1], answers[0])
    assert.equal(short.sent, plain.sent)
    assert.deepEqual(
      short.told.filter((event) => event !== 'idle'),
      plain.told.filter((event) => event !== 'idle'),
    )
    for (const key of SEEN) assert.equal(short[key], plain[key], key)
  }
}

test('sends the same bytes in the same order, and answers the same, wherever the wire is full', async () => {
  const send = text.map(
    (bytes): Step =>
      (wire) =>
        wire.send(Buffer.from(bytes)),
  )
  const within = text.map(
    (bytes): Step =>
      (wire) => {
        wire.within.push(bytes)
      },
  )
  const empty = fc.constant<Step>((wire) => wire.empty())
  const abort = fc.constant<Step>((wire) => wire.abort(new Error('for the test')))
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.oneof(
          { weight: 6, arbitrary: send },
          { weight: 3, arbitrary: empty },
          { weight: 1, arbitrary: within },
          { weight: 1, arbitrary: abort },
        ),
        { maxLength: 20 },
      ),
      compare,
    ),
  )
})

test('hands over the same bytes at the same time, and the end behind the last', async () => {
  const arrive = text.map(
    (bytes): Step =>
      (wire) =>
        wire.onData(Buffer.from(bytes)),
  )
  // Put back in front, and so still there for a turn.
  const putBack = text.map(
    (bytes): Step =>
      (wire) =>
        wire.unshift(Buffer.from(bytes)),
  )
  const others = fc.constantFrom<Step[]>(
    (wire) => wire.pause(),
    (wire) => wire.resume(),
    (wire) => wire.onRemoteCloseWrite(),
    (wire) => wire.addEventListener('message', listener(wire)),
    (wire) => wire.onTransportClosed(),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof(arrive, putBack, others), { maxLength: 20 }), (steps) =>
      compare([(wire) => wire.addEventListener('message', listener(wire)), ...steps]),
    ),
  )
})

test('who waits for a send to be done is told', () => {
  const wire = new Wire({ short: true })
  wire.send(Buffer.from('ab'))
  assert.deepEqual(wire.told, ['idle'])
})

test('what can’t be sent ends the stream, and the sender hears why', () => {
  const wire = new Wire({ short: false })
  giveShortWay(wire, () => {
    throw new Error('no such wire')
  })
  assert.throws(() => wire.send(Buffer.from('ab')), /no such wire/)
  assert.equal(wire.status, 'aborted')
})
