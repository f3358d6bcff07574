import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { freePort } from '../support/free-port.ts'
import { until } from '../support/until.ts'
import type { Block, Page } from './page.ts'

const main = new URL('../../src/cli/main.ts', import.meta.url).pathname
const BLOCK_MS = 30_000

interface Shell {
  readonly line: number
  readonly child: ChildProcess
  readonly output: () => string
}

/** The machines of a page, each a HOME in one throw-away folder, and the shells that run there. */
export class Machines {
  readonly #directory: string
  readonly #standIns: Page['standIns']
  readonly #shells: Shell[] = []
  readonly #staying: Shell[] = []

  private constructor(directory: string, standIns: Page['standIns']) {
    this.#directory = directory
    this.#standIns = standIns
  }

  static async make(page: Page): Promise<Machines> {
    const directory = await mkdtemp(join(tmpdir(), 'farport-docs-'))
    const command = join(directory, 'farport')
    await writeFile(command, `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`)
    await chmod(command, 0o755)
    const values = { DIR: directory, HOSTNAME: hostname(), FREE_PORT: String(await freePort()) }
    const filled = page.standIns.map(
      ([what, by]) =>
        [what, by.replaceAll(/\$(\w+)/g, (all, name) => values[name as keyof typeof values] ?? all)] as const,
    )
    return new Machines(directory, filled)
  }

  /** Does what a block's marker says. */
  async play({ line, text, does }: Block): Promise<void> {
    switch (does.kind) {
      case 'run': {
        const input = does.types === undefined ? '' : await this.#seen(does.types)
        const shell = await this.#start(does.machine, line, text, input)
        await exited(shell)
        assert.equal(shell.child.exitCode, does.exitCode, `line ${line} printed ${shell.output()}`)
        return
      }
      case 'stay':
        this.#staying.push(await this.#start(does.machine, line, text, ''))
        return
      case 'until':
        for (const [index, typed] of text.split('\n').entries()) {
          const shell = await this.#start(does.machine, line + 1 + index, typed, '')
          await until(typed, () => shell.child.exitCode !== null || does.printed.test(shell.output()))
          assert.match(shell.output(), does.printed, `line ${shell.line} ended`)
          process.kill(-(shell.child.pid as number), 'SIGINT')
          await exited(shell)
        }
        return
      case 'file': {
        const path = join(await this.#home(does.machine), does.path)
        await mkdir(dirname(path), { recursive: true, mode: 0o700 })
        await writeFile(path, `${this.#here(text)}\n`, { mode: 0o600 })
        return
      }
      case 'shows': {
        const shell = this.#shells.at(-1)
        assert.ok(shell, `line ${line} shows what nothing has printed`)
        const pattern = patternOf(this.#here(text))
        await until(`line ${line} is printed`, () => pattern.test(shell.output())).catch(() =>
          assert.match(shell.output(), pattern, `line ${line} is not what line ${shell.line} prints`),
        )
        return
      }
      case 'not run':
        return
      case 'unmarked':
        throw new Error(`line ${line} has no marker`)
      default:
        does satisfies never
    }
  }

  /** @throws when a terminal that was to stay has ended with an error */
  checkStaying(): void {
    for (const { line, child, output } of this.#staying)
      assert.ok(child.exitCode === null || child.exitCode === 0, `line ${line} ended: ${output()}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { child } of this.#shells) {
      try {
        // All that the block has started, in the background too.
        process.kill(-(child.pid as number), 'SIGKILL')
      } catch {
        // They have all ended.
      }
    }
    await Promise.all(
      this.#staying.map(({ child }) => child.exitCode ?? child.signalCode ?? once(child, 'exit')),
    )
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })
  }

  async #start(machine: string, line: number, text: string, input: string): Promise<Shell> {
    const home = await this.#home(machine)
    const log = join(this.#directory, `${line}.log`)
    // A file and not a pipe: what runs on in the background would keep the pipe open.
    const out = openSync(log, 'w')
    const child = spawn('bash', ['-euo', 'pipefail', '-c', this.#here(text)], {
      cwd: home,
      detached: true,
      stdio: ['pipe', out, out],
      env: {
        ...process.env,
        HOME: home,
        FARPORT_HOME: join(home, '.config/farport'),
        PATH: `${this.#directory}:${process.env.PATH}`,
      },
    })
    closeSync(out)
    child.stdin?.end(input)
    await once(child, 'spawn')
    const shell = { line, child, output: () => readFileSync(log, 'utf8') }
    this.#shells.push(shell)
    return shell
  }

  async #home(machine: string): Promise<string> {
    const home = join(this.#directory, machine)
    await mkdir(home, { recursive: true, mode: 0o700 })
    return home
  }

  /** The last match in all that was printed; waited for, since who prints it may just have started. */
  async #seen(pattern: RegExp): Promise<string> {
    const found = () =>
      this.#shells.map(({ output }) => pattern.exec(output())?.[0]).findLast((match) => match)
    await until(`${pattern} is printed`, () => found() !== undefined).catch((error: Error) => {
      throw new Error(this.#shells.map(({ line, output }) => `line ${line}: ${output()}`).join('\n'), {
        cause: error,
      })
    })
    return found() as string
  }

  #here(text: string): string {
    return this.#standIns.reduce((all, [what, by]) => all.replaceAll(what, by), text)
  }
}

async function exited({ child, line, output }: Shell): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  await once(child, 'exit', { signal: AbortSignal.timeout(BLOCK_MS) }).catch(() =>
    assert.fail(`line ${line} does not end: ${output()}`),
  )
}

/** Each line of `text` in this order, whatever is between them. */
function patternOf(text: string): RegExp {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  const patterns = lines.map((line) =>
    line
      .trim()
      .replaceAll(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
      .replaceAll(/ +/g, '[ ]+')
      .replaceAll('…', '.*')
      .replaceAll(/[\d\\.]+(?=\[ \]\+ms)/g, '[\\d.]+'),
  )
  return new RegExp(patterns.map((pattern) => `^\\s*${pattern}\\s*$`).join('[^]*?'), 'm')
}
