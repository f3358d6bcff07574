import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

interface Piece {
  readonly dueMs: number
  readonly bytes: Buffer
}

/** A TCP proxy on the loopback address that gives on each byte so much later, in either direction, as a long path does. */
export class DelayProxy implements AsyncDisposable {
  readonly port: number
  readonly #close: () => Promise<void>
  /** One way, for what comes from now on. */
  delayMs: number

  private constructor(port: number, delayMs: number, close: () => Promise<void>) {
    this.port = port
    this.delayMs = delayMs
    this.#close = close
  }

  static async to(target: number, delayMs: number): Promise<DelayProxy> {
    const sockets = new Set<Socket>()
    const server = createServer({ noDelay: true }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const proxy = new DelayProxy((server.address() as AddressInfo).port, delayMs, async () => {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, 'close')
    })
    server.on('connection', (near) => {
      const far = connect({ port: target, host: '127.0.0.1', noDelay: true })
      for (const socket of [near, far]) {
        sockets.add(socket)
        socket.on('error', () => {}).on('close', () => sockets.delete(socket))
      }
      proxy.#carry(near, far)
      proxy.#carry(far, near)
    })
    return proxy
  }

  #carry(from: Socket, to: Socket): void {
    const pieces: Piece[] = []
    let timer: NodeJS.Timeout | undefined
    const deliver = () => {
      timer = undefined
      if (to.destroyed) return
      for (let next = pieces[0]; next && next.dueMs <= performance.now(); next = pieces[0]) {
        to.write(next.bytes)
        pieces.shift()
      }
      const [next] = pieces
      if (next) timer = setTimeout(deliver, Math.max(1, next.dueMs - performance.now()))
    }
    from.on('data', (bytes: Buffer) => {
      pieces.push({ dueMs: performance.now() + this.delayMs, bytes })
      if (timer === undefined) deliver()
    })
    from.on('close', () => {
      clearTimeout(timer)
      to.destroy()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }
}
