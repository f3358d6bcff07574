import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer, isIPv4, type Server, type Socket } from 'node:net'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { ipBytes } from './ip-address.ts'
import {
  type Change,
  decodeMessage,
  encodeMessage,
  type IpEndpoint,
  MAX_MESSAGE_BYTES,
  messageBytes,
  StunError,
  type StunRequest,
} from './message.ts'
import { RateLimit } from './rate-limit.ts'

/** STUN's own port (RFC 8489), and the one that a changed answer comes from. */
export const STUN_PORTS = [3478, 3479] as const

export interface StunServerOptions {
  /**
   * One address of this machine, or two of one family, each with both ports. Where it is a wildcard (`0.0.0.0`, `::`) we don't know from
   * where an answer leaves, so RESPONSE-ORIGIN and OTHER-ADDRESS are left out; changing the port works all the same.
   */
  hosts: readonly [string] | readonly [string, string]
  /** For UDP and for TCP; 0 means any free one. */
  ports?: readonly [number, number]
  log: Logger
  limits?: Partial<StunLimits>
}

export interface StunLimits {
  /** UDP requests answered: per address (an IPv6 network of 64 bits counts as one), and in all. */
  perSourcePerSecond: number
  totalPerSecond: number
  maxSources: number
  /** TCP connections at once: per address and in all. */
  connectionsPerSource: number
  connections: number
  requestsPerConnection: number
  /** How long a TCP connection may last: a hole puncher keeps its own until it is through. */
  connectionMs: number
}

const DEFAULT_LIMITS: StunLimits = {
  perSourcePerSecond: 20,
  totalPerSecond: 2_000,
  maxSources: 4_096,
  connectionsPerSource: 32,
  connections: 512,
  requestsPerConnection: 8,
  connectionMs: 30_000,
}

/** 420 Unknown Attribute (RFC 8489 §14.8). */
const UNKNOWN_ATTRIBUTE = 420
const CHANGE_REQUEST = 0x0003

/** How long a call to an asker may take. */
const CALL_MS = 3_000

/** Which of the addresses, and which of its ports. */
interface Place {
  host: 0 | 1
  port: 0 | 1
}

interface Listener {
  place: Place
  udp: UdpSocket
  tcp: Server
  bound: IpEndpoint
}

/**
 * Answers Binding requests over UDP and TCP, for anybody: it tells nothing but the asker's own address.
 *
 * Over UDP the source of a question may be forged, so what an answer adds to it is kept small: 32 bytes for 20 on a
 * wildcard address, 56 for 20 with RESPONSE-ORIGIN and OTHER-ADDRESS; with the headers of IPv4 and UDP that is 1.25 and
 * 1.75 times the traffic. No address is sent more than `perSourcePerSecond` of them.
 */
export class StunServer implements AsyncDisposable {
  readonly #log: Logger
  readonly #limits: StunLimits
  readonly #rate: RateLimit
  readonly #listeners: Listener[] = []
  readonly #connections = new Map<Socket, string>()

