import type { Stream, StreamMuxer } from '@libp2p/interface'

/** For `newStream`. */
export interface EarlyData {
  /**
   * What is said before the peer has agreed to the protocol. It goes out with the question, which saves a round trip:
   * multistream-select leaves what follows a protocol's name to the protocol, and what follows one that is unknown unread.
   */
  early?: Uint8Array
}

/** Lets the muxer's streams say something early. */
export function sayEarly(muxer: StreamMuxer): StreamMuxer {
  const createStream = muxer.createStream.bind(muxer)
  muxer.createStream = async (options: Parameters<typeof createStream>[0] & EarlyData) => {
    const stream = await createStream(options)
    if (options?.early !== undefined) sendWithFirst(stream, options.early)
    return stream
  }
  return muxer
}

/** The first thing that libp2p sends on a stream is the question for its protocol. */
function sendWithFirst(stream: Stream, early: Uint8Array): void {
  const send = stream.send.bind(stream)
  stream.send = (data) => {
    stream.send = send
    send(data)
    return send(early)
  }
}
