import { setTimeout as delay } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import {
  errorCodeOf,
  formatLine,
  MAX_ANSWER_BYTES,
  MAX_REQUEST_BYTES,
  parseAnswer,
  readLines,
} from './control-protocol.ts'
import { connectSocket } from './control-socket.ts'

/** How often a daemon that may be starting is looked for. */
const LOOK_MS = 50

export interface CallOptions {
  /** Hangs up, which also aborts the method; the call rejects with the signal's reason. */
  signal: AbortSignal
  /** What the daemon tells before the result. If this throws, the call is over and rejects with that. */
  onEvent?: (event: unknown) => void
  /** How long to wait for a farport that has only just been started, as in `farport share … & farport invite`. */
  patienceMs?: number
}

/**
 * Asks the farport that runs for this home. Resolves with the result, which is null when the method has nothing to say,
 * or with undefined when no farport runs there.
 * @throws FarportError the daemon's refusal with its code; ERR_PROTOCOL when it hung up before it answered; ERR_HOME,
 * ERR_IN_USE when it can't be asked
 */
export async function callDaemon(
  home: string,
  method: string,
  params: unknown,
  { signal, onEvent, patienceMs = 0 }: CallOptions,
): Promise<unknown> {
  signal.throwIfAborted()
  const request = formatLine({ id: 1, method, params }, MAX_REQUEST_BYTES)
  const socket = await connectPatiently(home, patienceMs, signal)
  if (socket === undefined) return undefined
  try {
    socket.write(request)
    for await (const line of readLines(hungUpEnds(socket), MAX_ANSWER_BYTES)) {
      const answer = parseAnswer(line)
      if ('error' in answer) throw new FarportError(errorCodeOf(answer.error.code), answer.error.message)
      if (answer.id !== 1)
        throw new FarportError('ERR_PROTOCOL', 'the running farport answered what nobody asked')
      if ('result' in answer) return answer.result
      onEvent?.(answer.event)
    }
  } finally {
    socket.destroy()
  }
  signal.throwIfAborted()
  throw new FarportError('ERR_PROTOCOL', 'the running farport ended before it answered')
}

async function connectPatiently(home: string, patienceMs: number, signal: AbortSignal) {
  const until = performance.now() + patienceMs
  for (;;) {
    const socket = await connectSocket(home, signal)
    if (socket !== undefined || performance.now() >= until) return socket
    await delay(LOOK_MS, undefined, { signal })
  }
}

/** A connection's bytes. That it broke says no more than that it ended: there was no answer. */
async function* hungUpEnds(socket: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* socket
  } catch {}
}
