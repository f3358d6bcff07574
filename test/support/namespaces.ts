import { type ChildProcess, execFile, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'

/** A network namespace is there for as long as this process of ours, and nobody else sees a name of it. */
interface Namespace {
  readonly pid: number
  readonly holder: ChildProcess
}

/**
 * Network namespaces, called hosts, and programs in them. They have no names outside but are held by processes, which end
 * when this one does, however it ends: so nothing is ever left over. Needs root.
 */
export class Namespaces implements AsyncDisposable {
  readonly #namespaces = new Map<string, Namespace>()
  readonly #programs = new Set<ChildProcess>()

  /** The processes that the namespaces live by. */
  get holders(): number[] {
    return [...this.#namespaces.values()].map(({ pid }) => pid)
  }

  async add(host: string): Promise<void> {
    const holder = spawn('unshare', ['--net', 'cat'], { stdio: ['pipe', 'pipe', 'inherit'] })
    holder.stdin.write('in it\n')
    await Promise.race([
      once(holder.stdout, 'data'),
      once(holder, 'exit').then(() => Promise.reject(new Error('unshare failed'))),
    ])
    this.#namespaces.set(host, { pid: holder.pid as number, holder })
    await this.ip(host, ['link set lo up'])
  }

  /** The process that holds the host: `/proc/PID/net` is the host's. */
  pid(host: string): number {
    const namespace = this.#namespaces.get(host)
    if (namespace === undefined) throw new Error(`no host ${host} here`)
    return namespace.pid
  }

  /** Joins two hosts by a pair of veth devices. */
  async link(...ends: [host: string, device: string, address?: string][]): Promise<void> {
    const [one, other] = ends.map(([host, device]) => `name ${device} netns ${this.pid(host)}`)
    await run(['ip', ...`link add ${one} type veth peer ${other}`.split(' ')])
    for (const [host, device, address] of ends)
      await this.ip(host, [
        ...(address === undefined ? [] : [`addr add ${address} dev ${device}`]),
        `link set ${device} up`,
      ])
  }

  async ip(host: string, commands: readonly string[]): Promise<void> {
    await this.run(host, ['ip', '-batch', '-'], commands.map((command) => `${command}\n`).join(''))
  }

  /** Writes to a file below /proc/sys. */
  async set(host: string, setting: string, value: string): Promise<void> {
    await this.run(host, ['tee', `/proc/sys/${setting}`], value)
  }

  /** Starts a program on a host. It is killed when this process or the namespaces end. */
  exec(host: string, argv: readonly [string, ...string[]], options: SpawnOptions = {}): ChildProcess {
    const program = spawn('setpriv', ['--pdeathsig', 'KILL', ...this.#enter(host), ...argv], options)
    this.#programs.add(program)
    program.on('exit', () => this.#programs.delete(program))
    return program
  }

  /** Runs a program on a host to its end, and gives what it wrote. @throws when it fails. */
  async run(host: string, argv: readonly [string, ...string[]], input = ''): Promise<string> {
    return await run([...this.#enter(host), ...argv], input)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = [...this.#programs, ...[...this.#namespaces.values()].map(({ holder }) => holder)].map(
      (program) => {
        const over =
          program.exitCode === null && program.signalCode === null ? once(program, 'exit') : undefined
        program.kill('SIGKILL')
        return over
      },
    )
    await Promise.all(ended)
    this.#namespaces.clear()
  }

  #enter(host: string): string[] {
    return ['nsenter', '-t', `${this.pid(host)}`, '-n']
  }
}

async function run([program, ...args]: readonly string[], input = ''): Promise<string> {
  return await new Promise((resolve, reject) => {
    const child = execFile(program as string, args, (error, stdout, stderr) => {
      if (error) reject(new Error(`${program} ${args.join(' ')}: ${stderr || error.message}\n${input}`))
      else resolve(stdout)
    })
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input)
  })
}
