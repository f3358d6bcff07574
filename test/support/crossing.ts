import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startFarport } from '../../src/cli/child.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { NatLab, type NatLabOptions, type Site } from './nat-lab.ts'
import { type PtyPair, ptyPair } from './pty-pair.ts'

type Farport = ReturnType<typeof startFarport>

/** Which of the three. Each has one home and one key, however often it is started. */
export type Role = 'relay' | 'agent' | 'client'

export interface CrossingOptions extends Omit<NatLabOptions, 'sites'> {
  agent: Site
  /** `same-lan`: next to the agent, behind the same router. */
  client: Site | 'same-lan'
  /** Where the relay listens; default 4001. */
  relayPorts?: readonly number[]
  /** What the client logs; default info. To log costs time, too. */
  clientLog?: 'info' | 'debug'
}

/** One process of farport, and what it logs. */
export interface Program {
  readonly farport: Farport
  /** By `performance.now()`. */
  readonly startedAtMs: number
  /** What it has logged so far, a line each, with the time by `performance.now()`. */
  readonly logged: readonly { readonly atMs: number; readonly text: string }[]
}

/**
 * An agent behind one router, a client behind another and a relay between them, in a NAT laboratory: farport as a user
 * starts it. The two know each other, the relay's owner lets the agent use it, and nobody has opened a port. The agent
 * shares a tty, at whose other end the test sits.
 */
export class Crossing implements AsyncDisposable {
  readonly lab: NatLab
  readonly device: PtyPair
  /** Where the client's programs find the port. */
  readonly link: string
  readonly #client: string
  readonly #homes: Record<Role, string>
  readonly #relayAddresses: readonly string[]
  readonly #relayPorts: readonly number[]
  readonly #clientLog: string
  readonly #running = new Map<Role, Program>()
  readonly #stack: AsyncDisposableStack

  private constructor(
    lab: NatLab,
    device: PtyPair,
    dir: string,
    homes: Record<Role, string>,
    relayId: string,
    { client, relayPorts = [4001], clientLog = 'info' }: CrossingOptions,
    stack: AsyncDisposableStack,
  ) {
    this.lab = lab
    this.device = device
    this.link = join(dir, 'link')
    this.#client = client === 'same-lan' ? 'a2' : 'b'
    this.#homes = homes
    this.#relayPorts = relayPorts
    this.#clientLog = clientLog
    this.#relayAddresses = relayPorts.map(
      (port) => `/ip4/${lab.relayAddresses[0]}/tcp/${port}/p2p/${relayId}`,
    )
    this.#stack = stack
  }

  /** The laboratory with nothing running in it yet. */
  static async up(options: CrossingOptions): Promise<Crossing> {
    await using stack = new AsyncDisposableStack()
    const { agent, client, relayPorts: _, clientLog: __, ...others } = options
    const sites = client === 'same-lan' ? { a: agent } : { a: agent, b: client }
    const lab = stack.use(await NatLab.up({ ...others, sites }))
    const dir = await mkdtemp(join(tmpdir(), 'farport-crossing-'))
    stack.defer(() => rm(dir, { recursive: true, force: true }))
    const homes = { relay: join(dir, 'relay'), agent: join(dir, 'agent'), client: join(dir, 'client') }
    for (const home of Object.values(homes)) await mkdir(home, { mode: 0o700 })
    const [relayId, agentId, clientId] = await Promise.all(
      [homes.relay, homes.agent, homes.client].map(
        async (home) => (await loadIdentity(home, { create: true })).peerId,
      ),
    )
    const device = stack.use(ptyPair())
    const crossing = new Crossing(lab, device, dir, homes, relayId as string, options, stack.move())
    const addresses = crossing.#relayAddresses.map((address) => `${address}/p2p-circuit`).join(',')
    await crossing.#trust('relay', `agent ${agentId} may=relay`)
    await crossing.#trust('agent', `client ${clientId} ports=*`)
    await crossing.#trust('client', `agent ${agentId} addr=${addresses}`)
    return crossing
  }

  async startRelay(): Promise<Program> {
    const listen = this.#relayPorts.flatMap((port) => ['--listen', `/ip4/0.0.0.0/tcp/${port}`])
    const relay = this.#start('relay', 'relay', ['relay', ...listen])
    await relay.farport.event('ready')
    return relay
  }

  /** Resolves when the agent shares its port; at a relay that is there, when that has reserved for it. */
  async startAgent({ reserved = true } = {}): Promise<Program> {
    const relays = this.#relayAddresses.flatMap((address) => ['--relay', address])
    const agent = this.#start('agent', 'a', ['share', `${this.device.slavePath}=port`, ...relays])
    await agent.farport.event('ready')
    if (reserved) await agent.farport.event('relay', ({ state }) => state === 'reserved')
    return agent
  }

  /** `farport connect`, just started: what it says and when is for the test. */
  startClient(...args: string[]): Program {
    return this.#start('client', this.#client, ['connect', 'agent/port', ...args])
  }

  /** The same with the port at `link`, up to the moment when programs may open it. */
  async startPty(...args: string[]): Promise<Program> {
    const client = this.startClient('--pty', this.link, ...args)
    await client.farport.event('ready')
    return client
  }

  /** kill -9. */
  async kill(role: Role): Promise<void> {
    const program = this.#running.get(role)
    if (program === undefined) throw new Error(`the ${role} is not running`)
    this.#running.delete(role)
    process.kill(program.farport.pid, 'SIGKILL')
    await program.farport.ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Whoever uses another ends before it: a client takes its time to deliver what an agent no longer takes.
    for (const role of ['client', 'agent', 'relay'] as const)
      await this.#running.get(role)?.farport[Symbol.asyncDispose]()
    await this.#stack.disposeAsync()
  }

  #start(role: Role, host: string, args: string[]): Program {
    const logged: { atMs: number; text: string }[] = []
    const startedAtMs = performance.now()
    const farport = this.#stack.use(
      startFarport(
        [
          ...args,
          '--home',
          this.#homes[role],
          '--json',
          '--log-level',
          role === 'client' ? this.#clientLog : 'info',
        ],
        {
          launch: (program, argv, options) => this.lab.exec(host, [program, ...argv], options),
          onLog: (text) => void logged.push({ atMs: performance.now(), text }),
        },
      ),
    )
    const program = { farport, startedAtMs, logged }
    this.#running.set(role, program)
    return program
  }

  async #trust(role: Role, line: string): Promise<void> {
    await writeFile(join(this.#homes[role], 'trusted_peers'), `${line}\n`, { mode: 0o600 })
  }
}
