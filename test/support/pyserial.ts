import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

/** Debian's Python: the one that python3-serial is installed for, whatever else is first on PATH. */
const PYTHON = '/usr/bin/python3'
const driver = new URL('../interop/pyserial_driver.py', import.meta.url).pathname

/** Why pyserial can't be had here, with the remedy. */
export function missingPyserial(): string | undefined {
  const found = spawnSync(PYTHON, ['-c', 'import serial'], { stdio: 'ignore' }).status === 0
  return found ? undefined : 'pyserial is missing: apt-get install python3-serial'
}

/** A program that uses a port through pyserial: see pyserial_driver.py for what it can be told. */
export class Pyserial implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>

  private constructor(child: ChildProcess, answers: AsyncIterator<string>) {
    this.#child = child
    this.#answers = answers
  }

  static async open(url: string, options: object = {}): Promise<Pyserial> {
    const child = spawn(PYTHON, [driver, url, JSON.stringify(options)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const program = new Pyserial(child, answers)
    await program.#answer()
    return program
  }

  async tell(command: object): Promise<Record<string, unknown>> {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`)
    return await this.#answer()
  }

  set(attributes: object): Promise<unknown> {
    return this.tell({ set: attributes })
  }

  async #answer(): Promise<Record<string, unknown>> {
    const { value, done } = await this.#answers.next()
    if (done) throw new Error('pyserial gave up; what it said is above')
    return JSON.parse(value) as Record<string, unknown>
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const closed = once(this.#child, 'close')
    this.#child.stdin?.end()
    await closed
  }
}
