import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = portOf(server)
  server.close()
  await once(server, 'close')
  return port
}

function portOf(server: Server): number {
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  return address.port
}

export const addressOf = (server: Server) => `/ip4/127.0.0.1/tcp/${portOf(server)}`

/** Accepts connections and says nothing. */
export class SilentServer implements AsyncDisposable {
  readonly sockets: Socket[] = []
  readonly address: string
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
    this.address = addressOf(server)
    server.on('connection', (socket) => {
      socket.on('error', () => {}).resume()
      this.sockets.push(socket)
    })
  }

  static async start(): Promise<SilentServer> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new SilentServer(server)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

/** Passes connections on to a node, until what goes over them stops to arrive. */
export class Network implements AsyncDisposable {
  readonly address: string
  readonly #server: Server
  readonly #sockets: Socket[] = []

  private constructor(server: Server, port: number) {
    this.#server = server
    this.address = addressOf(server)
    server.on('connection', (near) => {
      const far = connect(port, '127.0.0.1')
      for (const socket of [near, far]) socket.on('error', () => {})
      near.pipe(far).pipe(near)
      this.#sockets.push(near, far)
    })
  }

  static async start(to: string): Promise<Network> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Network(server, Number(/\/tcp\/([0-9]+)/.exec(to)?.[1]))
  }

  /** Connections there are now carry nothing any more, without being closed. New ones do. */
  freeze(): void {
    for (const socket of this.#sockets) socket.unpipe().pause()
  }

  /** Connections there are now end, as when a process does. */
  end(): void {
    for (const socket of this.#sockets) socket.unpipe().end()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
