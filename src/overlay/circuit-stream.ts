import type { Duplex } from 'node:stream'
import { CircuitMessageError, encodeVarint, MAX_CIRCUIT_MESSAGE, readVarint } from './circuit-message.ts'

export function writeCircuitMessage(stream: Duplex, message: Uint8Array): void {
  stream.write(frameCircuitMessage(message))
}

/** A message as it is on the wire. */
export function frameCircuitMessage(message: Uint8Array): Buffer {
  return Buffer.concat([encodeVarint(message.length), message])
}

/**
 * Reads one message and leaves every byte behind it in the stream: they belong to the relayed connection.
 * @throws CircuitMessageError for a message that is too long or never comes whole; the signal's reason
 */
export async function readCircuitMessage(stream: Duplex, signal: AbortSignal): Promise<Uint8Array> {
  let got: Buffer = Buffer.alloc(0)
  for (;;) {
    signal.throwIfAborted()
    const header = readVarint(got)
    if (header !== undefined) {
      if (header.value > MAX_CIRCUIT_MESSAGE) throw new CircuitMessageError('it is too long')
      const end = header.length + header.value
      if (got.length >= end) {
        if (got.length > end) stream.unshift(got.subarray(end))
        return got.subarray(header.length, end)
      }
    }
    const chunk = stream.read() as Buffer | null
    if (chunk !== null) got = Buffer.concat([got, chunk])
    else if (stream.readableEnded || stream.destroyed)
      throw new CircuitMessageError('the stream ended before it', { cause: stream.errored })
    else await readableOrEnd(stream, signal)
  }
}

async function readableOrEnd(stream: Duplex, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const wake = () => resolve()
  const events = ['readable', 'end', 'close']
  for (const event of events) stream.on(event, wake)
  signal.addEventListener('abort', wake)
  try {
    await promise
  } finally {
    for (const event of events) stream.off(event, wake)
    signal.removeEventListener('abort', wake)
  }
}
