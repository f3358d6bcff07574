import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startFarport } from '../../src/cli/child.ts'
import { loadIdentity } from '../../src/trust/identity.ts'

type Farport = ReturnType<typeof startFarport>

/** An agent's home and a client's, each with its own key, and their trusted_peers as a person would paste them. */
export class TwoHomes implements AsyncDisposable {
  readonly dir: string
  readonly agentHome: string
  readonly clientHome: string
  readonly agentId: string
  readonly clientId: string
  readonly #stack = new AsyncDisposableStack()

  private constructor(dir: string, agentId: string, clientId: string) {
    this.dir = dir
    this.agentHome = join(dir, 'A')
    this.clientHome = join(dir, 'B')
    this.agentId = agentId
    this.clientId = clientId
    this.#stack.defer(() => rm(dir, { recursive: true, force: true }))
  }

  static async make(): Promise<TwoHomes> {
    const dir = await mkdtemp(join(tmpdir(), 'farport-test-'))
    const agent = await loadIdentity(join(dir, 'A'), { create: true })
    const client = await loadIdentity(join(dir, 'B'), { create: true })
    return new TwoHomes(dir, agent.peerId, client.peerId)
  }

  path(name: string): string {
    return join(this.dir, name)
  }

  /** What the agent's owner lets the client do; empty for a client it does not know. */
  async grant(options: string): Promise<void> {
    await this.#trust(this.agentHome, options === '' ? '' : `client ${this.clientId} ${options}`)
  }

  /** The client has never heard of the agent. */
  async forget(): Promise<void> {
    await this.#trust(this.clientHome, '')
  }

  /** Under which addresses the client looks for the agent, which it calls `a`. */
  async reach(addresses: readonly string[]): Promise<void> {
    const bare = addresses.map((address) => address.replace(/\/p2p\/.*$/, ''))
    await this.#trust(this.clientHome, `a ${this.agentId} addr=${bare.join(',')}`)
  }

  /** Starts the agent on a free port of the loopback address and tells the client where. */
  async share(...devices: string[]): Promise<Farport & { addresses: string[] }> {
    const agent = this.start([
      'share',
      ...devices,
      '--home',
      this.agentHome,
      '--listen',
      '/ip4/127.0.0.1/tcp/0',
    ])
    const { addresses } = (await agent.event('ready')) as unknown as { addresses: string[] }
    await this.reach(addresses)
    return Object.assign(agent, { addresses })
  }

  /** Starts `farport connect` and waits until its local ends are there. */
  async connect(...args: string[]): Promise<Farport & { links: { port: string; at: string }[] }> {
    const client = this.start(['connect', ...args, '--home', this.clientHome])
    const { links } = (await client.event('ready')) as unknown as { links: { port: string; at: string }[] }
    return Object.assign(client, { links })
  }

  /** Any farport process; it ends with this object. */
  start(args: string[]): Farport {
    return this.#stack.use(startFarport([...args, '--json']))
  }

  use<T extends AsyncDisposable | Disposable>(resource: T): T {
    return this.#stack.use(resource)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }

  async #trust(home: string, line: string): Promise<void> {
    await writeFile(join(home, 'trusted_peers'), `${line}\n`, { mode: 0o600 })
  }
}
