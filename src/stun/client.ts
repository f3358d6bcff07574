import { randomBytes } from 'node:crypto'
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { connect, isIP, isIPv6, type Socket } from 'node:net'
import { FarportError } from '../errors.ts'
import {
  type Change,
  decodeMessage,
  encodeMessage,
  type IpEndpoint,
  messageBytes,
  StunError,
  type StunMessage,
  type StunSuccess,
  TRANSACTION_ID_BYTES,
} from './message.ts'

/** Where a STUN server is. */
export interface StunServerAddress {
  /** An IP address, IPv6 without brackets, or a name. */
  readonly host: string
  readonly port: number
}

/** What one server said about one local port. */
export interface Mapping {
  /** Ours, as the socket knows it. */
  readonly local: IpEndpoint
  /** Ours, as the server sees it: behind a NAT, what the NAT made of `local`. */
  readonly mapped: IpEndpoint
  readonly rttMs: number
  /** The server's address and port that answered, and the other ones it has: only from a server that says so (RFC 5780). */
  readonly origin?: IpEndpoint
  readonly other?: IpEndpoint
}

/** A mapping that is kept alive: the connection that showed it stays open until disposed of. */
export interface HeldMapping extends Mapping, Disposable {
  /**
   * Asks a farport server to connect to our port from elsewhere and answer there, if it gets through. Gives the transaction
   * id of that answer.
   */
  requestCall(change: Change): Buffer
}

/** When a datagram is sent again after no answer, in ms, and after the last of them how long is still waited. */
const RETRY_MS = [250, 500, 1000, 1000]

/**
 * Asks a server over TCP how our local port looks from there, and keeps the connection, so that a NAT keeps the port
 * for us; dispose of the answer to let go. The port can be used for other connections meanwhile: the socket is bound by
 * address, which makes Node set SO_REUSEADDR; so must be the next one (`connect({ localAddress: '0.0.0.0', localPort })`).
 *
 * @param options.localPort without it, a free one.
 * @throws FarportError ERR_PEER_UNREACHABLE when nobody answers there, ERR_IN_USE when the port is taken, ERR_PROTOCOL
 *   when it is no STUN server; or the signal's reason.
 */
export async function stunTcp(
  server: StunServerAddress,
  options: { localAddress?: string; localPort?: number; signal: AbortSignal },
): Promise<HeldMapping> {
  const { signal, localPort = 0, localAddress = isIPv6(server.host) ? '::' : '0.0.0.0' } = options
  signal.throwIfAborted()
  const startedAt = performance.now()
  const socket = connect({
    ...server,
    localAddress,
    localPort,
    family: isIPv6(localAddress) ? 6 : 4,
    // Several attempts at once would want the one local port.
    autoSelectFamily: false,
    noDelay: true,
  })
  // An error between two waits must not end the process; the next wait finds the socket destroyed.
  socket.on('error', () => undefined)
  const onAbort = () => socket.destroy(asError(signal.reason))
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await once(socket, 'connect')
    const rttMs = performance.now() - startedAt
    const transactionId = randomBytes(TRANSACTION_ID_BYTES)
    socket.write(encodeMessage({ type: 'request', transactionId }))
    const answer = await readMessage(socket)
    if (!answer.transactionId.equals(transactionId)) throw new StunError('an answer to another question')
    if (answer.type === 'error') throw new StunError(`refused: ${answer.code}`)
    if (answer.type === 'request') throw new StunError('a question instead of an answer')
    // Read on, or the server's end of the connection would go unnoticed and never be answered.
    socket.resume()
    return {
      local: { address: socket.localAddress ?? localAddress, port: socket.localPort ?? localPort },
      ...seen(answer, rttMs),
      requestCall(change) {
        const callId = randomBytes(TRANSACTION_ID_BYTES)
        socket.write(encodeMessage({ type: 'request', transactionId: callId, change }))
        return callId
      },
      [Symbol.dispose]: () => void socket.destroy(),
    }
  } catch (error) {
    socket.destroy()
    if (signal.aborted) throw signal.reason
    throw asFarportError(error, server, 'tcp')
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** The first message on a connection, which stays open. @throws StunError where it is none. */
export async function readMessage(socket: Socket): Promise<StunMessage> {
  let bytes = Buffer.alloc(0)
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    bytes = Buffer.concat([bytes, chunk])
    const length = messageBytes(bytes)
    if (length !== undefined && bytes.length >= length) return decodeMessage(bytes.subarray(0, length))
  }
  throw new StunError('closed without a message')
}

