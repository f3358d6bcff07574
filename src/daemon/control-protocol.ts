/**
 * What a running farport and the other commands of its user say to each other on the home's control socket: JSON lines,
 * each one object in UTF-8 and a LF (0x0a).
 *
 *   client → daemon   {"id": ID, "method": NAME, "params": ANY}          params may be left out
 *   daemon → client   {"id": ID, "event": ANY}                           any number, while the request is under way
 *                     {"id": ID, "result": ANY}                          once, the last of its request; or
 *                     {"id": ID, "error": {"code": CODE, "message": SENTENCE}}
 *
 * ID is an integer from 0 to 2^53-1 that the client chooses; several requests may be under way, each with its own. CODE is
 * an ErrorCode. An error with the id null is about the connection, which then ends: a line that is no request, or one
 * client too many. Unknown keys are ignored, unknown methods refused. There is no cancel: a client that no longer wants an
 * answer hangs up, and closing one direction is hanging up.
 *
 * Lengths without the LF: a request at most 65,536 bytes, anything from the daemon at most 1,048,576.
 */
import { type ErrorCode, FarportError, isErrorCode } from '../errors.ts'

export const MAX_REQUEST_BYTES = 64 * 1024
/** Larger, since the daemon is whom we trust, and the ports of many peers must fit. */
export const MAX_ANSWER_BYTES = 1024 * 1024

export interface Request {
  id: number
  method: string
  /** Undefined when left out. */
  params: unknown
}

export type Answer =
  | { id: number; event: unknown }
  | { id: number; result: unknown }
  | { id: number | null; error: { code: string; message: string } }

/** Cuts bytes into lines, wherever the chunks were cut. Spent after an error. */
export class LineSplitter {
  readonly #maxBytes: number
  /** One buffer that grows, and no list of chunks: of one-byte chunks each would cost two hundred bytes. */
  #line = Buffer.alloc(0)
  #length = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** @throws FarportError ERR_PROTOCOL for a line that is too long, also before its end has come, or is not UTF-8 */
  *push(chunk: Uint8Array): Generator<string> {
    let rest = chunk
    for (let end = rest.indexOf(LF); end !== -1; end = rest.indexOf(LF)) {
      this.#keep(rest.subarray(0, end))
      const line = decode(this.#line.subarray(0, this.#length))
      this.#length = 0
      rest = rest.subarray(end + 1)
      yield line
    }
    this.#keep(rest)
  }

  #keep(part: Uint8Array): void {
    const length = this.#length + part.length
    if (length > this.#maxBytes)
      throw new FarportError('ERR_PROTOCOL', `a control message has more than ${this.#maxBytes} bytes`)
    if (length > this.#line.length) {
      const larger = Buffer.alloc(Math.min(this.#maxBytes, Math.max(length, 2 * this.#line.length)))
      larger.set(this.#line.subarray(0, this.#length))
      this.#line = larger
    }
    this.#line.set(part, this.#length)
    this.#length = length
  }
}

/** The lines of a stream. One that has no end is no line. @throws FarportError ERR_PROTOCOL as LineSplitter does */
export async function* readLines(
  stream: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<string> {
  const splitter = new LineSplitter(maxBytes)
  for await (const chunk of stream) yield* splitter.push(chunk)
}

/** @throws FarportError ERR_PROTOCOL when it would be longer than `maxBytes`, TypeError when it can't be JSON */
export function formatLine(message: Request | Answer, maxBytes: number): Buffer {
  const line = Buffer.from(`${JSON.stringify(message)}\n`)
  if (line.length - 1 > maxBytes)
    throw new FarportError(
      'ERR_PROTOCOL',
      `a control message of ${line.length - 1} bytes is too long: at most ${maxBytes} are sent`,
    )
  return line
}

/** @throws FarportError ERR_PROTOCOL */
export function parseRequest(line: string): Request {
  const { id, method, params } = parseObject(line)
  if (!isId(id)) throw malformed('id')
  if (typeof method !== 'string') throw malformed('method')
  return { id, method, params }
}

/** @throws FarportError ERR_PROTOCOL */
export function parseAnswer(line: string): Answer {
  const answer = parseObject(line)
  const { id, event, result, error } = answer
  if (isObject(error)) {
    const { code, message } = error
    if (id !== null && !isId(id)) throw malformed('id')
    if (typeof code !== 'string' || typeof message !== 'string') throw malformed('error')
    return { id, error: { code, message } }
  }
  if (!isId(id)) throw malformed('id')
  if (Object.hasOwn(answer, 'event')) return { id, event }
  if (Object.hasOwn(answer, 'result')) return { id, result }
  throw malformed('result')
}

/** An error's code as ours; a code that only another version knows becomes ERR_INTERNAL. */
export function errorCodeOf(code: string): ErrorCode {
  return isErrorCode(code) ? code : 'ERR_INTERNAL'
}

const LF = 0x0a

function decode(line: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(line)
  } catch (cause) {
    throw new FarportError('ERR_PROTOCOL', 'a control message is not UTF-8', { cause })
  }
}

function parseObject(line: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    // JSON.parse quotes what it could not read, and that may be a secret, so it does not become the cause.
    throw new FarportError('ERR_PROTOCOL', 'a control message is not JSON')
  }
  if (!isObject(value)) throw new FarportError('ERR_PROTOCOL', 'a control message is not a JSON object')
  return value
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isId(id: unknown): id is number {
  return Number.isSafeInteger(id) && (id as number) >= 0
}

function malformed(key: string): FarportError {
  return new FarportError('ERR_PROTOCOL', `a control message has no usable ${key}`)
}
