import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { pipeline } from 'node:stream'

/** A TCP proxy on the loopback address whose connections can be killed, as a router that reboots would. */
export class TcpProxy implements AsyncDisposable {
  readonly port: number
  readonly #close: () => Promise<void>
  readonly #sockets = new Set<Socket>()
  /** Connections accepted so far. */
  connections = 0

  private constructor(port: number, close: () => Promise<void>) {
    this.port = port
    this.#close = close
  }

  static async to(target: number): Promise<TcpProxy> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const proxy = new TcpProxy((server.address() as AddressInfo).port, async () => {
      server.close()
      proxy.cut()
      await once(server, 'close')
    })
    server.on('connection', (near) => {
      proxy.connections++
      const far = connect({ port: target, host: '127.0.0.1', noDelay: true })
      near.setNoDelay()
      for (const socket of [near, far]) {
        proxy.#sockets.add(socket)
        socket.on('error', () => {}).on('close', () => proxy.#sockets.delete(socket))
      }
      pipeline(near, far, () => near.destroy())
      pipeline(far, near, () => far.destroy())
    })
    return proxy
  }

  /** Kills every connection with a reset: what is under way is lost. */
  cut(): number {
    const count = this.#sockets.size / 2
    for (const socket of this.#sockets) socket.resetAndDestroy()
    return count
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }
}