/** Asks a server over UDP how our local port looks from there. Errors as {@link stunTcp}. */
export async function stunUdp(
  server: StunServerAddress,
  options: { localPort?: number; signal: AbortSignal },
): Promise<Mapping> {
  await using client = await StunUdpClient.bind({
    family: isIPv6(server.host) ? 6 : 4,
    ...(options.localPort !== undefined && { localPort: options.localPort }),
  })
  return await client.ask(server, { signal: options.signal })
}

/** One UDP port from which several questions can be asked, one at a time or at once. */
export class StunUdpClient implements AsyncDisposable {
  readonly #socket: UdpSocket
  readonly #family: 4 | 6
  /** By transaction id, in hexadecimal digits. */
  readonly #waiting = new Map<string, PromiseWithResolvers<StunSuccess>>()

  constructor(socket: UdpSocket, family: 4 | 6) {
    this.#socket = socket
    this.#family = family
    socket.on('message', (bytes) => this.#received(bytes))
    // ICMP errors of a connectionless socket; who asked runs into its deadline.
    socket.on('error', () => undefined)
  }

  /** @throws FarportError ERR_IN_USE when the port is taken. */
  static async bind({
    family,
    localPort = 0,
  }: {
    family: 4 | 6
    localPort?: number
  }): Promise<StunUdpClient> {
    const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
    try {
      socket.bind(localPort)
      await once(socket, 'listening')
      return new StunUdpClient(socket, family)
    } catch (error) {
      socket.close()
      if (isSystemError(error, 'EADDRINUSE'))
        throw new FarportError('ERR_IN_USE', `UDP port ${localPort} is in use.`, { cause: error })
      throw error
    }
  }

  get localPort(): number {
    return this.#socket.address().port
  }

  /**
   * Sends the question until it is answered, four times in 2.75 s at most. The answer may come from anywhere, as it must
   * where `change` asks for that; its 96 random bits say that it is one.
   */
  async ask(
    server: StunServerAddress,
    { change, signal }: { change?: Change; signal: AbortSignal },
  ): Promise<Mapping> {
    signal.throwIfAborted()
    const transactionId = randomBytes(TRANSACTION_ID_BYTES)
    const request = encodeMessage({ type: 'request', transactionId, ...(change && { change }) })
    const key = transactionId.toString('hex')
    const answer = Promise.withResolvers<StunSuccess>()
    // Rejected while the name is still being looked up, nobody waits for it.
    answer.promise.catch(() => undefined)
    this.#waiting.set(key, answer)
    const onAbort = () => answer.reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    let timer: NodeJS.Timeout | undefined
    try {
      const address = await Promise.race([this.#resolve(server.host), answer.promise.then(() => server.host)])
      let sentAt = 0
      const send = (attempt: number) => {
        const waitMs = RETRY_MS[attempt]
        if (waitMs === undefined) return answer.reject(new Error('no answer'))
        sentAt = performance.now()
        // A failure to send (no route, a filter) counts as a lost packet.
        this.#socket.send(request, server.port, address, () => undefined)
        timer = setTimeout(send, waitMs, attempt + 1)
      }
      send(0)
      const success = await answer.promise
      const local = { address: this.#socket.address().address, port: this.localPort }
      return { local, ...seen(success, performance.now() - sentAt) }
    } catch (error) {
      if (signal.aborted) throw signal.reason
      throw asFarportError(error, server, 'udp')
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      this.#waiting.delete(key)
    }
  }

  async #resolve(host: string): Promise<string> {
    return isIP(host) === 0 ? (await lookup(host, { family: this.#family })).address : host
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((done) => this.#socket.close(done))
  }

  #received(bytes: Buffer): void {
    try {
      const answer = decodeMessage(bytes)
      const waiting = this.#waiting.get(answer.transactionId.toString('hex'))
      if (answer.type === 'success') waiting?.resolve(answer)
      else if (answer.type === 'error') waiting?.reject(new StunError(`refused: ${answer.code}`))
    } catch (error) {
      if (!(error instanceof StunError)) throw error
    }
  }
}

function seen({ mapped, origin, other }: StunSuccess, rttMs: number): Omit<Mapping, 'local'> {
  return { mapped, rttMs, ...(origin && { origin }), ...(other && { other }) }
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}

function asFarportError(
  cause: unknown,
  { host, port }: StunServerAddress,
  protocol: 'tcp' | 'udp',
): FarportError {
  const where = `the STUN server ${host} on ${protocol} port ${port}`
  if (isSystemError(cause, 'EADDRINUSE'))
    return new FarportError('ERR_IN_USE', `The local port for asking ${where} is in use.`, { cause })
  if (cause instanceof StunError)
    return new FarportError('ERR_PROTOCOL', `Got no STUN answer from ${where}.`, { cause })
  return new FarportError('ERR_PEER_UNREACHABLE', `Can't reach ${where}.`, { cause })
}

function isSystemError(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}
