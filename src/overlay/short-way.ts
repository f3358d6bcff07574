import { type MessageStream, StreamMessageEvent } from '@libp2p/interface'

/** Sends all of the bytes, and answers whether there is room for more; undefined when that is not possible now. */
type SendWhole = (bytes: Uint8Array) => boolean | undefined

/** What AbstractMessageStream of @libp2p/utils 7 has besides, for those who extend it. */
interface Inside extends MessageStream {
  readonly readStatus: string
  readonly writeStatus: string
  readonly remoteWriteStatus: string
  sendingData: boolean
  onData(data: Bytes): void
  dispatchReadBuffer(): void
  processSendQueue(): boolean
  safeDispatchEvent(type: 'idle'): boolean
}

/** A Uint8Array or libp2p's list of them. */
type Bytes = StreamMessageEvent['data']

/**
 * Lets what comes while nothing waits pass through a libp2p stream as it is. By itself a stream puts each piece into a
 * list, takes the list apart again and tells who may be listening that it is empty, once for each of the three streams
 * (TCP's, Noise's, yamux's) that a keystroke passes at each end: that was half of its way. Where something waits, or is
 * not open any more, everything is as it was.
 */
export function giveShortWay(stream: MessageStream, sendWhole: SendWhole): void {
  const inside = stream as Inside
  const send = inside.send.bind(inside)
  const onData = inside.onData.bind(inside)
  inside.send = (data) => {
    if (!nothingWaits(inside) || data.byteLength === 0) return send(data)
    const canSendMore = sendNow(inside, data, sendWhole)
    if (canSendMore === undefined) return send(data)
    if (!canSendMore) inside.writableNeedsDrain = true
    // Something may have been sent from within.
    if (inside.writeBufferLength > 0) return inside.processSendQueue()
    if (inside.listenerCount('idle') > 0) inside.safeDispatchEvent('idle')
    return canSendMore
  }
  inside.onData = (data) => {
    if (!isAwaited(inside) || data.byteLength === 0) {
      onData(data)
      return
    }
    inside.dispatchEvent(new StreamMessageEvent(data))
    // Which finds that this was the last.
    if (inside.remoteWriteStatus === 'closed') inside.dispatchReadBuffer()
  }
}

function nothingWaits(stream: Inside): boolean {
  return (
    stream.writeStatus === 'writable' &&
    stream.writeBufferLength === 0 &&
    !stream.writableNeedsDrain &&
    !stream.sendingData
  )
}

function isAwaited(stream: Inside): boolean {
  return (
    stream.readStatus === 'readable' && stream.readBufferLength === 0 && stream.listenerCount('message') > 0
  )
}

function sendNow(stream: Inside, data: Bytes, sendWhole: SendWhole): boolean | undefined {
  stream.sendingData = true
  try {
    return sendWhole(data instanceof Uint8Array ? data : data.subarray())
  } catch (error) {
    stream.abort(error as Error)
    throw error
  } finally {
    stream.sendingData = false
  }
}
