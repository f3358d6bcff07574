/**
 * Messages on a stream, for what is said seldom: u16 length (big-endian) | UTF-8 JSON.
 */
import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import { FarportError } from '../errors.ts'
import { printable } from '../printable.ts'

/** Longest message either side reads unless it says otherwise: enough for any hello. */
const MAX_MESSAGE = 4096
/** What the length can say. */
export const LONGEST_MESSAGE = 0xffff

export function writeMessage(stream: Duplex, message: object): void {
  stream.write(encodeMessage(message))
}

/** A message as it is on the wire. */
export function encodeMessage(message: object): Buffer {
  const body = Buffer.from(JSON.stringify(message))
  if (body.length > LONGEST_MESSAGE) throw new RangeError(`a message of ${body.length} bytes`)
  const frame = Buffer.allocUnsafe(2 + body.length)
  frame.writeUInt16BE(body.length)
  body.copy(frame, 2)
  return frame
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

/**
 * Listens without a break until all is there: each new listener is told again of bytes that are too few, and the process
 * would go round and round on them, without a turn for the network to bring the rest.
 * @throws FarportError ERR_PROTOCOL when the stream ends before `length` bytes came
 */
export function readExactly(stream: Duplex, length: number, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      stream.off('readable', onEvent).off('end', onEvent).off('close', onEvent).off('error', fail)
      signal.removeEventListener('abort', onAbort)
      act()
    }
    const fail = (error: unknown) => settle(() => reject(error))
    const onAbort = () => fail(signal.reason)
    const onEvent = () => {
      // read(n) answers null until n bytes are there, but hands out a shorter rest once the stream has ended.
      const bytes = length === 0 ? Buffer.alloc(0) : (stream.read(length) as Buffer | null)
      if (bytes !== null && bytes.length === length) settle(() => resolve(bytes))
      else if (bytes !== null || stream.readableEnded || stream.destroyed)
        fail(new FarportError('ERR_PROTOCOL', 'the peer closed the stream in the middle of a message'))
    }
    if (signal.aborted) {
      reject(signal.reason)
      return
    }
    stream.on('readable', onEvent).on('end', onEvent).on('close', onEvent).on('error', fail)
    signal.addEventListener('abort', onAbort)
    onEvent()
  })
}
