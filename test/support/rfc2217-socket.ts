import { EventEmitter, once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { Rfc2217Client } from '../../src/rfc2217/client.ts'

const OPEN_DEADLINE_MS = 10_000
const AGAIN_MS = 20

/** A program's connection to an RFC 2217 server, any server. Emits `data` with the device's bytes. */
export class Rfc2217Socket extends EventEmitter<{ data: [bytes: Uint8Array] }> implements Disposable {
  readonly #socket: Socket
  readonly #client = new Rfc2217Client()

  private constructor(socket: Socket) {
    super()
    this.#socket = socket
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      for (const event of this.#client.push(chunk)) {
        if (event.type === 'send') socket.write(event.bytes)
        else if (event.type === 'data') this.emit('data', event.bytes)
        else if (event.type === 'active') socket.emit('active')
      }
    })
  }

  /** Resolves once the server speaks RFC 2217. One that is still busy with the program before hangs up, and is asked again. */
  static async open(at: string): Promise<Rfc2217Socket> {
    const [host = '', port] = at.split(':')
    const deadline = AbortSignal.timeout(OPEN_DEADLINE_MS)
    for (;;) {
      const socket = connect(Number(port), host)
      const it = new Rfc2217Socket(socket)
      const active = once(socket, 'active', { signal: deadline })
      const closed = once(socket, 'close')
      socket.once('connect', () => socket.write(it.#client.start()))
      const first = await Promise.race([active.then(() => 'active' as const), closed])
      if (first === 'active') return it
      active.catch(() => {})
      await delay(AGAIN_MS)
    }
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(this.#client.data(bytes))
  }

  /** Leaves what the server sends where it is. */
  stopReading(): void {
    this.#socket.pause()
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }
}
