/**
 * Messages on a stream before it belongs to anything else: u16 length (big-endian) | UTF-8 JSON.
 */
import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import { FarportError } from '../errors.ts'
import { printable } from '../printable.ts'

/** Longest message either side reads unless it says otherwise: enough for any hello. */
const MAX_MESSAGE = 4096

export function writeMessage(stream: Duplex, message: object): void {
  const body = Buffer.from(JSON.stringify(message))
  const frame = Buffer.allocUnsafe(2 + body.length)
  frame.writeUInt16BE(body.length)
  body.copy(frame, 2)
  stream.write(frame)
}

/**
 * Reads one message and leaves every byte behind it in the stream for whoever comes next.
 * @throws FarportError ERR_PROTOCOL for a message that is too long, is not JSON, or never comes whole
 */
export async function readMessage(
  stream: Duplex,
  signal: AbortSignal,
  maxBytes = MAX_MESSAGE,
): Promise<unknown> {
  const header = await readExactly(stream, 2, signal)
  const length = header.readUInt16BE()
  if (length > maxBytes)
    throw new FarportError('ERR_PROTOCOL', `the peer announced a message of ${length} bytes`)
  const body = await readExactly(stream, length, signal)
  try {
    return JSON.parse(body.toString('utf8'))
  } catch (cause) {
    throw new FarportError('ERR_PROTOCOL', 'the peer sent a message that is not JSON', { cause })
  }
}

/** Validates what a peer sent. @throws FarportError ERR_PROTOCOL naming the first key that is wrong */
export function parse<S extends v.GenericSchema>(schema: S, value: unknown, what: string): v.InferOutput<S> {
  const result = v.safeParse(schema, value)
  if (result.success) return result.output
  const [issue] = result.issues
  const key = issue === undefined ? undefined : v.getDotPath(issue)
  throw new FarportError(
    'ERR_PROTOCOL',
    `the peer sent a malformed ${what}${key ? ` (${printable(key)})` : ''}`,
  )
}

async function readExactly(stream: Duplex, length: number, signal: AbortSignal): Promise<Buffer> {
  if (length === 0) return Buffer.alloc(0)
  for (;;) {
    // read(n) answers null until n bytes are there, but hands out a shorter rest once the stream has ended.
    const bytes = stream.read(length) as Buffer | null
    if (bytes !== null && bytes.length === length) return bytes
    if (bytes !== null || stream.readableEnded || stream.destroyed)
      throw new FarportError('ERR_PROTOCOL', 'the peer closed the stream in the middle of a message')
    await readable(stream, signal)
  }
}

/** Resolves when there may be more to read, also when that is the end. */
function readable(stream: Duplex, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: unknown) => {
      stream.off('readable', onEvent).off('end', onEvent).off('close', onEvent).off('error', settle)
      signal.removeEventListener('abort', onAbort)
      if (error === undefined) resolve()
      else reject(error)
    }
    const onEvent = () => settle()
    const onAbort = () => settle(signal.reason)
    if (signal.aborted) return reject(signal.reason)
    stream.on('readable', onEvent).on('end', onEvent).on('close', onEvent).on('error', settle)
    signal.addEventListener('abort', onAbort)
  })
}
