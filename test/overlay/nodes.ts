import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { finished } from 'node:stream/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { createLog } from '../../src/log.ts'
import { createOverlay, type Overlay, type OverlayOptions } from '../../src/overlay/node.ts'

/** Real time is only a last resort against a test that would wait for ever. */
export const deadline = (ms = 10_000) => AbortSignal.timeout(ms)

/** A node on the loopback that lets everybody in, unless told otherwise. */
export async function startNode(options: Partial<OverlayOptions> = {}): Promise<Overlay> {
  return await createOverlay({
    seed: randomBytes(32),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    admits: () => true,
    log: createLog('silent'),
    ...options,
  })
}

/** Two nodes; `far` serves the protocol `/test/1` and hands each stream to the queue that `open` takes from. */
export class NodePair implements AsyncDisposable {
  readonly near: Overlay
  readonly far: Overlay
  readonly #served: ((stream: Duplex) => void)[] = []

  private constructor(near: Overlay, far: Overlay) {
    this.near = near
    this.far = far
  }

  static async start(): Promise<NodePair> {
    const pair = new NodePair(await startNode({ listen: [] }), await startNode())
    await pair.far.handle('/test/1', (stream) => pair.#served.shift()?.(stream))
    return pair
  }

  /** The far end of the stream that is opened next. */
  async next(): Promise<Duplex> {
    const { promise, resolve } = Promise.withResolvers<Duplex>()
    this.#served.push(resolve)
    return await promise
  }

  /** Both ends of a new stream. */
  async open(): Promise<{ near: Duplex; far: Duplex }> {
    const far = this.next()
    const { stream } = await this.near.open(this.far.peerId, '/test/1', {
      addresses: this.far.addresses(),
      signal: deadline(),
    })
    return { near: stream, far: await far }
  }

  /**
   * Resolves when everything sent before, by either side, has arrived: a round trip on another stream of the same
   * connection, on which nothing overtakes anything.
   */
  async fence(): Promise<void> {
    const { near, far } = await this.open()
    near.write('?')
    await once(far, 'data', { signal: deadline() })
    far.write('!')
    await once(near, 'data', { signal: deadline() })
    near.destroy()
  }

  /** Writes until the stream takes no more, and answers with what it took. */
  async fill(stream: Duplex): Promise<Buffer> {
    const taken: Buffer[] = []
    do {
      let more = true
      while (more) {
        const chunk = randomBytes(64 * 1024)
        taken.push(chunk)
        more = stream.write(chunk)
      }
      await this.fence()
      assert.ok(taken.length < 1000, 'it takes without end')
    } while (!stream.writableNeedDrain)
    return Buffer.concat(taken)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.near[Symbol.asyncDispose]()
    await this.far[Symbol.asyncDispose]()
  }
}

/** Resolves when the stream is closed, with its error if it has one. */
export async function closed(stream: Duplex): Promise<Error | null> {
  await finished(stream, { signal: deadline(), cleanup: true }).catch(() => {})
  assert.ok(stream.closed, 'the stream does not close')
  return stream.errored
}

/** What the other side sends until it ends. Unlike `for await` this leaves the stream open the other way. */
export async function readAll(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  await finished(stream, { signal: deadline(), cleanup: true, writable: false })
  return Buffer.concat(chunks)
}

/** For what has no event. */
export async function until(condition: () => boolean): Promise<void> {
  const signal = deadline()
  while (!condition()) {
    signal.throwIfAborted()
    await nextTurn()
  }
}
