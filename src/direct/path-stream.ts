import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import {
  encodePathMessage,
  PathDecoder,
  type PathMessage,
  type PathMessageOf,
  type PathMessageType,
} from './path-message.ts'

/** The messages of one round, read when they are wanted: what the peer sends beyond that waits in the stream. */
export class PathStream implements Disposable {
  readonly #stream: Duplex
  readonly #messages: AsyncGenerator<PathMessage, void>
  /** Asked for, and not yet taken by anybody: who gave up waiting leaves it to the next. */
  #next: Promise<IteratorResult<PathMessage, void>> | undefined

  constructor(stream: Duplex) {
    this.#stream = stream
    this.#messages = decode(stream)
  }

  send(message: PathMessage): void {
    if (this.#stream.writable) this.#stream.write(encodePathMessage(message))
  }

  /** The next message; `undefined` when the peer has ended the round. @throws FarportError ERR_PROTOCOL; the signal's reason */
  async receive(signal: AbortSignal): Promise<PathMessage | undefined> {
    signal.throwIfAborted()
    this.#next ??= this.#messages.next()
    const result = await unlessAborted(this.#next, signal)
    this.#next = undefined
    return result.value ?? undefined
  }

  /** The next message, which has to be one of those. */
  async expect<T extends PathMessageType>(
    types: readonly T[],
    signal: AbortSignal,
  ): Promise<PathMessageOf<T>> {
    const message = await this.receive(signal)
    if (message === undefined) throw new FarportError('ERR_PEER_UNREACHABLE', 'the peer ended the round')
    if (isOneOf(message, types)) return message
    throw new FarportError(
      'ERR_PROTOCOL',
      `the peer sent ${message.type} where ${types.join(' or ')} was due`,
    )
  }

  [Symbol.dispose](): void {
    this.#stream.destroy()
  }
}

function isOneOf<T extends PathMessageType>(
  message: PathMessage,
  types: readonly T[],
): message is PathMessageOf<T> {
  return types.some((type) => type === message.type)
}

async function* decode(stream: Duplex): AsyncGenerator<PathMessage, void> {
  const decoder = new PathDecoder()
  for await (const chunk of stream) yield* decoder.push(chunk)
}

async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
