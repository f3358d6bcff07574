/** The announcement of a key (rotation.ts) over a stream: one message, one answer. */
import type { Duplex } from 'node:stream'
import { finished } from 'node:stream/promises'
import { FarportError } from '../errors.ts'
import type { Identity } from './identity.ts'
import {
  ANNOUNCEMENT_BYTES,
  announcementOf,
  formatAnswer,
  parseAnswer,
  type RotationAnswer,
  verifyAnnouncement,
} from './rotation.ts'

/** How long the announcer has to take the answer before the stream is torn down: a reset overtakes what was sent. */
const LINGER_MS = 2000

interface AnnounceOptions {
  /** The key that Noise has proven on this stream. */
  identity: Identity
  next: Identity
  /** The PeerID of the other end. */
  receiver: string
  signal: AbortSignal
}

interface ReceiveOptions {
  /** The PeerID of the other end, as Noise has proven it. */
  announcer: string
  /** Our PeerID. */
  receiver: string
  /** Gets the PeerID of the new key, or undefined when the proof does not hold. */
  decide: (next: string | undefined) => Promise<RotationAnswer>
  signal: AbortSignal
}

/**
 * Says who we shall be, and closes the stream.
 * @throws FarportError ERR_PROTOCOL; the signal's reason
 */
export async function announceOver(
  stream: Duplex,
  { identity, next, receiver, signal }: AnnounceOptions,
): Promise<RotationAnswer> {
  using _ = destroyed(stream, signal)
  stream.write(announcementOf(identity, next, receiver))
  return parseAnswer(await readExactly(stream, 1, signal))
}

/**
 * Hears who the peer will be, answers, and closes the stream.
 * @throws FarportError ERR_PROTOCOL; the signal's reason; what `decide` throws
 */
export async function receiveOver(
  stream: Duplex,
  { announcer, receiver, decide, signal }: ReceiveOptions,
): Promise<void> {
  using _ = destroyed(stream, signal)
  const announcement = await readExactly(stream, ANNOUNCEMENT_BYTES, signal)
  stream.end(formatAnswer(await decide(verifyAnnouncement(announcement, { announcer, receiver }))))
  await finished(stream.resume(), { signal: AbortSignal.timeout(LINGER_MS) }).catch(() => {})
}

/** Sees to it that the stream ends with this, and when the signal says so. */
function destroyed(stream: Duplex, signal: AbortSignal): Disposable {
  const destroy = () => void stream.destroy()
  // How it ends is learnt by reading.
  stream.on('error', () => {})
  signal.addEventListener('abort', destroy)
  if (signal.aborted) destroy()
  return {
    [Symbol.dispose]() {
      signal.removeEventListener('abort', destroy)
      destroy()
    },
  }
}

/** A message of this length, behind which nothing comes yet. */
async function readExactly(stream: Duplex, length: number, signal: AbortSignal): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let missing = length
  try {
    for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
      chunks.push(chunk)
      missing -= chunk.length
      if (missing <= 0) break
    }
  } catch {
    // A stream that breaks says no more than one that ends.
  }
  signal.throwIfAborted()
  if (missing === 0) return Buffer.concat(chunks)
  const what = missing > 0 ? 'closed the stream in the middle of a message' : 'sent more than a message'
  throw new FarportError('ERR_PROTOCOL', `the peer ${what}`)
}
