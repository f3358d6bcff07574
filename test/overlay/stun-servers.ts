import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import type { StunServerAddress } from '../../src/stun/client.ts'
import { decodeMessage, encodeMessage } from '../../src/stun/message.ts'

/** Two STUN servers on the loopback that say what a test wants to hear. */
export class StunServers implements AsyncDisposable {
  readonly addresses: StunServerAddress[]
  /** Open connections: mappings that somebody holds. */
  readonly sockets = new Set<Socket>()
  readonly #servers: Server[]

  private constructor(servers: Server[]) {
    this.#servers = servers
    this.addresses = servers.map((server) => ({
      host: '127.0.0.1',
      port: (server.address() as { port: number }).port,
    }))
  }

  /** @param nat what the server with this number sees of a port; the port itself unless given */
  static async start(nat: (port: number, server: number) => number = (port) => port): Promise<StunServers> {
    const servers = [0, 1].map(() => createServer().listen(0, '127.0.0.1'))
    await Promise.all(servers.map((server) => once(server, 'listening')))
    const all = new StunServers(servers)
    for (const [index, server] of servers.entries()) {
      server.on('connection', (socket) => {
        all.sockets.add(socket)
        socket.on('error', () => {}).on('close', () => all.sockets.delete(socket))
        socket.on('data', (bytes) => {
          const { transactionId } = decodeMessage(bytes)
          const mapped = { address: '127.0.0.1', port: nat(socket.remotePort ?? 0, index) }
          socket.write(encodeMessage({ type: 'success', transactionId, mapped }))
        })
      })
    }
    return all
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    await Promise.all(
      this.#servers.map((server) => {
        server.close()
        return once(server, 'close')
      }),
    )
  }
}