  private constructor(log: Logger, limits: StunLimits) {
    this.#log = log
    this.#limits = limits
    this.#rate = new RateLimit({
      perSource: { perSecond: limits.perSourcePerSecond, burst: limits.perSourcePerSecond },
      total: { perSecond: limits.totalPerSecond, burst: limits.totalPerSecond },
      maxSources: limits.maxSources,
    })
  }

  /** @throws FarportError ERR_IN_USE when a port is taken or an address is not this machine's. */
  static async start({ hosts, ports = STUN_PORTS, log, limits }: StunServerOptions): Promise<StunServer> {
    const server = new StunServer(log, { ...DEFAULT_LIMITS, ...limits })
    try {
      for (const [host, address] of hosts.entries())
        for (const [port, number] of ports.entries())
          await server.#listen({ host, port } as Place, address, number)
      return server
    } catch (error) {
      await server[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Where it listens, both UDP and TCP: the ports of the first address, then those of the second. */
  get addresses(): IpEndpoint[] {
    return this.#listeners.map(({ bound }) => bound)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#connections.keys()) socket.destroy()
    const closed = this.#listeners.flatMap(({ udp, tcp }) => [
      new Promise<void>((done) => udp.close(done)),
      new Promise<void>((done) => tcp.close(() => done())),
    ])
    this.#listeners.length = 0
    await Promise.all(closed)
  }

  async #listen(place: Place, host: string, port: number): Promise<void> {
    const tcp = createServer({ noDelay: true })
    const udp = isIPv4(host) ? createSocket('udp4') : createSocket({ type: 'udp6', ipv6Only: true })
    try {
      tcp.listen({ host, port, ipv6Only: true })
      await once(tcp, 'listening')
      const address = tcp.address() as { address: string; port: number }
      const bound = { address: address.address, port: address.port }
      udp.bind(bound.port, host)
      await once(udp, 'listening')
      const listener: Listener = { place, udp, tcp, bound }
      this.#listeners.push(listener)
      udp.on('message', (bytes, from) => this.#datagram(listener, bytes, from))
      udp.on('error', (err) => this.#log.warn({ err, ...bound }, 'STUN over UDP failed'))
      tcp.on('connection', (socket) => this.#connection(listener, socket))
      tcp.on('error', (err) => this.#log.warn({ err, ...bound }, 'STUN over TCP failed'))
    } catch (cause) {
      tcp.close()
      udp.close()
      throw new FarportError(
        'ERR_IN_USE',
        `Can't listen for STUN on ${host} port ${port}: another program has it, or this machine has no such address.`,
        { cause },
      )
    }
  }

  #datagram(listener: Listener, bytes: Buffer, from: RemoteInfo): void {
    // Nobody can be answered at port 0, and Node throws when asked to.
    if (from.port === 0 || !this.#rate.take(sourceOf(from.address))) return
    try {
      const request = decodeMessage(bytes)
      if (request.type !== 'request') return
      const sender = request.change ? this.#changed(listener, request.change) : listener
      const answer = this.#answer(request, listener, sender, from)
      // A failure to send is a lost packet, which the asker has to bear anyway.
      ;(sender ?? listener).udp.send(answer, from.port, from.address, () => undefined)
    } catch (error) {
      if (!(error instanceof StunError)) throw error
    }
  }

  #connection(listener: Listener, socket: Socket): void {
    const peer = { address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 }
    const source = peer.address === '' ? '' : sourceOf(peer.address)
    const fromSource = [...this.#connections.values()].filter((other) => other === source).length
    if (
      source === '' ||
      this.#connections.size >= this.#limits.connections ||
      fromSource >= this.#limits.connectionsPerSource
    ) {
      socket.destroy()
      return
    }
    this.#connections.set(socket, source)
    const deadline = setTimeout(() => socket.destroy(), this.#limits.connectionMs)
    socket.on('close', () => {
      clearTimeout(deadline)
      this.#connections.delete(socket)
    })
    socket.on('error', () => undefined)
    let requests = 0
    let bytes = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      try {
        if (bytes.length + chunk.length > this.#limits.requestsPerConnection * MAX_MESSAGE_BYTES)
          throw new StunError('too many bytes at once')
        bytes = Buffer.concat([bytes, chunk])
        for (let length = messageBytes(bytes); length !== undefined && bytes.length >= length; ) {
          const request = decodeMessage(bytes.subarray(0, length))
          bytes = bytes.subarray(length)
          length = messageBytes(bytes)
          if (request.type !== 'request' || ++requests > this.#limits.requestsPerConnection)
            throw new StunError('not a question, or one too many')
          if (request.change?.address || request.change?.port) this.#callBack(request, listener, socket, peer)
          else socket.write(this.#answer(request, listener, listener, peer))
        }
      } catch (error) {
        socket.destroy()
        if (!(error instanceof StunError)) throw error
      }
    })
  }

  /**
   * What RFC 5780 has for UDP only: connects to the asker from another address, or at least from another port than the
   * one asked (ours are listened on), and answers there. Nobody else can be meant: the asker's connection says that it is
   * there. The call ends with it.
   */
  #callBack(request: StunRequest, receiver: Listener, asker: Socket, peer: IpEndpoint): void {
    const sender = request.change && this.#changed(receiver, request.change)
    const answer = this.#answer(request, receiver, sender, peer)
    if (sender === undefined || request.unknown !== undefined) {
      asker.write(answer)
      return
    }
    const { address } = sender.bound
    const call = connect({
      host: peer.address,
      port: peer.port,
      timeout: CALL_MS,
      ...(!isWildcard(address) && { localAddress: address }),
    })
    call.on('connect', () => call.end(answer))
    // Refused or unheard: the asker learns it from the silence.
    call.on('error', () => undefined)
    call.on('timeout', () => call.destroy())
    call.resume()
    asker.once('close', () => call.destroy())
  }

  /** The answer to what `receiver` got, as `sender` gives it; without a sender, that CHANGE-REQUEST can't be done. */
  #answer(
    { transactionId, unknown = [] }: StunRequest,
    receiver: Listener,
    sender: Listener | undefined,
    mapped: IpEndpoint,
  ): Buffer {
    if (sender === undefined || unknown.length > 0) {
      const refused = sender === undefined ? [...unknown, CHANGE_REQUEST] : unknown
      return encodeMessage({ type: 'error', transactionId, code: UNKNOWN_ATTRIBUTE, unknown: refused })
    }
    const other =
      this.#changed(receiver, { address: true, port: true }) ??
      this.#changed(receiver, { address: false, port: true })
    const places =
      other === undefined || isWildcard(sender.bound.address)
        ? {}
        : { origin: sender.bound, other: other.bound }
    return encodeMessage({
      type: 'success',
      transactionId,
      mapped: { address: mapped.address, port: mapped.port },
      ...places,
    })
  }

  #changed({ place }: Listener, change: Change): Listener | undefined {
    const host = change.address ? 1 - place.host : place.host
    const port = change.port ? 1 - place.port : place.port
    return this.#listeners.find((other) => other.place.host === host && other.place.port === port)
  }
}

function isWildcard(address: string): boolean {
  return ipBytes(address).every((byte) => byte === 0)
}

/** Whose limit it is: an IPv4 address, or the 64 bits that one IPv6 subscriber has at least. */
function sourceOf(address: string): string {
  const ip = ipBytes(address)
  return ip.subarray(0, ip.length === 4 ? 4 : 8).toString('hex')
}
