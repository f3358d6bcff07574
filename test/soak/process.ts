import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { Holdings } from './probe.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const PROBE = fileURLToPath(new URL('probe.ts', import.meta.url))
/** So long an event, or an answer, is waited for. */
const DEADLINE_MS = 30_000
/** Its last words, for whoever asks why it ended. */
const MAX_WORDS = 4_096

export interface FarportEvent {
  event: string
  [field: string]: unknown
}

/** A farport under test: followed by its events as they come, measured, and killed as one pleases. */
export class FarportProcess implements AsyncDisposable {
  readonly pid: number
  readonly ended: Promise<unknown>
  /** What it logged last. */
  words = ''
  readonly #child: ChildProcess
  readonly #events = new EventEmitter<{ event: [FarportEvent] }>().setMaxListeners(0)

  constructor(...args: string[]) {
    this.#child = spawn(process.execPath, ['--expose-gc', '--import', PROBE, MAIN, ...args, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    })
    this.pid = this.#child.pid ?? 0
    this.ended = once(this.#child, 'close')
    const { stdout, stderr } = this.#child as ChildProcess & { stdout: Readable; stderr: Readable }
    createInterface({ input: stdout }).on('line', (line) => {
      const event = JSON.parse(line) as FarportEvent
      if (event.event === 'error') this.words += line
      this.#events.emit('event', event)
    })
    stderr.setEncoding('utf8').on('data', (text: string) => {
      this.words = (this.words + text).slice(-MAX_WORDS)
    })
  }

  /** The next event that fits, from now on. */
  async next(what: string, fits: (event: FarportEvent) => boolean): Promise<FarportEvent> {
    const { promise, resolve, reject } = Promise.withResolvers<FarportEvent>()
    const look = (event: FarportEvent) => fits(event) && resolve(event)
    const late = setTimeout(() => reject(new Error(`never: ${what}\n${this.words}`)), DEADLINE_MS)
    this.#events.on('event', look)
    void this.ended.then(() => reject(new Error(`ended before ${what}\n${this.words}`)))
    try {
      return await promise
    } finally {
      clearTimeout(late)
      this.#events.off('event', look)
    }
  }

  ready(): Promise<FarportEvent> {
    return this.next('ready', ({ event }) => event === 'ready')
  }

  /** The state of a link becomes this. */
  link(state: string): Promise<FarportEvent> {
    return this.next(`link ${state}`, (event) => event.event === 'link' && event.state === state)
  }

  async measure(): Promise<Holdings> {
    const answer = once(this.#child, 'message', { signal: AbortSignal.timeout(DEADLINE_MS) })
    this.#child.send('measure')
    const [holdings] = (await answer) as [Holdings]
    return holdings
  }

  /** Ends it without a word, as a power cut or the out-of-memory killer does. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGTERM')
    await this.ended
  }
}
