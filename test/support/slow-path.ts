import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface SlowPathOptions {
  /** How long bytes are on their way, each direction. */
  delayMs: number
  /** They take up to so much longer, and keep their order. */
  jitterMs?: number
  /** They arrive in pieces of at most so many. */
  splitBytes?: number
}

/** A TCP proxy on the loopback address in whose place there could be a long way: bytes come late, unsteadily, cut up. */
export class SlowPath implements AsyncDisposable {
  readonly port: number
  /** For what comes from now on. */
  readonly options: SlowPathOptions
  readonly #stop: () => Promise<void>

  private constructor(port: number, options: SlowPathOptions, stop: () => Promise<void>) {
    this.port = port
    this.options = options
    this.#stop = stop
  }

  static async to(target: number, options: SlowPathOptions): Promise<SlowPath> {
    const sockets = new Set<Socket>()
    const server = createServer({ noDelay: true }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    server.on('connection', (near) => {
      const far = connect({ port: target, host: '127.0.0.1', noDelay: true })
      for (const socket of [near, far]) {
        sockets.add(socket)
        socket.on('error', () => {}).on('close', () => sockets.delete(socket))
      }
      carry(near, far, options)
      carry(far, near, options)
    })
    return new SlowPath((server.address() as AddressInfo).port, options, async () => {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, 'close')
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop()
  }
}

function carry(from: Socket, to: Socket, options: SlowPathOptions): void {
  const acts: (() => void)[] = []
  let lastMs = 0
  const later = (act: () => void) => {
    const { delayMs, jitterMs = 0 } = options
    lastMs = Math.max(lastMs, performance.now() + delayMs + Math.random() * jitterMs)
    // Timers of different lengths may change places; what they are for must not.
    acts.push(act)
    setTimeout(() => acts.shift()?.(), Math.max(0, lastMs - performance.now()))
  }
  from.on('data', (bytes: Buffer) => {
    const size = options.splitBytes ?? bytes.length
    for (let at = 0; at < bytes.length; at += size) {
      const piece = bytes.subarray(at, at + size)
      later(() => to.write(piece))
    }
  })
  from.on('close', () => later(() => to.destroy()))
}
