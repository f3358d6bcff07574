import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import type { LocalEndpoint, OpenPort } from './endpoint.ts'
import { forward } from './forward.ts'

export interface StdioOptions {
  input: Readable
  output: Writable
}

/**
 * Joins a pair of pipes to a port: what comes in goes to the device, what the device sends goes out. The end of the input
 * is not the end (a device may answer for hours): it is over when the output's reader goes away or the port fails.
 */
export function joinStdio({ input, output }: StdioOptions, open: OpenPort): LocalEndpoint {
  const stop = new AbortController()
  const ended = join()
  // Whoever waits for `ended` is told; a disposal that comes first must not leave the rejection unheard.
  ended.catch(() => {})

  async function join(): Promise<void> {
    await using port = await open(stop.signal)
    const onAbort = () => port.destroy()
    stop.signal.addEventListener('abort', onAbort)
    // EPIPE is how a reader says goodbye (`farport ... | head`), not a failure.
    output.on('error', () => output.destroy())
    const closed = once(port, 'close')
    void forward(input, port)
    await Promise.race([forward(port, output), closed])
    stop.signal.removeEventListener('abort', onAbort)
    if (port.errored && !stop.signal.aborted) throw port.errored
  }

  return {
    address: '-',
    ended,
    async [Symbol.asyncDispose]() {
      stop.abort()
      await ended.catch(() => {})
    },
  }
}
