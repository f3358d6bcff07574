import type { Readable, Writable } from 'node:stream'

/**
 * Carries bytes one way with backpressure until `from` ends or either side closes; resolves then. Neither stream is closed:
 * both belong to somebody else, which is why this is not `pipeline`. What comes while it is not `wanted` is thrown away.
 */
export function forward(
  from: Readable,
  to: Writable,
  { wanted = () => true }: { wanted?: () => boolean } = {},
): Promise<void> {
  return new Promise((resolve) => {
    const onData = (chunk: Uint8Array) => {
      if (wanted() && !to.write(chunk)) from.pause()
    }
    const onDrain = () => from.resume()
    const stop = () => {
      from.off('data', onData).off('end', stop).off('close', stop)
      to.off('drain', onDrain).off('close', stop)
      from.pause()
      resolve()
    }
    from.on('data', onData).on('end', stop).on('close', stop)
    to.on('drain', onDrain).on('close', stop)
    if (from.destroyed || from.readableEnded || to.destroyed) stop()
  })
}
