import type { Socket } from 'node:net'
import type { AbortOptions, ComponentLogger, Connection, Upgrader } from '@libp2p/interface'
import { AbstractMultiaddrConnection, ipPortToMultiaddr } from '@libp2p/utils'
import { FarportError } from '../errors.ts'
import { corkForThisTurn } from './corked-tcp.ts'
import { giveShortWay } from './short-way.ts'
import { writerOf } from './socket-room.ts'

/** Noise takes two round trips; whoever is slower than this is not there, or not farport. */
const HANDSHAKE_TIMEOUT_MS = 5_000

/** Who speaks first in the handshake, and which stream ids each side uses: there has to be one of each. */
export type SocketRole = 'dialer' | 'listener'

export interface UpgradeOptions {
  /** Who has to be at the other end. */
  peerId: string
  role: SocketRole
  /** Has no effect any more once the connection is there. */
  signal: AbortSignal
}

/**
 * Makes a libp2p connection of a TCP connection that we got in our own way, mostly one that neither side accepted. The
 * gater is asked as for any other: about whom we dial, and in the listener's role about whom we let in, after Noise.
 * @param socket connected; owned by the connection from here on, and destroyed when there is none
 * @throws FarportError ERR_PEER_UNREACHABLE when it is not the peer that is at the other end, when it does not finish the
 *   handshake, or when the gater refuses; the signal's reason
 */
export async function upgradeSocket(
  { upgrader, logger }: { upgrader: Upgrader; logger: ComponentLogger },
  socket: Socket,
  { peerId, role, signal }: UpgradeOptions,
): Promise<Connection> {
  try {
    signal.throwIfAborted()
    // upgradeInbound answers with nothing, and counts against the strangers that may knock; `initiator` is what both differ in.
    return await upgrader.upgradeOutbound(new SocketConnection(socket, { peerId, role, logger }), {
      initiator: role === 'dialer',
      signal: AbortSignal.any([signal, AbortSignal.timeout(HANDSHAKE_TIMEOUT_MS)]),
    })
  } catch (cause) {
    socket.destroy()
    signal.throwIfAborted()
    const { remoteAddress, remotePort } = socket
    throw new FarportError(
      'ERR_PEER_UNREACHABLE',
      `no connection with ${peerId} could be made over the socket to ${remoteAddress}:${remotePort}`,
      { cause },
    )
  }
}

class SocketConnection extends AbstractMultiaddrConnection {
  readonly #socket: Socket

  constructor(
    socket: Socket,
    { peerId, role, logger }: { peerId: string; role: SocketRole; logger: ComponentLogger },
  ) {
    const { remoteAddress, remotePort } = socket
    if (remoteAddress === undefined || remotePort === undefined)
      throw new Error('the socket is not connected')
    super({
      // With the PeerID in it Noise refuses every other key.
      remoteAddr: ipPortToMultiaddr(remoteAddress, remotePort).encapsulate(`/p2p/${peerId}`),
      // yamux takes the parity of its stream ids from it.
      direction: role === 'dialer' ? 'outbound' : 'inbound',
      log: logger.forComponent('farport:socket'),
    })
    this.#socket = socket
    giveShortWay(
      this,
      writerOf(socket, () => this.safeDispatchEvent('drain')),
    )
    socket.setNoDelay(true)
    socket.on('data', (bytes) => this.onData(bytes))
    socket.on('drain', () => this.safeDispatchEvent('drain'))
    socket.once('error', (error) => this.abort(error))
    socket.once('end', () => this.onTransportClosed())
    socket.once('close', () => this.onTransportClosed())
  }

  /** What is sent in one turn leaves in one system call: a yamux frame is otherwise four writes, each a packet. */
  override sendData(data: Iterable<Uint8Array> & { byteLength: number }): {
    sentBytes: number
    canSendMore: boolean
  } {
    const socket = this.#socket
    corkForThisTurn(socket)
    let canSendMore = true
    for (const bytes of data) canSendMore = socket.write(bytes)
    return { sentBytes: data.byteLength, canSendMore }
  }

  override async sendClose(options?: AbortOptions): Promise<void> {
    const socket = this.#socket
    if (socket.closed) return
    const { promise, resolve } = Promise.withResolvers<void>()
    socket.once('close', resolve)
    options?.signal?.addEventListener('abort', () => socket.destroy(), { once: true })
    socket.destroySoon()
    await promise
  }

  override sendReset(): void {
    // A socket that has begun to end properly can't be reset any more.
    if (this.#socket.writableEnded) this.#socket.destroy()
    else this.#socket.resetAndDestroy()
  }

  override sendPause(): void {
    this.#socket.pause()
  }

  override sendResume(): void {
    this.#socket.resume()
  }
}
