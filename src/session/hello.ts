/**
 * The opening of `/farport/serial/1`: one message each way, then the stream belongs to the channel.
 *
 *   client → agent   u16 length (big-endian, at most 4096) | UTF-8 JSON: Hello
 *   agent → client   the same framing: Welcome (ok: true) or Refusal (ok: false)
 *
 * JSON, because it is read once per carrier, never per byte, and can grow without breaking older peers: unknown keys are
 * ignored, unknown versions refused.
 */
import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import { type ErrorCode, FarportError } from '../errors.ts'
import { printable } from '../printable.ts'
import type { InputLines, OutputLines, PortDescription } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'
import { parse, readMessage, writeMessage } from '../wire/message.ts'

export const SERIAL_PROTOCOL = '/farport/serial/1'

const VERSION = 1
/** How long either side waits for the other's message. */
export const HELLO_TIMEOUT_MS = 10_000

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const short = v.pipe(v.string(), v.maxLength(256))

export const portNameSchema = v.pipe(v.string(), v.minLength(1), v.maxLength(64))

const helloSchema = v.object({
  version: v.literal(VERSION),
  port: portNameSchema,
  /** `use` is to hold the port, which one does at a time; `watch` to get what the device sends, and no more. */
  mode: v.picklist(['use', 'watch']),
  /** Take the port from whoever holds it. */
  steal: v.exactOptional(v.boolean()),
  /** The most a watcher wants of what the device sent before, in bytes; by default all that the agent keeps. */
  replay: v.exactOptional(count),
  /** False: run no reset sequence of the port's; lines change as the client says, step by step. */
  reset: v.exactOptional(v.boolean()),
  /** Sixteen random bytes in hexadecimal: the channel's name for its whole life, known to the two ends only. */
  channel: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  /** True until the first answer came: then the agent may make the channel, else it must know it. */
  fresh: v.boolean(),
  /** Counts the hellos of one channel: over several paths an older one can come behind a newer one. */
  attempt: v.exactOptional(count),
  /** The carrier in use still works: the agent is to stay on it until the client is heard on this one. */
  moving: v.exactOptional(v.boolean()),
  /** Bytes of the agent's direction that the client has taken in order. */
  received: count,
  /** How long the channel is to outlive its last carrier, in milliseconds. */
  resumeMs: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(600_000)),
})

const settingsSchema = v.object({
  baudRate: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(0xffff_ffff)),
  dataBits: v.picklist([5, 6, 7, 8]),
  parity: v.picklist(['none', 'odd', 'even', 'mark', 'space']),
  stopBits: v.picklist([1, 1.5, 2]),
  outputFlow: v.picklist(['none', 'xonxoff', 'rtscts', 'dcd', 'dsr']),
  inputFlow: v.picklist(['none', 'xonxoff', 'rtscts', 'dtr']),
})

export const descriptionSchema = v.object({
  path: short,
  modemLines: v.boolean(),
  driver: v.exactOptional(short),
  usb: v.exactOptional(
    v.object({
      vendorId: short,
      productId: short,
      serialNumber: v.exactOptional(short),
      manufacturer: v.exactOptional(short),
      product: v.exactOptional(short),
    }),
  ),
})

const welcomeSchema = v.object({
  ok: v.literal(true),
  /** Bytes of the client's direction that the agent has taken in order. */
  received: count,
  description: descriptionSchema,
  settings: settingsSchema,
  outputs: v.object({ dtr: v.boolean(), rts: v.boolean() }),
  lines: v.object({ cts: v.boolean(), dsr: v.boolean(), ri: v.boolean(), dcd: v.boolean() }),
})

export const refusalSchema = v.object({
  ok: v.literal(false),
  code: short,
  message: v.pipe(v.string(), v.maxLength(1024)),
})

const answerSchema = v.variant('ok', [welcomeSchema, refusalSchema])

export type Hello = v.InferOutput<typeof helloSchema>
export interface Welcome {
  ok: true
  received: number
  description: PortDescription
  settings: Readonly<SerialSettings>
  outputs: Readonly<OutputLines>
  lines: Readonly<InputLines>
}

/** What a refusal may say. Anything else a peer sends counts as ERR_PROTOCOL. */
const REFUSALS: readonly ErrorCode[] = [
  'ERR_NOT_TRUSTED',
  'ERR_NOT_GRANTED',
  'ERR_PORT_BUSY',
  'ERR_NO_SUCH_PORT',
  'ERR_DEVICE_ABSENT',
  'ERR_CHANNEL_LOST',
  'ERR_PROTOCOL',
  'ERR_UNFIT',
  'ERR_INTERNAL',
]

/** Says hello on a fresh stream and returns the agent's welcome; throws its refusal as a FarportError. */
export async function sayHello(
  stream: Duplex,
  hello: Omit<Hello, 'version'>,
  signal: AbortSignal,
): Promise<Welcome> {
  writeMessage(stream, { version: VERSION, ...hello } satisfies Hello)
  const answer = parse(answerSchema, await readMessage(stream, signal), 'answer')
  if (answer.ok) return answer
  throw refusalOf(answer)
}

/** A peer's refusal as our own error: a known code, and a sentence that is safe on a terminal. */
export function refusalOf({ code, message }: { code: string; message: string }): FarportError {
  return new FarportError(REFUSALS.find((known) => known === code) ?? 'ERR_PROTOCOL', printable(message))
}

/** Reads a client's hello. @throws FarportError ERR_PROTOCOL */
export async function readHello(stream: Duplex, signal: AbortSignal): Promise<Hello> {
  return parse(helloSchema, await readMessage(stream, signal), 'hello')
}

export function welcome(stream: Duplex, answer: Omit<Welcome, 'ok'>): void {
  writeMessage(stream, { ok: true, ...answer })
}

export function refuse(stream: Duplex, error: FarportError): void {
  writeMessage(stream, { ok: false, code: error.code, message: error.message.slice(0, 1024) })
  stream.end()
}
