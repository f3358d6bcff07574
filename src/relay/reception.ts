import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { AgentSession, Roster } from './roster.ts'
import { readHello, readUpdate, writeAck, writeRefusal, writeWelcome } from './vouch-message.ts'

/** An agent says the first things at once. */
const OPENING_MS = 10_000
/** Changes are seldom, a burst of them a person editing a file. What comes faster waits in the agent's window. */
const MIN_INTERVAL_MS = 20
/** How long the agent has to read why it is turned away: a reset overtakes what was sent. */
const LINGER_MS = 2_000

interface ReceptionOptions {
  roster: Roster
  /** The STUN ports of this relay, for UDP and TCP alike. */
  stun: readonly number[]
  log: Logger
}

/** The relay's half of `/farport/relay/1`: listens to agents and enters into the roster what they say. */
export class Reception implements Disposable {
  readonly #options: ReceptionOptions
  readonly #closed = new AbortController()
  readonly #streams = new Map<string, Duplex>()

  constructor(options: ReceptionOptions) {
    this.#options = options
  }

  /**
   * Serves one agent's stream until it is over. Never rejects.
   * @param from who has opened it, and its multiaddr as we see it
   */
  async serve(
    stream: Duplex,
    { peerId, remoteAddress }: { peerId: string; remoteAddress: string },
  ): Promise<void> {
    const { roster, stun, log } = this.#options
    const ignore = () => {}
    stream.on('error', ignore)
    let session: AgentSession | undefined
    try {
      const opening = AbortSignal.any([this.#closed.signal, AbortSignal.timeout(OPENING_MS)])
      await readHello(stream, opening)
      session = roster.begin(peerId)
      // An agent that opens a second one has lost the first, which we may not know yet.
      this.#streams.get(peerId)?.destroy()
      this.#streams.set(peerId, stream)
      writeWelcome(stream, { seen: remoteAddress, stun })
      const whole = await readUpdate(stream, opening)
      session.replace(whole)
      writeAck(stream, whole.seq)
      log.debug({ peer: peerId, vouches: whole.vouch.length }, 'an agent is here')
      for (;;) {
        const change = await readUpdate(stream, this.#closed.signal)
        session.change(change)
        writeAck(stream, change.seq)
        if (stream.writableNeedDrain) await once(stream, 'drain', { signal: this.#closed.signal })
        await sleep(MIN_INTERVAL_MS, undefined, { signal: this.#closed.signal })
      }
    } catch (error) {
      log.debug({ peer: peerId, err: error }, 'an agent is gone')
      if (error instanceof FarportError && stream.writable) {
        writeRefusal(stream, error)
        stream.resume().end()
        setTimeout(() => stream.destroy(), LINGER_MS).unref()
      } else stream.destroy()
    } finally {
      if (this.#streams.get(peerId) === stream) this.#streams.delete(peerId)
      session?.end()
    }
  }

  [Symbol.dispose](): void {
    this.#closed.abort()
    for (const stream of this.#streams.values()) stream.destroy()
  }
}
