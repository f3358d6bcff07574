import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort } from '../support/free-port.ts'
import type { Block, Page } from './page.ts'

const main = new URL('../../src/cli/main.ts', import.meta.url).pathname
const root = new URL('../..', import.meta.url).pathname
const BLOCK_MS = 30_000
const END_MS = 5_000
const LOOK_MS = 20
const TICKET = /FARPORT1[A-Z0-9]+/

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
  readonly #typed = new Set<string>()

  private constructor(directory: string, standIns: Page['standIns']) {
    this.#directory = directory
    this.#standIns = standIns
  }

  static async make(page: Page): Promise<Machines> {
    const directory = await mkdtemp(join(tmpdir(), 'farport-docs-'))
    const command = join(directory, 'farport')
    await writeFile(command, `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`)
    await chmod(command, 0o755)
    await symlink(process.execPath, join(directory, 'node'))
    // As `npm install farport serialport` leaves them for a program below.
    await mkdir(join(directory, 'node_modules'))
    await symlink(root, join(directory, 'node_modules/farport'))
    await symlink(join(root, 'node_modules/serialport'), join(directory, 'node_modules/serialport'))
    const values = {
      ...{ ROOT: root, DIR: directory, HOSTNAME: hostname(), FREE_PORT: String(await freePort()) },
      GROUP: String(process.getgid?.()),
    }
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
        const shell = await this.#start(does.machine, line, text, does.types)
        await exited(shell)
        assert.equal(shell.child.exitCode, does.exitCode, `line ${line} printed ${shell.output()}`)
        return
      }
      case 'stay':
        this.#staying.push(await this.#start(does.machine, line, text, does.types))
        return
      case 'until':
        for (const [index, typed] of text.split('\n').entries()) {
          const shell = await this.#start(does.machine, line + index, typed)
          await until(typed, () => shell.child.exitCode !== null || does.printed.test(shell.output()))
          assert.match(shell.output(), does.printed, `line ${shell.line} ended: ${typed}`)
          signal(shell, 'SIGINT')
          await exited(shell)
        }
        return
      case 'file': {
        const path = join(await this.#home(does.machine), does.path)
        await mkdir(dirname(path), { recursive: true, mode: 0o700 })
        await writeFile(path, `${this.#here(text)}\n`, { mode: 0o600 })
        return
      }
      case 'config': {
        const machine = `config-${line}`
        await writeFile(join(await this.#home(machine), 'farport.yaml'), `${text}\n`)
        const shell = await this.#start(machine, line, 'farport config check --config farport.yaml')
        await exited(shell)
        assert.equal(shell.child.exitCode, 0, `line ${line}: ${shell.output()}`)
        return
      }
      case 'paired': {
        const socket = join(await this.#home(does.host), '.config/farport/control.sock')
        await until(`a farport runs on ${does.host}`, () => existsSync(socket))
        const invite = await this.#start(does.host, line, `farport invite ${text}`)
        const pair = await this.#start(does.guest, line, 'farport pair', TICKET)
        await exited(pair)
        assert.equal(pair.child.exitCode, 0, `line ${line}: ${pair.output()}${invite.output()}`)
        return
      }
      case 'shows': {
        const shell = this.#shells.at(-1)
        assert.ok(shell, `line ${line} shows what nothing has printed`)
        const pattern = patternOf(this.#here(text))
        await until(`line ${line} is printed`, () => pattern.test(shell.output()) || !signal(shell, 0)).catch(
          () => {},
        )
        assert.match(shell.output(), pattern, `line ${line} is not what line ${shell.line} prints`)
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
    // Those that are told to end take their folders and links along.
    for (const shell of this.#shells) signal(shell, 'SIGTERM')
    await until('all have ended', () => !this.#shells.some((shell) => signal(shell, 0)), END_MS).catch(
      () => {},
    )
    for (const shell of this.#shells) signal(shell, 'SIGKILL')
    await Promise.all(
      this.#staying.map(({ child }) => child.exitCode ?? child.signalCode ?? once(child, 'exit')),
    )
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })
  }

  async #start(machine: string, line: number, text: string, types?: RegExp): Promise<Shell> {
    const home = await this.#home(machine)
    const input = types === undefined ? undefined : await this.#unused(types)
    const log = join(this.#directory, `${this.#shells.length}.log`)
    // A file and not a pipe: what runs on in the background would keep the pipe open.
    const out = openSync(log, 'w')
    const child = spawn('bash', ['-euo', 'pipefail', '-c', this.#here(text)], {
      cwd: home,
      detached: true,
      stdio: [input === undefined ? 'ignore' : 'pipe', out, out],
      env: {
        ...process.env,
        LC_ALL: 'C.UTF-8',
        HOME: home,
        FARPORT_HOME: join(home, '.config/farport'),
        PATH: `${this.#directory}:${process.env.PATH}`,
      },
    })
    closeSync(out)
    // Who ends without reading it has told why.
    child.stdin?.on('error', () => {}).end(input)
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

  /** What matches in all that was printed and was not typed before; waited for, since who prints it may just have started. */
  async #unused(pattern: RegExp): Promise<string> {
    const all = new RegExp(pattern, 'g')
    const found = () =>
      this.#shells
        .flatMap(({ output }) => output().match(all) ?? [])
        .findLast((match) => !this.#typed.has(match))
    await until(`${pattern} is printed`, () => found() !== undefined).catch((error: Error) => {
      throw new Error(this.#shells.map(({ line, output }) => `line ${line}: ${output()}`).join('\n'), {
        cause: error,
      })
    })
    const match = found() as string
    this.#typed.add(match)
    return match
  }

  #here(text: string): string {
    return this.#standIns.reduce((all, [what, by]) => all.replaceAll(what, by), text)
  }
}

/** To all that the block has started, in the background too. @returns whether any of it still runs */
function signal({ child }: Shell, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-(child.pid as number), signal)
  } catch {
    return false
  }
}

async function until(what: string, holds: () => boolean, deadlineMs = BLOCK_MS): Promise<void> {
  const start = performance.now()
  while (!holds()) {
    if (performance.now() - start > deadlineMs) assert.fail(`not within ${deadlineMs / 1000} s: ${what}`)
    await delay(LOOK_MS)
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
      .replaceAll(/[\d\\.]+(?=\[ \]\+ms)/g, '[\\d.]+')
      .replaceAll(/\d{4}-\d\d-\d\dT[\d:]+(?:\\\.\d+)?Z/g, '[-:.\\dT]+Z'),
  )
  return new RegExp(patterns.map((pattern) => `^\\s*${pattern}\\s*$`).join('[^]*?'), 'm')
}
