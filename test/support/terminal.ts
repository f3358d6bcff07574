import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, closeSync, constants, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FdDuplex } from '../../src/device/fd-duplex.ts'
import { loadLibc } from '../../src/device/libc.ts'
import type { Termios2 } from '../../src/device/termios.ts'

const main = new URL('../../src/cli/main.ts', import.meta.url).pathname

const DEADLINE_MS = 30_000
const CTRL_C = '\x03'

/**
 * A terminal window of 80 × 24 with a shell in it, as a person has it: commands are typed, answers are read off the
 * screen, and the PTY is the controlling terminal of all that runs there.
 */
export class Terminal implements AsyncDisposable {
  static readonly columns = 80
  static readonly rows = 24
  /** The commands that were typed at the shell. */
  readonly commands: string[] = []
  readonly #master: FdDuplex
  readonly #termios: () => Termios2
  readonly #shell: ChildProcess
  readonly #exited: Promise<unknown>
  #shown = ''

  private constructor(master: FdDuplex, termios: () => Termios2, shell: ChildProcess) {
    this.#master = master
    this.#termios = termios
    this.#shell = shell
    this.#exited = once(shell, 'exit')
    master.setEncoding('utf8').on('data', (text: string) => {
      this.#shown += text
      master.emit('shown')
    })
    master.on('error', () => {})
  }

  /** `dir` is for the command itself and the shell's history; `inside` begins the shell elsewhere, such as `ip netns exec`. */
  static async open(dir: string, env: NodeJS.ProcessEnv, inside: readonly string[] = []): Promise<Terminal> {
    const command = join(dir, 'farport')
    writeFileSync(command, `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`)
    chmodSync(command, 0o755)
    const libc = loadLibc()
    const { fd, slavePath } = libc.openPtyMaster()
    const slave = openSync(slavePath, constants.O_RDWR | constants.O_NOCTTY)
    const stty = ['-F', slavePath, 'rows', String(Terminal.rows), 'columns', String(Terminal.columns)]
    assert.equal(spawnSync('stty', stty).status, 0)
    const shell = ['bash', '--norc', '--noprofile', '--noediting', '-i']
    const child = spawn('/usr/bin/setsid', ['-c', ...inside, ...shell], {
      stdio: [slave, slave, slave],
      env: {
        ...process.env,
        PATH: `${dir}:${process.env.PATH}`,
        PS1: '[$?] ready> ',
        HISTFILE: join(dir, 'history'),
        TERM: 'xterm',
        ...env,
      },
    })
    closeSync(slave)
    const terminal = new Terminal(new FdDuplex(libc, { fd }), () => libc.termios(fd), child)
    await terminal.status()
    return terminal
  }

  /** All there is to read, by scrolling back too, as the programs wrote it. */
  get shown(): string {
    return this.#shown
  }

  /** How the terminal is set just now. */
  get modes(): { iflag: number; oflag: number; cflag: number; lflag: number } {
    const { iflag, oflag, cflag, lflag } = this.#termios()
    return { iflag, oflag, cflag, lflag }
  }

  /** Types a command at the shell. What is shown counts from here on. */
  run(command: string): void {
    this.commands.push(command)
    this.#shown = ''
    this.type(`${command}\r`)
  }

  type(keys: string): void {
    this.#master.write(keys)
  }

  /** Waits until this is to be read. */
  async reads(what: RegExp): Promise<RegExpExecArray> {
    const deadline = AbortSignal.timeout(DEADLINE_MS)
    for (;;) {
      const found = what.exec(this.#shown)
      if (found !== null) return found
      await once(this.#master, 'shown', { signal: deadline }).catch(() =>
        assert.fail(`${what} is not to be read in:\n${this.#shown}`),
      )
    }
  }

  /** The exit status of what was run, once the shell asks for the next command. */
  async status(): Promise<number> {
    return Number((await this.reads(/\[(\d+)\] ready> $/))[1])
  }

  interrupt(): void {
    this.type(CTRL_C)
  }

  /** Ends what runs, then the shell, which writes its history. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#shell.exitCode === null && this.#shell.signalCode === null) {
      if (!/ready> $/.test(this.#shown)) this.interrupt()
      await this.status().catch(() => this.#shell.kill('SIGKILL'))
      this.type('exit\r')
      await this.#exited
    }
    await this.#master[Symbol.asyncDispose]()
  }
}
