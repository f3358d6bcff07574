import { Socket } from 'node:net'
import type { MultiaddrConnection, Transport, Upgrader } from '@libp2p/interface'
import { type TCPComponents, tcp } from '@libp2p/tcp'
import { giveShortWay } from './short-way.ts'
import { writerOf } from './socket-room.ts'

/**
 * libp2p's TCP, over which what is sent in one turn leaves in one system call. By itself it writes each piece of a frame by
 * its own (Noise's length, the frame's header, its payload, Noise's tag), and each is a packet.
 */
export function corkedTcp(): (components: TCPComponents) => Transport {
  return (components) => {
    const transport: Transport = tcp()(components)
    const dial = transport.dial.bind(transport)
    const createListener = transport.createListener.bind(transport)
    transport.dial = (address, options) => dial(address, { ...options, upgrader: corking(options.upgrader) })
    transport.createListener = (options) =>
      createListener({ ...options, upgrader: corking(options.upgrader) })
    return transport
  }
}

/** The upgrader is who gets each connection first. */
function corking(upgrader: Upgrader): Upgrader {
  return {
    upgradeInbound: (connection, options) => upgrader.upgradeInbound(cork(connection), options),
    upgradeOutbound: (connection, options) => upgrader.upgradeOutbound(cork(connection), options),
    createInboundAbortSignal: (signal) => upgrader.createInboundAbortSignal(signal),
    getConnectionEncrypters: () => upgrader.getConnectionEncrypters(),
    getStreamMuxers: () => upgrader.getStreamMuxers(),
  }
}

/** What @libp2p/tcp hands to the upgrader. */
interface SocketConnection {
  readonly socket?: unknown
  sendData(data: unknown): unknown
  safeDispatchEvent(type: 'drain'): boolean
}

function cork(connection: MultiaddrConnection): MultiaddrConnection {
  const inside = connection as unknown as SocketConnection
  const { socket } = inside
  if (!(socket instanceof Socket)) return connection
  const send = inside.sendData.bind(connection)
  inside.sendData = (data) => {
    corkForThisTurn(socket)
    return send(data)
  }
  giveShortWay(
    connection,
    writerOf(socket, () => inside.safeDispatchEvent('drain')),
  )
  return connection
}

export function corkForThisTurn(socket: Socket): void {
  if (socket.writableCorked > 0) return
  socket.cork()
  process.nextTick(() => socket.uncork())
}
