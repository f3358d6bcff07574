import { CpaceError } from './cpace.ts'
import { NoiseError } from './noise.ts'
import { FAILED, PairingError, type PairingEvent, type PairingFailure } from './pairing.ts'
import { FrameReader, frame } from './pairing-frames.ts'

/** Where nobody listens any more, or nothing was said yet. */
const UNSAID: readonly PairingFailure[] = ['refused', 'closed', 'self', 'wrong-peer']

/**
 * What both sides of pairing.ts have in common: bytes in, events out, and one way to end. Holds no stream and no timer.
 * After `paired` or `failed` nothing more comes.
 */
export abstract class PairingSide {
  readonly #frames = new FrameReader()
  #over = false

  /** Takes what the stream delivers, cut anywhere. */
  push(chunk: Uint8Array): PairingEvent[] {
    return this.guard(() => {
      const events: PairingEvent[] = []
      for (const message of this.#frames.push(chunk)) {
        if (sameBytes(message, FAILED)) throw new PairingError('refused')
        events.push(...this.receive(message))
        if (this.#over) break
      }
      return events
    })
  }

  /** The stream has ended, or the time is up. */
  end(reason: 'closed' | 'timeout'): PairingEvent[] {
    return this.guard(() => {
      throw new PairingError(reason)
    })
  }

  protected abstract receive(message: Uint8Array): PairingEvent[]

  /** Overwrites what is secret, gives back what was taken. */
  protected abstract forget(reason: PairingFailure): void

  /** Nothing that comes from now on counts. */
  protected finish(): void {
    this.#over = true
  }

  protected guard(work: () => PairingEvent[]): PairingEvent[] {
    if (this.#over) return []
    try {
      return work()
    } catch (error) {
      return this.fail(error)
    }
  }

  /** Turns what the peer did wrong into the last events; a fault of our own is thrown on, when all is forgotten. */
  protected fail(error: unknown): PairingEvent[] {
    this.finish()
    const failure = failureOf(error)
    this.forget(failure?.reason ?? 'closed')
    if (failure === undefined) throw error
    return UNSAID.includes(failure.reason) ? [failure] : [send(FAILED), failure]
  }
}

export function send(message: Uint8Array): PairingEvent & { type: 'send' } {
  return { type: 'send', bytes: frame(message) }
}

/** For what is no secret. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

function failureOf(error: unknown): (PairingEvent & { type: 'failed' }) | undefined {
  if (error instanceof NoiseError) return { type: 'failed', reason: 'wrong-secret', cause: error }
  if (error instanceof CpaceError) return { type: 'failed', reason: 'malformed', cause: error }
  if (!(error instanceof PairingError)) return undefined
  const { reason, cause } = error
  return { type: 'failed', reason, ...(cause !== undefined && { cause }) }
}
