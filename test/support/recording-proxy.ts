import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** A TCP proxy on the loopback address that keeps every byte that crosses it, in either direction. */
export class RecordingProxy implements AsyncDisposable {
  readonly port: number
  readonly #close: () => Promise<void>
  /** By connection and direction, so that nothing is hidden by being cut in two. */
  readonly #recorded: Buffer[][] = []

  private constructor(port: number, close: () => Promise<void>) {
    this.port = port
    this.#close = close
  }

  static async to(target: number): Promise<RecordingProxy> {
    const sockets = new Set<Socket>()
    const server = createServer({ noDelay: true }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const proxy = new RecordingProxy((server.address() as AddressInfo).port, async () => {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, 'close')
    })
    server.on('connection', (near) => {
      const far = connect({ port: target, host: '127.0.0.1', noDelay: true })
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(from)
        const recorded: Buffer[] = []
        proxy.#recorded.push(recorded)
        from.on('data', (bytes: Buffer) => recorded.push(bytes))
        from.on('error', () => {}).on('close', () => to.destroy())
        from.pipe(to)
      }
    })
    return proxy
  }

  /** All of it, one direction of one connection after the other. */
  recorded(): Buffer {
    return Buffer.concat(this.#recorded.flat())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }
}
