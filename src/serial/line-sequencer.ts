import { setTimeout as delay } from 'node:timers/promises'
import { type Action, LineRecogniser } from './line-recogniser.ts'
import type { ResetProfile } from './line-sequence.ts'
import type { OutputLines, SerialPort } from './port.ts'

/**
 * Sets the lines of a port for a client far away, whose steps can't keep the time that a board's reset needs: when it is
 * recognised, the sequence is run here. See LineRecogniser.
 */
export class LineSequencer implements Disposable {
  readonly #port: SerialPort
  readonly #profile: ResetProfile
  readonly #onRun: (name: string) => void
  readonly #recogniser: LineRecogniser
  readonly #closing = new AbortController()
  #overdue: NodeJS.Timeout | undefined

  /** `onRun` is told when the sequence begins. */
  constructor(port: SerialPort, profile: ResetProfile, onRun: (name: string) => void) {
    this.#port = port
    this.#profile = profile
    this.#onRun = onRun
    this.#recogniser = new LineRecogniser(profile, port.outputs)
  }

  /** The lines as the client is to see them. */
  get outputs(): Readonly<OutputLines> {
    return this.#recogniser.outputs
  }

  /** Resolves when it is done, a whole sequence where this was its sign. One call at a time. */
  async setLines(change: Readonly<Partial<OutputLines>>): Promise<void> {
    await this.#act(this.#recogniser.setLines(change, performance.now()))
  }

  /** The client has set this speed. */
  async setBaudRate(baudRate: number): Promise<void> {
    await this.#act(this.#recogniser.setBaudRate(baudRate, performance.now()))
  }

  /** A sequence that is under way is brought to its end without its waits, before the port is anybody else's. */
  [Symbol.dispose](): void {
    this.#closing.abort()
    clearTimeout(this.#overdue)
  }

  async #act(action: Action): Promise<void> {
    clearTimeout(this.#overdue)
    switch (action.type) {
      case 'set':
        await this.#set(action.change)
        break
      case 'run':
        this.#onRun(this.#profile.name)
        await this.#run()
        await this.#set(action.afterwards)
        break
      case 'nothing':
        break
      default:
        action satisfies never
    }
    this.#expectMore()
  }

  async #set(change: Readonly<Partial<OutputLines>>): Promise<void> {
    if (Object.keys(change).length > 0) await this.#port.setLines(change)
  }

  /** Waits count from the step before them: a timer that is late must not shorten the next wait. */
  async #run(): Promise<void> {
    for (const step of this.#profile.steps) {
      if (step.type === 'lines') await this.#port.setLines(step.change)
      else await waitAtLeast(step.ms, this.#closing.signal)
    }
  }

  #expectMore(): void {
    const { untilMs } = this.#recogniser
    if (untilMs === undefined || this.#closing.signal.aborted) return
    this.#overdue = setTimeout(
      () => {
        // A port that is gone says so by itself.
        this.#act(this.#recogniser.expire(performance.now())).catch(() => {})
      },
      Math.max(1, Math.ceil(untilMs - performance.now())),
    ).unref()
  }
}

/** Node's timers may fire up to a millisecond early. */
async function waitAtLeast(ms: number, signal: AbortSignal): Promise<void> {
  const until = performance.now() + ms
  for (let left = ms; left > 0 && !signal.aborted; left = until - performance.now())
    await delay(Math.ceil(left), undefined, { signal }).catch(() => {})
}
