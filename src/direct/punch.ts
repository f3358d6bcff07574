import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import { type HeldMapping, type StunServerAddress, stunTcp } from '../stun/client.ts'

/** Asked at once, since some may be down. */
const MAX_STUN_SERVERS = 4
/** As many as it takes to recognise a NAT that makes another port for each destination. */
const OPINIONS = 2
const STUN_TIMEOUT_MS = 3_000
/**
 * Between the first two attempts, and between later ones. Plus up to half of it, so that two sides that refuse each other
 * don't stay in step.
 */
const FIRST_RETRY_MS = 100
const LAST_RETRY_MS = 800
const ANY = '0.0.0.0'
/** Those who may knock at the port we wait at, at a time; others are turned away. */
const MAX_BACKLOG = 4

/** An address and port as in an IP packet. */
export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** What one side knows about its port. */
export interface MappedPort {
  /** As the internet sees it. */
  readonly mapped: Endpoint
  /** Whether the NAT makes another port of it for each destination, so that the peer can't know it. */
  readonly varies: boolean
}

/**
 * What each side does, by whether its mapping and the peer's vary:
 * - `open`: both connect at the same moment. Each packet out makes its NAT expect the other's, and TCP has a rule for two
 *   that call each other (RFC 9293, section 3.5: simultaneous open).
 * - `wait` and `call`: nobody can call the one whose mapping varies. It calls; the other waits, for which its NAT must let
 *   strangers in, or must not exist.
 * - `none`: neither knows where to call.
 */
export function rendezvous(varies: boolean, peerVaries: boolean): 'open' | 'wait' | 'call' | 'none' {
  if (varies) return peerVaries ? 'none' : 'call'
  return peerVaries ? 'wait' : 'open'
}

/**
 * A TCP port of ours for one attempt. Whatever uses it is bound by address, which makes Node set SO_REUSEADDR: only so can
 * several sockets share a port. The connections to the STUN servers stay open, so that the NAT keeps the mapping.
 */
export class FreshPort implements AsyncDisposable, MappedPort {
  readonly mapped: Endpoint
  readonly varies: boolean
  readonly #localPort: number
  readonly #resources: AsyncDisposableStack

  private constructor(
    localPort: number,
    { mapped }: HeldMapping,
    second: HeldMapping | undefined,
    resources: AsyncDisposableStack,
  ) {
    this.#localPort = localPort
    this.mapped = mapped
    // Without a second opinion we hope for the best.
    this.varies = second !== undefined && !sameEndpoint(second.mapped, mapped)
    this.#resources = resources
  }

  /** @throws FarportError ERR_PEER_UNREACHABLE when no server answers; the signal's reason */
  static async open(servers: readonly StunServerAddress[], signal: AbortSignal): Promise<FreshPort> {
    await using resources = new AsyncDisposableStack()
    const localPort = await freePort()
    const enough = new AbortController()
    const until = AbortSignal.any([signal, enough.signal, AbortSignal.timeout(STUN_TIMEOUT_MS)])
    const opinions: HeldMapping[] = []
    const asked = servers.slice(0, MAX_STUN_SERVERS).map(async (server) => {
      const opinion = resources.use(await stunTcp(server, { localAddress: ANY, localPort, signal: until }))
      opinions.push(opinion)
      if (opinions.length === OPINIONS) enough.abort()
    })
    const outcomes = await Promise.allSettled(asked)
    signal.throwIfAborted()
    const [first, second] = opinions
    if (first === undefined)
      throw new FarportError('ERR_PEER_UNREACHABLE', 'no STUN server says which port the internet sees', {
        cause: outcomes.find((outcome) => outcome.status === 'rejected')?.reason,
      })
    return new FreshPort(localPort, first, second, resources.move())
  }

  /** Connects from this port until it works: the peer's NAT, or the peer itself, may refuse before the peer connects, too. */
  async connect(to: Endpoint, signal: AbortSignal): Promise<Socket> {
    return await connectFrom(this.#localPort, to, signal)
  }

  /**
   * Waits at this port for a connection from a host, whatever its port.
   * @returns once others can connect: a promise of the first connection
   */
  async listen(from: Endpoint, signal: AbortSignal): Promise<{ accepted: Promise<Socket> }> {
    await this.#letIn(from)
    signal.throwIfAborted()
    const server = createServer({ noDelay: true })
    this.#resources.defer(() => void server.close())
    const { promise: accepted, resolve, reject } = Promise.withResolvers<Socket>()
    accepted.catch(() => {})
    const abort = () => {
      server.close()
      reject(signal.reason)
    }
    signal.addEventListener('abort', abort, { once: true })
    this.#resources.defer(() => signal.removeEventListener('abort', abort))
    server.on('connection', (socket) => {
      socket.on('error', () => {})
      if (socket.remoteAddress !== from.address) return void socket.resetAndDestroy()
      server.close()
      resolve(socket)
    })
    server.listen({ host: ANY, port: this.#localPort, backlog: MAX_BACKLOG, exclusive: true })
    await once(server, 'listening', { signal })
    server.on('error', reject)
    return { accepted }
  }

  /** A packet to the host makes a NAT that filters by address alone let that host in; nobody needs to get it. */
  async #letIn({ address, port }: Endpoint): Promise<void> {
    const socket = connect({ host: address, port, localAddress: ANY, localPort: this.#localPort })
    const { promise: closed, resolve } = Promise.withResolvers<void>()
    socket.on('error', () => {}).once('close', resolve)
    // The packet leaves within the call that libuv makes for us; a turn later we may take it back.
    setImmediate(() => socket.destroy())
    await closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync()
  }
}

/** What goes away by itself when the peer is a moment later, or a NAT has not yet forgotten. */
const PASSING = new Set(['ECONNREFUSED', 'ECONNRESET', 'EADDRNOTAVAIL', 'EHOSTUNREACH', 'ETIMEDOUT'])

/**
 * Connects from a given local port, again and again.
 * @throws the system's error when there is no point in going on; the signal's reason
 */
export async function connectFrom(localPort: number, to: Endpoint, signal: AbortSignal): Promise<Socket> {
  for (let pauseMs = FIRST_RETRY_MS; ; pauseMs = Math.min(2 * pauseMs, LAST_RETRY_MS)) {
    signal.throwIfAborted()
    const socket = connect({
      host: to.address,
      port: to.port,
      localAddress: ANY,
      localPort,
      family: 4,
      noDelay: true,
    })
    // Also for after we have handed it on, until its new owner listens.
    socket.on('error', () => {})
    try {
      await once(socket, 'connect', { signal })
      return socket
    } catch (error) {
      socket.destroy()
      signal.throwIfAborted()
      if (!PASSING.has((error as NodeJS.ErrnoException).code ?? '')) throw error
    }
    await sleep(pauseMs * (1 + Math.random() / 2), undefined, { signal })
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, ANY)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.address === b.address && a.port === b.port
}
