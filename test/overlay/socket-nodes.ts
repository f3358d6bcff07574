import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { noise } from '@chainsafe/libp2p-noise'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import type { ComponentLogger, Connection, Libp2p, Upgrader } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import { createLog } from '../../src/log.ts'
import { createGater } from '../../src/overlay/gater.ts'
import { libp2pLog } from '../../src/overlay/libp2p-log.ts'
import { type UpgradeOptions, upgradeSocket } from '../../src/overlay/socket-connection.ts'
import { boundedYamux } from '../../src/overlay/yamux.ts'
import { deadline } from './nodes.ts'

interface Inside {
  upgrader: Upgrader
  logger: ComponentLogger
}

/** libp2p as the overlay sets it up, without anything that dials or listens unless told to: sockets come from the test. */
export class SocketNode implements AsyncDisposable {
  readonly libp2p: Libp2p
  readonly peerId: string
  readonly #inside: Inside

  private constructor(libp2p: Libp2p, inside: Inside) {
    this.libp2p = libp2p
    this.peerId = libp2p.peerId.toString()
    this.#inside = inside
  }

  static async start({
    admits = () => true,
    listen = [],
  }: {
    admits?: (peerId: string) => boolean
    listen?: string[]
  } = {}): Promise<SocketNode> {
    const log = createLog('silent')
    let inside: Inside | undefined
    const libp2p = await createLibp2p({
      privateKey: await generateKeyPairFromSeed('Ed25519', randomBytes(32)),
      addresses: { listen },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [boundedYamux()],
      connectionGater: createGater({ admits, connectionsOf: () => 0, log }),
      connectionMonitor: { enabled: false },
      logger: libp2pLog(log),
      services: {
        inside: (components: Inside) => {
          inside = components
          return {}
        },
      },
    })
    return new SocketNode(libp2p, inside as Inside)
  }

  async upgrade(
    socket: Socket,
    options: Omit<UpgradeOptions, 'signal'> & { signal?: AbortSignal },
  ): Promise<Connection> {
    return await upgradeSocket(this.#inside, socket, { signal: deadline(), ...options })
  }

  /** Serves the protocol by sending back what comes, as the far end gets it: message by message. */
  async echo(protocol: string): Promise<void> {
    await this.libp2p.handle(protocol, (stream) => {
      stream.addEventListener('message', ({ data }) => void stream.send(data))
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.libp2p.stop()
  }
}

/** Two ends of one TCP connection. */
export async function socketPair(): Promise<[Socket, Socket]> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const accepted = once(server, 'connection', { signal: deadline() })
  const near = connect(port, '127.0.0.1')
  const [far] = (await accepted) as [Socket]
  if (near.connecting) await once(near, 'connect', { signal: deadline() })
  server.close()
  return [near, far]
}
