import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'

const script = join(import.meta.dirname, 'ends.py')

/** What programs there have to be, and in which Debian package each is. */
const TOOLS: Readonly<Record<string, string>> = {
  ser2net: 'ser2net',
  socat: 'socat',
  ssh: 'openssh-client',
  '/usr/sbin/sshd': 'openssh-server',
  python3: 'python3',
}

/** The packages that have to be installed first. */
export function missingPackages(): string[] {
  const dirs = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin']
  const found = (tool: string) =>
    tool.startsWith('/') ? existsSync(tool) : dirs.some((dir) => existsSync(join(dir, tool)))
  return Object.entries(TOOLS).flatMap(([tool, name]) => (found(tool) ? [] : [name]))
}

/** A folder and the programs that run in it; both end with it. */
export class Rig implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'farport-bench-'))
  readonly #stack = new AsyncDisposableStack()
  #sshd: Promise<number> | undefined

  constructor() {
    this.#stack.defer(() => rmSync(this.dir, { recursive: true, force: true }))
  }

  path(name: string): string {
    return join(this.dir, name)
  }

  use<T extends AsyncDisposable | Disposable>(resource: T): T {
    return this.#stack.use(resource)
  }

  defer(onDispose: () => void): void {
    this.#stack.defer(onDispose)
  }

  start(command: string, args: readonly string[]): ChildProcess {
    const child = spawn(command, args, {
      // ser2net complains of mDNS where there is no system bus.
      stdio: ['ignore', 'ignore', command === 'ser2net' ? 'ignore' : 'inherit'],
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    })
    const closed = once(child, 'close')
    this.#stack.defer(async () => {
      child.kill()
      await closed
    })
    return child
  }

  /** A device on a PTY that sends back what it gets. */
  async device(name: string): Promise<string> {
    const link = this.path(`${name}-device`)
    this.start('python3', [script, 'echo', link])
    return await appears(link)
  }

  /** A private sshd on the loopback address, with keys of its own: answers its port. */
  sshd(): Promise<number> {
    this.#sshd ??= this.#startSshd()
    return this.#sshd
  }

  /** What it takes to log in there. */
  sshArgs(port: number): string[] {
    const options = [
      'StrictHostKeyChecking=no',
      `UserKnownHostsFile=${this.dir}/known_hosts`,
      'LogLevel=ERROR',
      'IdentitiesOnly=yes',
    ]
    const to = ['-p', String(port), '-l', userInfo().username, '-i', this.path('user-key')]
    return ['-F', 'none', ...to, ...options.flatMap((option) => ['-o', option])]
  }

  async #startSshd(): Promise<number> {
    const port = await freePort()
    for (const key of ['host-key', 'user-key'])
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', this.path(key)])
    if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true })
    chmodSync(this.dir, 0o700)
    const config = this.path('sshd_config')
    const { dir } = this
    writeFileSync(
      config,
      `Port ${port}\nListenAddress 127.0.0.1\nHostKey ${dir}/host-key\nAuthorizedKeysFile ${dir}/user-key.pub\nPermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n`,
    )
    this.start('/usr/sbin/sshd', ['-D', '-e', '-q', '-f', config])
    await listening(port)
    return port
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}

/** Runs one of the ends that measure, and gives what it found. */
export async function measure<T>(...args: readonly (string | number)[]): Promise<T> {
  const child = spawn('python3', [script, ...args.map(String)], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (chunk) => {
    text += chunk
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`ends.py ${args.join(' ')} failed`)
  return JSON.parse(text) as T
}

/** Processor time that a process has used, in milliseconds: proc(5), where a tick is 10 ms. */
export function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}

export async function appears(path: string): Promise<string> {
  for (let i = 0; i < 200; i++) {
    if (existsSync(path)) return path
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new Error(`${path} did not appear`)
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

export async function listening(port: number): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const socket = connect(port, '127.0.0.1')
    const up = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'close').then(() => false),
    ]).catch(() => false)
    socket.destroy()
    if (up) return
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new Error(`nothing listens on port ${port}`)
}
