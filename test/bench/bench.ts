import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { TwoHomes } from '../support/two-homes.ts'

/**
 * farport beside the stack it replaces, in one run and interleaved: an application on a PTY, a device on a PTY, both the
 * same little scripts, and between them farport (agent and client, two processes) or ser2net + ssh -L + socat.
 */
const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    trips: { type: 'string', default: '3000' },
    mib: { type: 'string', default: '16' },
    json: { type: 'boolean', default: false },
  },
})

/** A path from an application's tty to the echoing device, up and running. */
interface Stack {
  readonly name: string
  readonly tty: string
}

const tools = {
  ser2net: 'ser2net',
  socat: 'socat',
  ssh: 'openssh-client',
  '/usr/sbin/sshd': 'openssh-server',
  python3: 'python3',
}
const missing = Object.entries(tools).filter(([tool]) => !found(tool))
if (missing.length > 0) {
  const packages = missing.map(([, name]) => name).join(' ')
  process.stderr.write(
    `bench: ${missing.map(([tool]) => tool).join(', ')} not found: apt-get install ${packages}\n`,
  )
  process.exit(7)
}

function found(tool: string): boolean {
  if (tool.startsWith('/')) return existsSync(tool)
  return [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin'].some((dir) =>
    existsSync(join(dir, tool)),
  )
}

const script = join(import.meta.dirname, 'ends.py')
const dir = mkdtempSync(join(tmpdir(), 'farport-bench-'))

await using stack = new AsyncDisposableStack()
stack.defer(() => rmSync(dir, { recursive: true, force: true }))

/** Starts a program that ends with the bench. */
function start(command: string, args: string[]): ChildProcess {
  const child = spawn(command, args, {
    // ser2net complains of mDNS where there is no system bus.
    stdio: ['ignore', 'ignore', command === 'ser2net' ? 'ignore' : 'inherit'],
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  })
  const closed = once(child, 'close')
  stack.defer(async () => {
    child.kill()
    await closed
  })
  return child
}

async function appears(path: string): Promise<string> {
  for (let i = 0; i < 200; i++) {
    if (existsSync(path)) return path
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new Error(`${path} did not appear`)
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

async function device(name: string): Promise<string> {
  const link = join(dir, `${name}-device`)
  start('python3', [script, 'echo', link])
  return await appears(link)
}

async function farport(): Promise<Stack> {
  const tty = await device('farport')
  const homes = stack.use(await TwoHomes.make())
  await homes.grant('ports=echo')
  await homes.share(`${tty}=echo`)
  const pty = join(dir, 'farport-app')
  await homes.connect('a/echo', '--pty', pty)
  return { name: 'farport', tty: pty }
}

async function ser2net(name: string, chardelay: boolean, sshPort: number): Promise<Stack> {
  const tty = await device(name)
  const [serverPort, tunnelPort] = [await freePort(), await freePort()]
  const config = join(dir, `${name}.yaml`)
  writeFileSync(
    config,
    `connection: &c
  accepter: tcp(nodelay),127.0.0.1,${serverPort}
  connector: serialdev,${tty},115200n81,local
  options:
    chardelay: ${chardelay}
    kickolduser: true
`,
  )
  start('ser2net', ['-n', '-c', config])
  start('ssh', [
    ...sshOptions(sshPort),
    '-N',
    '-L',
    `127.0.0.1:${tunnelPort}:127.0.0.1:${serverPort}`,
    '127.0.0.1',
  ])
  await listening(tunnelPort)
  const pty = join(dir, `${name}-app`)
  start('socat', [`PTY,link=${pty},rawer`, `TCP:127.0.0.1:${tunnelPort},nodelay`])
  const app = await appears(pty)
  // socat ends when the last program closes its PTY, so one has to stay.
  const hold = openSync(app, constants.O_RDWR | constants.O_NOCTTY)
  stack.defer(() => closeSync(hold))
  return { name, tty: app }
}

function sshOptions(port: number): string[] {
  const options = [
    'StrictHostKeyChecking=no',
    `UserKnownHostsFile=${dir}/known_hosts`,
    'LogLevel=ERROR',
    'IdentitiesOnly=yes',
  ]
  return [
    '-F',
    'none',
    '-p',
    String(port),
    '-l',
    userInfo().username,
    '-i',
    join(dir, 'user-key'),
    ...options.flatMap((o) => ['-o', o]),
  ]
}

/** A private sshd on the loopback address, with keys of its own. */
async function sshd(): Promise<number> {
  const port = await freePort()
  for (const key of ['host-key', 'user-key'])
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, key)])
  if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true })
  chmodSync(dir, 0o700)
  const config = join(dir, 'sshd_config')
  writeFileSync(
    config,
    `Port ${port}\nListenAddress 127.0.0.1\nHostKey ${dir}/host-key\nAuthorizedKeysFile ${dir}/user-key.pub\nPermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n`,
  )
  start('/usr/sbin/sshd', ['-D', '-e', '-q', '-f', config])
  await listening(port)
  return port
}

