import { createSocket, type Socket } from 'node:dgram'
import { EventEmitter, once } from 'node:events'
import { BlockList } from 'node:net'
import type { NetworkInterfaceInfo } from 'node:os'
import type { Logger } from '../log.ts'

/** RFC 6762, section 3. */
const GROUP = '224.0.0.251'
const PORT = 5353
/**
 * Bound to the group, a socket hears nothing else. Bound to all addresses it would also take the unicast answers that the
 * system's own mDNS responder waits for; but only Linux is known to send with a proper source address then.
 */
const BIND_TO = process.platform === 'linux' ? GROUP : '0.0.0.0'
const MULTICAST_TTL = 255

/** An interface of this machine: its name, and its addresses, of which at least one is IPv4. */
export interface Network {
  readonly name: string
  readonly addresses: readonly NetworkInterfaceInfo[]
}

/** What somebody on the network, we ourselves included, sent to all. */
export interface LanPacket {
  readonly bytes: Uint8Array
  /** Whether it was sent on this machine. */
  readonly own: boolean
}

/**
 * Multicast DNS on one network. It has a socket of its own because a packet from a socket that is not tied to a network
 * takes the default route, or fails where there is none.
 */
export class LanLink extends EventEmitter<{ packet: [LanPacket] }> implements AsyncDisposable {
  readonly name: string
  /** IPv4 and IPv6, without a prefix length. */
  readonly addresses: readonly string[]
  readonly #socket: Socket
  readonly #log: Logger
  readonly #closed = new AbortController()

  private constructor({ name, addresses }: Network, socket: Socket, log: Logger) {
    super()
    this.name = name
    this.addresses = addresses.map(({ address }) => address)
    this.#socket = socket
    this.#log = log
    const neighbours = neighboursOf(addresses)
    // Linux hands each socket of the group what arrives on any network, and who is not on this one may be far away
    // (RFC 6762, section 11). Who asks from another port is no mDNS peer and waits for a unicast answer.
    socket.on('message', (bytes, from) => {
      if (from.port !== PORT || !neighbours.check(from.address, 'ipv4')) return
      this.emit('packet', { bytes, own: this.addresses.includes(from.address) })
    })
    socket.on('error', (err) => {
      log.debug({ err, interface: name }, 'mDNS ended on this network')
      this.#closed.abort()
    })
  }

  /** @throws the system's error when the network can't be used */
  static async open(network: Network, log: Logger): Promise<LanLink> {
    const address = network.addresses.find(({ family }) => family === 'IPv4')?.address
    if (address === undefined) throw new RangeError(`${network.name} has no IPv4 address`)
    const socket = createSocket({ type: 'udp4', reuseAddr: true })
    try {
      socket.bind(PORT, BIND_TO)
      await once(socket, 'listening')
      socket.addMembership(GROUP, address)
      socket.setMulticastInterface(address)
      socket.setMulticastTTL(MULTICAST_TTL)
      // So that the other programs of this machine hear us, too.
      socket.setMulticastLoopback(true)
    } catch (error) {
      socket.close()
      throw error
    }
    return new LanLink(network, socket, log)
  }

  /** Aborted when the link is closed, or the network is gone. */
  get signal(): AbortSignal {
    return this.#closed.signal
  }

  /** Resolves when the packet is on its way, or lost: multicast promises nothing anyway. */
  async send(bytes: Uint8Array): Promise<void> {
    if (this.signal.aborted) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#socket.send(bytes, PORT, GROUP, (err) => {
      if (err) this.#log.debug({ err, interface: this.name }, 'an mDNS packet was not sent')
      resolve()
    })
    await promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort()
    this.removeAllListeners('packet')
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#socket.close(resolve)
    await promise
  }
}

function neighboursOf(addresses: readonly NetworkInterfaceInfo[]): BlockList {
  const neighbours = new BlockList()
  for (const { address, cidr } of addresses) {
    const length = Number(cidr?.split('/')[1])
    if (length >= 0 && address.includes('.')) neighbours.addSubnet(address, length, 'ipv4')
  }
  return neighbours
}
