/**
 * `/farport/path/1`: two peers that are connected somehow, mostly through a relay, look for a direct way. One stream is one
 * round. A message is
 *
 *   u16 length (big-endian) | so many bytes of UTF-8 JSON: an object with a `type`
 *
 * I is who opened the stream, A who answers:
 *
 *   I → A   hello   {addresses}          multiaddrs at which I can be dialed: `/ip4/192.0.2.7/tcp/4001`
 *   A → I   hello   {addresses}          at once, since I measures the round trip by it. Both dial from here on
 *   I → A   offer   {mapped, varies}     one TCP port of I as the internet sees it, {address, port}; whether each
 *                                        destination sees another one
 *   A → I   answer  {mapped, varies}     the same of A, or
 *   A → I   decline {reason}             there is nothing to try; a sentence
 *   I → A   go                           A connects on receipt, I half a round trip after sending it
 *   A → I   changed                      A can be reached elsewhere now: worth a new round
 *
 * What happens after `go` follows from the two `varies`, see `rendezvous` in punch.ts. The stream stays open until I wants
 * no more of it. Unknown keys are ignored, and so are addresses of a kind that is not known.
 */
import * as v from 'valibot'
import { FarportError } from '../errors.ts'

/** How many addresses of the other side a peer has to try, at most. */
export const MAX_ADDRESSES = 8
/** The longest: a DNS name with its port. */
const MAX_ADDRESS_LENGTH = 280
export const MAX_REASON_LENGTH = 200
const HEADER_BYTES = 2
const NOTHING = Buffer.alloc(0)
export const MAX_MESSAGE_BYTES = 4096

const endpoint = v.object({
  // Punching is for IPv4: with IPv6 there is mostly no NAT.
  address: v.pipe(v.string(), v.ipv4()),
  port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
})
const port = { mapped: endpoint, varies: v.boolean() }
const message = v.variant('type', [
  v.object({
    type: v.literal('hello'),
    addresses: v.pipe(
      v.array(v.pipe(v.string(), v.maxLength(MAX_ADDRESS_LENGTH))),
      v.maxLength(MAX_ADDRESSES),
    ),
  }),
  v.object({ type: v.literal('offer'), ...port }),
  v.object({ type: v.literal('answer'), ...port }),
  v.object({ type: v.literal('decline'), reason: v.pipe(v.string(), v.maxLength(MAX_REASON_LENGTH)) }),
  v.object({ type: v.literal('go') }),
  v.object({ type: v.literal('changed') }),
])

export type PathMessage = v.InferOutput<typeof message>
export type PathMessageType = PathMessage['type']
export type PathMessageOf<T extends PathMessageType> = Extract<PathMessage, { type: T }>

export function encodePathMessage(sent: PathMessage): Uint8Array {
  const body = Buffer.from(JSON.stringify(sent))
  const frame = Buffer.allocUnsafe(HEADER_BYTES + body.length)
  frame.writeUInt16BE(body.length)
  body.copy(frame, HEADER_BYTES)
  return frame
}

/** Takes the bytes of a stream, cut anywhere; never keeps more than one message. */
export class PathDecoder {
  #kept = NOTHING;

  /** @throws FarportError ERR_PROTOCOL for what is none of the messages; the decoder is spent then */
  *push(bytes: Uint8Array): Generator<PathMessage> {
    let rest = bytes
    while (rest.length > 0) {
      const missing = this.#missing()
      this.#kept = Buffer.concat([this.#kept, rest.subarray(0, missing)])
      rest = rest.subarray(missing)
      if (this.#kept.length < HEADER_BYTES || this.#missing() > 0) continue
      const body = this.#kept.subarray(HEADER_BYTES)
      this.#kept = NOTHING
      yield parse(body)
    }
  }

  /** How many bytes the header, or after it the message, still lacks. */
  #missing(): number {
    if (this.#kept.length < HEADER_BYTES) return HEADER_BYTES - this.#kept.length
    const length = this.#kept.readUInt16BE()
    if (length === 0 || length > MAX_MESSAGE_BYTES)
      throw new FarportError('ERR_PROTOCOL', `the peer announced a path message of ${length} bytes`)
    return HEADER_BYTES + length - this.#kept.length
  }
}

function parse(body: Buffer): PathMessage {
  let value: unknown
  try {
    value = JSON.parse(body.toString('utf8'))
  } catch (cause) {
    throw new FarportError('ERR_PROTOCOL', 'the peer sent a path message that is not JSON', { cause })
  }
  const result = v.safeParse(message, value)
  if (result.success) return result.output
  throw new FarportError('ERR_PROTOCOL', 'the peer sent a malformed path message')
}