async function listening(port: number): Promise<void> {
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

async function measure<T>(...args: string[]): Promise<T> {
  const child = spawn('python3', [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (chunk) => {
    text += chunk
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`ends.py ${args.join(' ')} failed`)
  return JSON.parse(text) as T
}

const median = (values: number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number
const say = (text: string) => process.stderr.write(`${text}\n`)

const sshPort = await sshd()
const stacks = [
  await farport(),
  await ser2net('ser2net+ssh+socat', false, sshPort),
  await ser2net('ser2net as shipped', true, sshPort),
]
const results = new Map(
  stacks.map(({ name }) => [name, { p50: [] as number[], p99: [] as number[], mibPerS: [] as number[] }]),
)

for (let round = 1; round <= Number(flags.rounds); round++) {
  for (const { name, tty } of stacks) {
    const result = results.get(name)
    if (result === undefined) continue
    const trips = name === 'ser2net as shipped' ? '300' : flags.trips
    const { p50, p99 } = await measure<{ p50: number; p99: number }>('rtt', tty, trips)
    const { mib_s, wrong } = await measure<{ mib_s: number; wrong: number }>(
      'bulk',
      tty,
      name === 'ser2net as shipped' ? '1' : flags.mib,
    )
    if (wrong > 0) throw new Error(`${name}: ${wrong} blocks came back wrong`)
    result.p50.push(p50)
    result.p99.push(p99)
    result.mibPerS.push(mib_s)
    say(
      `round ${round}  ${name.padEnd(20)} 1 byte there and back: p50 ${p50} µs, p99 ${p99} µs   both ways: ${mib_s} MiB/s`,
    )
  }
}

const figures = [...results].map(([name, { p50, p99, mibPerS }]) => ({
  name,
  p50: median(p50),
  p99: median(p99),
  mibPerS: median(mibPerS),
}))
const [ours, tuned, shipped] = figures as [Figures, Figures, Figures]
type Figures = (typeof figures)[number]

const ratios = [
  {
    figure: '1-byte round trip p50 against ser2net (chardelay: false) + ssh -L + socat',
    ratio: ours.p50 / tuned.p50,
    bar: '≤ 1.0',
  },
  { figure: '1-byte round trip p99 against the same', ratio: ours.p99 / tuned.p99, bar: '≤ 1.0' },
  {
    figure: '1-byte round trip p50 against ser2net as shipped + ssh -L + socat',
    ratio: ours.p50 / shipped.p50,
    bar: '≤ 0.1',
  },
  {
    figure: 'bulk both ways against ser2net (chardelay: false) + ssh -L + socat',
    ratio: ours.mibPerS / tuned.mibPerS,
    bar: '≥ 2',
  },
].map((row) => ({ ...row, ratio: Number(row.ratio.toFixed(2)) }))

if (flags.json) process.stdout.write(`${JSON.stringify({ figures, ratios })}\n`)
else {
  for (const { name, p50, p99, mibPerS } of figures)
    process.stdout.write(
      `${name.padEnd(20)} p50 ${p50} µs  p99 ${p99} µs  ${mibPerS} MiB/s  (medians of ${flags.rounds} rounds)\n`,
    )
  for (const { figure, ratio, bar } of ratios) process.stdout.write(`${ratio} ×  ${figure} (bar: ${bar})\n`)
}
