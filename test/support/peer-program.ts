import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'

const DEADLINE_MS = 10_000

/** A program that somebody else wrote, on pipes. Disposal ends it. */
export class PeerProgram implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown>
  #said = ''

  constructor(command: string, args: readonly string[]) {
    // Debian has servers in sbin, which a user's PATH lacks.
    const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/usr/local/sbin` }
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env })
    this.#closed = once(this.#child, 'close')
    this.#child.stdin?.on('error', () => {})
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.setEncoding('latin1').on('data', (text: string) => {
        this.#said += text
        this.#child.emit('said')
      })
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  types(text: string): void {
    this.#child.stdin?.write(text)
  }

  /** Waits until it has said this, on its output or among its errors. */
  async says(what: string): Promise<void> {
    const deadline = AbortSignal.timeout(DEADLINE_MS)
    while (!this.#said.includes(what))
      await once(this.#child, 'said', { signal: deadline }).catch(() =>
        assert.fail(`it says ${JSON.stringify(this.#said)} and not ${JSON.stringify(what)}`),
      )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.running) this.#child.kill()
    await this.#closed
  }
}
