import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { type Host, LOOPBACK } from './hosts.ts'

const script = join(import.meta.dirname, 'ends.py')

/** What programs there have to be, and in which Debian package each is. */
const TOOLS: Readonly<Record<string, string>> = {
  ser2net: 'ser2net',
  socat: 'socat',
  ssh: 'openssh-client',
  '/usr/sbin/sshd': 'openssh-server',
  python3: 'python3',
  'wireguard-go': 'wireguard-go',
  wg: 'wireguard-tools',
}

/** ser2net complains of mDNS where there is no system bus; wireguard-go recommends the kernel's own. */
const TALKATIVE = ['ser2net', 'wireguard-go']

/** For a program to end by itself when it is told to. */
const GRACE_MS = 2_000

/** The packages that have to be installed before these programs can be run. */
export function missingPackages(tools: readonly string[]): string[] {
  const dirs = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin']
  const found = (tool: string) =>
    tool.startsWith('/') ? existsSync(tool) : dirs.some((dir) => existsSync(join(dir, tool)))
  return tools.flatMap((tool) => (found(tool) ? [] : [TOOLS[tool] ?? tool]))
}

/** A folder and the programs that run in it; both end with it. */
export class Rig implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'farport-bench-'))
  readonly #stack = new AsyncDisposableStack()
  readonly #sshds = new Map<Host, Promise<{ port: number; pid: number }>>()

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

  start(command: string, args: readonly string[], on: Host = LOOPBACK.near): ChildProcess {
    const child = on.launch(command, args, {
      stdio: ['ignore', 'ignore', TALKATIVE.includes(command) ? 'ignore' : 'inherit'],
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    })
    const closed = once(child, 'close')
    this.#stack.defer(async () => {
      // An sshd's sessions outlive it.
      const family = child.pid === undefined ? [] : familyOf(child.pid)
      for (const pid of family) endProcess(pid, 'SIGTERM')
      // ser2net may wait for a connection to drain that never will.
      const impatience = setTimeout(() => family.map((pid) => endProcess(pid, 'SIGKILL')), GRACE_MS)
      await closed
      clearTimeout(impatience)
    })
    return child
  }

  /** A device on a PTY that sends back what it gets, or of another kind that ends.py has. */
  async device(name: string, kind: 'echo' | 'flood' | 'modbus' = 'echo'): Promise<string> {
    const link = this.path(`${name}-device`)
    this.start('python3', [script, kind, link])
    return await appears(link)
  }

  /** So many that send back what they get, in one process. */
  async devices(count: number): Promise<string[]> {
    const links = Array.from({ length: count }, (_, i) => this.path(`device${i}`))
    this.start('python3', [script, 'echoes', ...links])
    for (const link of links) await appears(link)
    return links
  }

  /** A private sshd, one on each host that asks, with keys of its own. */
  sshd(host: Host): Promise<{ port: number; pid: number }> {
    const sshd = this.#sshds.get(host) ?? this.#startSshd(host)
    this.#sshds.set(host, sshd)
    return sshd
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

  async #startSshd(host: Host): Promise<{ port: number; pid: number }> {
    const port = await freePort()
    const keys = ['host-key', 'user-key'].filter((key) => !existsSync(this.path(key)))
    for (const key of keys)
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', this.path(key)])
    if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true })
    chmodSync(this.dir, 0o700)
    const config = this.path(`sshd-${port}.conf`)
    const { dir } = this
    writeFileSync(
      config,
      `Port ${port}\nListenAddress ${host.address}\nHostKey ${dir}/host-key\nAuthorizedKeysFile ${dir}/user-key.pub\nPermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n`,
    )
    const { pid } = this.start('/usr/sbin/sshd', ['-D', '-e', '-q', '-f', config], host)
    await host.listens(port)
    return { port, pid: pid as number }
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
  const fields = statOf(pid)
  return (Number(fields[11]) + Number(fields[12])) * 10
}

/** The process and all that descend from it. */
export function familyOf(pid: number): number[] {
  const parents = readdirSync('/proc')
    .map(Number)
    .filter((entry) => entry > 0)
    .flatMap((entry) => {
      try {
        return [[entry, Number(statOf(entry)[1])] as const]
      } catch {
        return [] // It has just ended.
      }
    })
  const family = [pid]
  for (const parent of family)
    family.push(...parents.filter(([, of]) => of === parent).map(([child]) => child))
  return family
}

/** What /proc/PID/stat says after the name, which may have spaces in it: state, parent, and so on. */
function statOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')
}

function endProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It has ended by itself.
  }
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
