import type { Connection } from '@libp2p/interface'

/** Anything would do: also that a peer does not speak it is an answer. */
const QUESTION = '/ipfs/ping/1.0.0'

/** Whether there is still somebody at the other end of a connection that says it is open. */
export async function isAlive(connection: Connection, timeoutMs: number): Promise<boolean> {
  const signal = AbortSignal.timeout(timeoutMs)
  try {
    const stream = await connection.newStream(QUESTION, { signal, runOnLimitedConnection: true })
    stream.abort(new Error('that was all'))
    return true
  } catch {
    return !signal.aborted && connection.status === 'open'
  }
}
