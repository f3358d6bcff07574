/**
 * `/farport/ports/1`: what a peer may use here.
 *
 *   client → agent   message { version: 1 } for all ports, or { version: 1, port } for one
 *   agent → client   message { ok: true, ports: [ Listing, ... ] }, or a refusal as in hello.ts; then the end of the stream
 *
 * Only ports the asking peer has a right to are named: to everyone else they do not exist.
 */
import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import { encodeMessage, parse, readMessage, writeMessage } from '../wire/message.ts'
import { descriptionSchema, portNameSchema, refusalOf, refusalSchema } from './hello.ts'

export const PORTS_PROTOCOL = '/farport/ports/1'

const MAX_LISTING = 0xffff

const questionSchema = v.object({ version: v.literal(1), port: v.exactOptional(portNameSchema) })

const listingSchema = v.object({
  name: portNameSchema,
  state: v.picklist(['free', 'held', 'absent']),
  /** What the asking peer may do with it. */
  may: v.pipe(v.array(v.pipe(v.string(), v.maxLength(16))), v.maxLength(16)),
  description: descriptionSchema,
  /** Who holds it: whether the asking peer does, and under which name the agent knows the holder. */
  holder: v.exactOptional(
    v.object({ you: v.boolean(), name: v.exactOptional(v.pipe(v.string(), v.maxLength(64))) }),
  ),
  /** How many watch it. */
  watchers: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
})

const answerSchema = v.variant('ok', [
  v.object({ ok: v.literal(true), ports: v.array(listingSchema) }),
  refusalSchema,
])

export type Listing = v.InferOutput<typeof listingSchema>

/** The question for all ports, or about one, as it is on the wire. */
export function portsQuestion(port: string | undefined): Buffer {
  return encodeMessage({ version: 1, ...(port === undefined ? {} : { port }) })
}

/** Reads the answer. @throws FarportError the agent's refusal, or ERR_PROTOCOL */
export async function readPorts(stream: Duplex, signal: AbortSignal): Promise<Listing[]> {
  const answer = parse(answerSchema, await readMessage(stream, signal, MAX_LISTING), 'list of ports')
  if (!answer.ok) throw refusalOf(answer)
  return answer.ports
}

/** Reads the question: the one port it is about, or undefined for all. */
export async function readPortsQuestion(stream: Duplex, signal: AbortSignal): Promise<string | undefined> {
  return parse(questionSchema, await readMessage(stream, signal), 'question').port
}

export function answerPorts(stream: Duplex, ports: Listing[]): void {
  writeMessage(stream, { ok: true, ports })
  stream.end()
}
