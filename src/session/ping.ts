/**
 * `/ipfs/ping/1.0.0`, as every libp2p peer speaks it: whoever opened the stream sends 32 random bytes and gets the same
 * back, as often as it likes.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import { readExactly } from '../wire/message.ts'

export const PING_PROTOCOL = '/ipfs/ping/1.0.0'

const PING_BYTES = 32
/** Whoever pings for longer opens another stream. */
const ANSWER_MS = 60_000

/** Answers pings until the peer ends the stream, or for a minute. Backpressure is the only limit it needs. */
export async function answerPings(stream: Duplex): Promise<void> {
  const over = setTimeout(() => stream.destroy(), ANSWER_MS)
  try {
    for await (const chunk of stream) if (!stream.write(chunk)) await once(stream, 'drain')
    stream.end()
  } catch {
    stream.destroy()
  } finally {
    clearTimeout(over)
  }
}

/**
 * One round trip on a stream that is open already, in milliseconds.
 * @throws FarportError ERR_PROTOCOL when something else comes back; the signal's reason
 */
export async function ping(stream: Duplex, signal: AbortSignal): Promise<number> {
  const token = randomBytes(PING_BYTES)
  const sentAt = performance.now()
  stream.write(token)
  const answer = await readExactly(stream, PING_BYTES, signal)
  if (!answer.equals(token))
    throw new FarportError('ERR_PROTOCOL', 'the peer answered a ping with other bytes')
  return performance.now() - sentAt
}
