import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Right } from '../trust/grants.ts'
import { HELLO_TIMEOUT_MS, readHello, refuse } from './hello.ts'
import { HostedPort, type HostedPortOptions, type HostedPortStatus, notGranted } from './hosted-port.ts'
import { answerPorts, readPortsQuestion } from './listing.ts'
import type { Caller, CallerPath, HostEvent } from './port-event.ts'
import type { SharedPort } from './shared-port.ts'

export interface PortHostOptions {
  ports: readonly SharedPort[]
  /** Asked at every attach and for every request, so that a change of the trust file bites at once. */
  rights: (peerId: string, port: string) => ReadonlySet<Right>
  /** What a peer is called, for telling another who has taken a port over. */
  nameOf?: (peerId: string) => string | undefined
  /** Told what peers do, for whoever keeps account of it. */
  tell?: (event: HostEvent) => void
  /** Shown what passes a port, byte by byte: they may change once it returns. */
  tap?: HostedPortOptions['tap']
  log: Logger
}

/** The agent's side: answers peers about shared ports, and lets in those that may use or watch one. */
export class PortHost implements AsyncDisposable {
  #ports: ReadonlyMap<string, HostedPort>
  readonly #options: HostedPortOptions
  readonly #rights: PortHostOptions['rights']
  readonly #tell: NonNullable<PortHostOptions['tell']>
  readonly #log: Logger
  readonly #closing = new AbortController()

  constructor({
    ports,
    rights,
    nameOf = () => undefined,
    tell = () => {},
    tap = () => {},
    log,
  }: PortHostOptions) {
    const options = { rights, nameOf, tell, tap, log }
    this.#options = options
    this.#ports = new Map(ports.map((shared) => [shared.name, new HostedPort(shared, options)]))
    this.#rights = rights
    this.#tell = tell
    this.#log = log
  }

  /** Takes a stream on which `peerId` speaks SERIAL_PROTOCOL. Never rejects: what goes wrong is told to the peer. */
  async accept(stream: Duplex, peerId: string, path?: CallerPath): Promise<void> {
    const caller = { peerId, ...(path && { path }) }
    stream.on('error', () => {})
    let port: HostedPort | undefined
    try {
      const hello = await readHello(stream, this.#patience())
      port = this.#port(hello.port, peerId, hello.mode)
      await port.attach(stream, caller, hello)
    } catch (error) {
      const again = error instanceof FarportError && error.code === 'ERR_PORT_BUSY'
      this.#refuse(stream, caller, error, { isNews: !again || (port?.isFirstBusy(peerId) ?? true) })
    }
  }

  /** Answers a stream on which `peerId` speaks PORTS_PROTOCOL. Never rejects. */
  async answerPorts(stream: Duplex, peerId: string, path?: CallerPath): Promise<void> {
    stream.on('error', () => {})
    try {
      const name = await readPortsQuestion(stream, this.#patience())
      const ports = name === undefined ? [...this.#ports.values()] : [this.#port(name, peerId, 'watch')]
      const listings = await Promise.all(ports.map((port) => port.list(peerId)))
      answerPorts(
        stream,
        listings.filter((listing) => listing !== undefined),
      )
    } catch (error) {
      this.#refuse(stream, { peerId, ...(path && { path }) }, error, { isNews: true })
    }
  }

  /**
   * Shares these ports from now on. Those that are the same objects as before go on undisturbed; channels to others end, and
   * their devices are closed before those that take their names are there.
   */
  async become(ports: readonly SharedPort[]): Promise<void> {
    const before = [...this.#ports.values()]
    const kept = new Map(
      before.filter((port) => ports.includes(port.shared)).map((port) => [port.shared, port]),
    )
    this.#ports = new Map(before.filter((port) => kept.has(port.shared)).map((port) => [port.name, port]))
    const changed = new FarportError('ERR_CHANNEL_LOST', 'the agent shares this port no longer, or otherwise')
    await Promise.all(before.filter((port) => !kept.has(port.shared)).map((port) => port.close(changed)))
    this.#ports = new Map(
      ports.map((shared) => [shared.name, kept.get(shared) ?? new HostedPort(shared, this.#options)]),
    )
  }

  /** How each port is, for its owner. */
  async statuses(): Promise<HostedPortStatus[]> {
    return await Promise.all([...this.#ports.values()].map((port) => port.status()))
  }

  /** The shortest way there and back to each peer that uses a port, in milliseconds. */
  roundTrips(): Map<string, number> {
    const shortest = new Map<string, number>()
    for (const port of this.#ports.values())
      for (const { peerId, roundTripMs } of port.roundTrips())
        shortest.set(peerId, Math.min(roundTripMs, shortest.get(peerId) ?? Number.POSITIVE_INFINITY))
    return shortest
  }

  /** Ends every channel that the trust file no longer covers. */
  enforce(): void {
    for (const port of this.#ports.values()) port.enforce()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const error = new FarportError('ERR_CHANNEL_LOST', 'the agent is shutting down')
    this.#closing.abort(error)
    await Promise.all([...this.#ports.values()].map((port) => port.close(error)))
  }

  #patience(): AbortSignal {
    return AbortSignal.any([this.#closing.signal, AbortSignal.timeout(HELLO_TIMEOUT_MS)])
  }

  #refuse(stream: Duplex, caller: Caller, error: unknown, { isNews }: { isNews: boolean }): void {
    const refusal = error instanceof FarportError ? error : new FarportError('ERR_INTERNAL', 'internal error')
    this.#log[isNews ? 'info' : 'debug'](
      { peer: caller.peerId, code: refusal.code, err: error },
      'refused a peer',
    )
    if (isNews) this.#tell({ event: 'refuse', ...caller, reason: refusal.message })
    refuse(stream, refusal)
  }

  /** The port a peer asks for. Rights come before existence: a peer without any can't find out which names are real. */
  #port(name: string, peerId: string, right: Right): HostedPort {
    if (!this.#rights(peerId, name).has(right)) throw notGranted(name)
    const port = this.#ports.get(name)
    if (port !== undefined) return port
    throw new FarportError(
      'ERR_NO_SUCH_PORT',
      `no port called ${name} is shared there: \`farport ports PEER\` lists them`,
    )
  }
}
