/**
 * A pairing (pairing.ts) over a stream: what a side wants said is written, what arrives is given to it, and it is told
 * when the time is up or the stream is gone. What loads the cryptography is imported only when somebody pairs.
 */
import type { Duplex } from 'node:stream'
import { finished } from 'node:stream/promises'
import { FarportError } from '../errors.ts'
import type { Grant } from './grants.ts'
import type { Invites } from './invites.ts'
import type { JoinerOptions } from './joiner.ts'
import { PAIRING_TIMEOUT_MS, PairingError, type PairingEvent } from './pairing.ts'
import { joinSentence } from './pairing-sentences.ts'
import type { PairingSide } from './pairing-side.ts'
import type { TrustStore } from './trust-store.ts'
import type { TrustedPeer } from './trusted-peers.ts'

/** How long the other side has for the last word before the stream is torn down: a reset overtakes what was sent. */
const LINGER_MS = 2000

interface ServeOptions {
  /** Our PeerID. */
  self: string
  /** The PeerID of the other end of the stream, as libp2p has proven it. */
  joiner: string
  invites: Invites
  /** The IP address it comes from; none behind a relay. */
  address?: string
  /** Ends it at once. A joiner that has proven itself by then is recorded all the same. */
  signal: AbortSignal
}

interface JoinOptions extends JoinerOptions {
  /** Ends it at once, unless it is done. */
  signal: AbortSignal
}

/**
 * The inviter's side of one stream, which is closed when this resolves. Never rejects: what came of it is told by the
 * events of `invites`, and a fault of our own destroys the stream with it.
 */
export async function serveInvite(
  stream: Duplex,
  { self, joiner, invites, address, signal }: ServeOptions,
): Promise<void> {
  const source = { peerId: joiner, ...(address !== undefined && { address }) }
  await using dialogue = new Dialogue(stream, signal)
  try {
    const { Inviter } = await import('./inviter.ts')
    const side = new Inviter({ self, joiner, begin: (id) => invites.begin(id, source) })
    await dialogue.run(side, { first: [], commit: () => side.commit() })
  } catch (error) {
    stream.destroy(error as Error)
  }
}

/**
 * The joiner's side of one stream, which is closed when this settles. `peer` is the line to be written now, by
 * recordPeer().
 * @throws FarportError ERR_NOT_TRUSTED when it failed, ERR_USAGE when our terms can't be said; the signal's reason
 */
export async function joinInvite(
  stream: Duplex,
  { signal, ...options }: JoinOptions,
): Promise<{ peer: TrustedPeer; allows: Grant }> {
  await using dialogue = new Dialogue(stream, signal)
  const { Joiner } = await import('./joiner.ts')
  // Before the first message, since that costs the invite a try.
  signal.throwIfAborted()
  const side = new Joiner(options)
  const { ending, sent } = await dialogue.run(side, { first: side.start() })
  if (ending.type === 'paired') return { peer: ending.peer, allows: ending.allows }
  signal.throwIfAborted()
  const cause = new PairingError(ending.reason, { cause: ending.cause })
  throw new FarportError('ERR_NOT_TRUSTED', joinSentence(ending.reason, sent), { cause })
}

/** For Invites, and for the joiner when it has paired: writes the peer's line, and answers with it. */
export function recordPeer(store: TrustStore): (peer: TrustedPeer) => Promise<TrustedPeer> {
  return (peer) => store.record(peer)
}

type Ending = PairingEvent & { type: 'paired' | 'failed' }

/** One side's talk with the stream, from the first byte until the stream is closed. */
class Dialogue implements AsyncDisposable {
  readonly #stream: Duplex
  readonly #signal: AbortSignal
  readonly #chunks: AsyncIterator<Uint8Array>
  /** Resolves when the side is not to wait for bytes any longer. */
  readonly #stopped = Promise.withResolvers<'closed' | 'timeout'>()
  readonly #timer: NodeJS.Timeout
  readonly #abort = () => this.#stopped.resolve('closed')

  constructor(stream: Duplex, signal: AbortSignal) {
    this.#stream = stream
    this.#signal = signal
    this.#chunks = stream.iterator({ destroyOnReturn: false })
    // How it ends is read off the iterator; this is for what comes after that.
    stream.on('error', () => {})
    this.#timer = setTimeout(() => this.#stopped.resolve('timeout'), PAIRING_TIMEOUT_MS)
    signal.addEventListener('abort', this.#abort)
    if (signal.aborted) this.#abort()
  }

  /** `sent` counts messages. */
  async run(
    side: PairingSide,
    { first, commit }: { first: PairingEvent[]; commit?: () => Promise<PairingEvent[]> },
  ): Promise<{ ending: Ending; sent: number }> {
    let sent = 0
    for (let events = first; ; ) {
      let committing = false
      for (const event of events) {
        switch (event.type) {
          case 'send':
            // A few hundred bytes in all, so a peer that does not read costs no more, and no longer than the timeout.
            if (this.#stream.writable) this.#stream.write(event.bytes)
            sent++
            break
          case 'commit':
            committing = true
            break
          case 'paired':
          case 'failed':
            return { ending: event, sent }
        }
      }
      // Neither the time nor the peer counts while the line is being written: half a commit would be worse.
      events = committing && commit !== undefined ? await commit() : await this.#listen(side)
    }
  }

  /** Lets the last word be sent, and waits a while for the other side to hang up too. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer)
    this.#signal.removeEventListener('abort', this.#abort)
    if (!this.#signal.aborted) await this.#linger()
    this.#stream.destroy()
  }

  async #listen(side: PairingSide): Promise<PairingEvent[]> {
    const next = await Promise.race([
      this.#stopped.promise,
      this.#chunks.next().catch(() => 'closed' as const),
    ])
    if (typeof next === 'string') return side.end(next)
    return next.done === true ? side.end('closed') : side.push(next.value)
  }

  async #linger(): Promise<void> {
    const patience = new AbortController()
    const giveUp = () => patience.abort()
    const timer = setTimeout(giveUp, LINGER_MS)
    this.#signal.addEventListener('abort', giveUp)
    this.#stream.end()
    void this.#discard()
    await finished(this.#stream, { signal: patience.signal }).catch(() => {})
    clearTimeout(timer)
    this.#signal.removeEventListener('abort', giveUp)
  }

  /** The end of the stream comes only behind all that was not read. */
  async #discard(): Promise<void> {
    try {
      while ((await this.#chunks.next()).done !== true);
    } catch {
      // The stream is gone, which ends the lingering too.
    }
  }
}
