import { yamux } from '@chainsafe/libp2p-yamux'
import type { MessageStream, StreamMuxerFactory } from '@libp2p/interface'
import { sayEarly } from './early-data.ts'
import { FrameGuard, MAX_DATA_BYTES } from './frame-guard.ts'
import { leanYamux } from './lean-yamux.ts'

/** What all protocols together may have open on one connection, per direction. */
const MAX_STREAMS = 1024
const PING_INTERVAL_MS = 5_000
/**
 * A connection on which nothing arrives for so long, although we ping, is dead. Channels notice a dead path earlier; an
 * agent's connection to its relay, on which nothing may be said for days, has only this. libp2p's connection monitor would
 * judge the answer time of single pings instead, and so cut a live connection that is merely busy.
 */
const SILENCE_MS = 12_000
const TICK_MS = 2_000

/** yamux with bounds: on what a peer may announce, on memory per stream, and on how long it may be silent. */
export function boundedYamux(): () => StreamMuxerFactory {
  const factory = yamux({
    enableKeepAlive: true,
    keepAliveInterval: PING_INTERVAL_MS,
    maxInboundStreams: MAX_STREAMS,
    maxOutboundStreams: MAX_STREAMS,
    // Streams can arrive in the same packet as the end of the handshake, before the connection is set up here.
    maxEarlyStreams: MAX_STREAMS,
    streamOptions: {
      initialStreamWindowSize: MAX_DATA_BYTES,
      // A window that never grows: one stream can't put megabytes in front of another.
      maxStreamWindowSize: MAX_DATA_BYTES,
      maxReadBufferLength: 2 * MAX_DATA_BYTES,
      maxWriteBufferLength: MAX_DATA_BYTES,
    },
  })()
  return () => ({
    protocol: factory.protocol,
    createStreamMuxer(connection) {
      // Before the muxer, so that the guard's listener is called before the muxer's.
      watch(connection)
      return sayEarly(leanYamux(factory.createStreamMuxer(connection)))
    },
  })
}

function watch(connection: MessageStream): void {
  const guard = new FrameGuard()
  let silentMs = 0
  connection.addEventListener('message', (event) => {
    silentMs = 0
    const nowMs = performance.now()
    try {
      const chunks = event.data instanceof Uint8Array ? [event.data] : event.data
      for (const bytes of chunks) guard.push(bytes, nowMs)
      // The muxer takes no more streams then, yet leaves the connection open and looking usable.
      if (guard.goneAway) queueMicrotask(() => connection.abort(new Error('the peer closed the connection')))
    } catch (error) {
      event.stopImmediatePropagation()
      connection.abort(error as Error)
    }
  })
  // Counted in ticks, so that the time a suspended machine slept through does not count.
  const timer = setInterval(() => {
    silentMs += TICK_MS
    if (silentMs > SILENCE_MS) connection.abort(new Error('the peer has gone silent'))
  }, TICK_MS)
  timer.unref()
  connection.addEventListener('close', () => clearInterval(timer), { once: true })
}
