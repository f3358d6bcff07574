import { noise } from '@chainsafe/libp2p-noise'
import type { ConnectionEncrypter, MessageStream, SecuredConnection } from '@libp2p/interface'
import { ByteQueue } from './byte-queue.ts'
import { noiseCrypto } from './noise-crypto.ts'
import { giveShortWay } from './short-way.ts'

const LENGTH_BYTES = 2
const TAG_BYTES = 16
/** Noise, section 3: no message is longer than 65535 bytes. */
const MAX_PLAINTEXT_BYTES = 0xffff - TAG_BYTES

/** A Uint8Array or libp2p's list of them. */
interface Bytes {
  subarray(): Uint8Array
}

/** What the encrypted stream of @chainsafe/libp2p-noise 17 is made of. */
interface Inside extends MessageStream {
  readonly stream: MessageStream
  readonly handshake: {
    encrypt(plaintext: Uint8Array): Bytes
    /** @throws when it was not sealed by the peer, as its next message */
    decrypt(ciphertext: Uint8Array, into: Uint8Array): Bytes
  }
  decoder: { readonly buffer?: Bytes; decode(arrived: Bytes): Iterable<Uint8Array> }
  decrypt(message: Uint8Array): Bytes
}

/**
 * libp2p's Noise, with a shorter way for each message: sealed into one piece that is written at once, and taken from what
 * arrives without the exception which the package throws and catches behind the last message each time. The handshake and
 * what is on the wire are the package's own.
 */
export function leanNoise(): (components: Parameters<ReturnType<typeof noise>>[0]) => ConnectionEncrypter {
  const create = noise({ crypto: noiseCrypto() })
  return (components) => {
    const encrypter: ConnectionEncrypter = create(components)
    const secureInbound = encrypter.secureInbound.bind(encrypter)
    const secureOutbound = encrypter.secureOutbound.bind(encrypter)
    encrypter.secureInbound = async (connection, options) => lean(await secureInbound(connection, options))
    encrypter.secureOutbound = async (connection, options) => lean(await secureOutbound(connection, options))
    return encrypter
  }
}

function lean<Secured extends SecuredConnection>(secured: Secured): Secured {
  const inside = secured.connection as Inside
  const { stream, handshake } = inside
  const messages = new Messages()
  // What came while the handshake's last words were being worked on.
  const early = inside.decoder.buffer?.subarray()
  if (early !== undefined) messages.keep(early)
  inside.decoder = messages
  inside.decrypt = (message) => {
    if (message.length < TAG_BYTES) throw new Error('a message shorter than its tag')
    // In place: nobody else looks at what arrived.
    return handshake.decrypt(message, message.subarray(0, message.length - TAG_BYTES))
  }
  giveShortWay(inside, (plaintext) => {
    if (plaintext.length > MAX_PLAINTEXT_BYTES) return undefined
    const sealed = handshake.encrypt(plaintext).subarray()
    const message = Buffer.allocUnsafe(LENGTH_BYTES + sealed.length)
    message.writeUInt16BE(sealed.length)
    message.set(sealed, LENGTH_BYTES)
    return stream.send(message)
  })
  return secured
}

/** Each with its length before it: u16, big-endian. Keeps less than one. */
class Messages {
  readonly #queue = new ByteQueue()

  keep(arrived: Uint8Array): void {
    this.#queue.push(arrived)
  }

  *decode(arrived: Bytes): Generator<Uint8Array, void> {
    const queue = this.#queue
    queue.push(arrived.subarray())
    while (queue.length >= LENGTH_BYTES) {
      const [high = 0, low = 0] = queue.peek(LENGTH_BYTES)
      const length = (high << 8) | low
      if (queue.length < LENGTH_BYTES + length) return
      queue.take(LENGTH_BYTES)
      if (length > 0) yield queue.take(length)
    }
  }
}
