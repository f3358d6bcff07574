/**
 * `/farport/relay/1`: an agent tells its relay who may call it. One stream for as long as they are connected, in messages
 * of u16 length (big-endian) | UTF-8 JSON:
 *
 *   agent → relay   { version: 1 }
 *   relay → agent   { ok: true,
 *                     seen:  the agent's own address as the relay sees it, a multiaddr,
 *                     stun:  the relay's STUN ports, the same for UDP and TCP, or [] }
 *   agent → relay   { seq, vouch: [PeerID, …], unvouch: [PeerID, …], doors: [{ nameplate?, forMs }, …], more }, 1 … n times
 *   relay → agent   { ok: true, ack: seq }, after each that has more: false
 *   relay → agent   { ok: false, code, message } in the place of any answer; then the end of the stream
 *
 * What is said up to the first `more: false` replaces what the agent said on earlier streams; what comes later changes it.
 * `doors`, when it is there, are all doors: open invites, by their three digits, or without for those who know the agent
 * by its ticket. Times are spans, since clocks differ. A message is acknowledged when it is in force.
 */
import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import { type ErrorCode, FarportError } from '../errors.ts'
import { printable } from '../printable.ts'
import { peerIdProblem } from '../trust/peer-id.ts'
import { LONGEST_MESSAGE, parse, readMessage, writeMessage } from '../wire/message.ts'
import { type Door, MAX_DOOR_MS, MAX_DOORS } from './roster.ts'

export const RELAY_PROTOCOL = '/farport/relay/1'

/** PeerIDs in one message, of both lists together: 512 × 55 characters are well below 64 KiB. */
const MAX_PEERS_PER_MESSAGE = 512
const MAX_MESSAGES_PER_UPDATE = 16

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))

export const peerIdSchema = v.pipe(
  v.string(),
  v.maxLength(64),
  v.check((text) => peerIdProblem(text) === undefined),
)

export const nameplateSchema = v.pipe(v.string(), v.regex(/^[1-9]\d{2}$/))

const doorSchema = v.object({
  nameplate: v.exactOptional(nameplateSchema),
  forMs: v.pipe(count, v.maxValue(MAX_DOOR_MS)),
})

const helloSchema = v.object({ version: v.literal(1) })

const updateSchema = v.object({
  seq: count,
  vouch: v.pipe(v.array(peerIdSchema), v.maxLength(MAX_PEERS_PER_MESSAGE)),
  unvouch: v.pipe(v.array(peerIdSchema), v.maxLength(MAX_PEERS_PER_MESSAGE)),
  doors: v.exactOptional(v.pipe(v.array(doorSchema), v.maxLength(MAX_DOORS))),
  more: v.boolean(),
})

const refusalSchema = v.object({
  ok: v.literal(false),
  code: v.pipe(v.string(), v.maxLength(64)),
  message: v.pipe(v.string(), v.maxLength(1024)),
})

const port = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(0xffff))

const welcomeSchema = v.object({
  ok: v.literal(true),
  seen: v.pipe(v.string(), v.maxLength(256), v.regex(/^\/[\x21-\x7e]*$/)),
  stun: v.pipe(v.array(port), v.maxLength(4)),
})

const ackSchema = v.object({ ok: v.literal(true), ack: count })

/** What the relay tells about itself and the agent. */
export interface Welcome {
  /** The agent's address as the relay sees it, a multiaddr. */
  readonly seen: string
  /** The relay's STUN ports, for UDP and TCP alike. */
  readonly stun: readonly number[]
}

/** A change as it goes over the wire, in as many messages as it takes. */
export interface Update {
  readonly seq: number
  readonly vouch: readonly string[]
  readonly unvouch: readonly string[]
  readonly doors?: readonly Door[]
}

export function writeHello(stream: Duplex): void {
  writeMessage(stream, { version: 1 })
}

/** @throws FarportError ERR_PROTOCOL */
export async function readHello(stream: Duplex, signal: AbortSignal): Promise<void> {
  parse(helloSchema, await readMessage(stream, signal), 'hello')
}

export function writeWelcome(stream: Duplex, welcome: Welcome): void {
  writeMessage(stream, { ok: true, ...welcome })
}

/** @throws FarportError the relay's refusal, or ERR_PROTOCOL */
export async function readWelcome(stream: Duplex, signal: AbortSignal): Promise<Welcome> {
  const { seen, stun } = await readAnswer(stream, welcomeSchema, signal)
  return { seen, stun }
}

export function writeUpdate(stream: Duplex, { seq, vouch, unvouch, doors }: Update): void {
  const all = [
    ...vouch.map((peerId) => ({ peerId, list: 'vouch' as const })),
    ...unvouch.map((peerId) => ({ peerId, list: 'unvouch' as const })),
  ]
  for (let at = 0, more = true; more; at += MAX_PEERS_PER_MESSAGE) {
    const part = all.slice(at, at + MAX_PEERS_PER_MESSAGE)
    const of = (list: 'vouch' | 'unvouch') =>
      part.filter((one) => one.list === list).map(({ peerId }) => peerId)
    more = at + MAX_PEERS_PER_MESSAGE < all.length
    const last = more || doors === undefined ? {} : { doors }
    writeMessage(stream, { seq, vouch: of('vouch'), unvouch: of('unvouch'), ...last, more })
  }
}

/**
 * Reads a whole change. Waits for its beginning as long as `signal` lets it.
 * @throws FarportError ERR_PROTOCOL
 */
export async function readUpdate(stream: Duplex, signal: AbortSignal): Promise<Update> {
  const vouch: string[] = []
  const unvouch: string[] = []
  for (let messages = 0; messages < MAX_MESSAGES_PER_UPDATE; messages++) {
    const part = parse(updateSchema, await readMessage(stream, signal, LONGEST_MESSAGE), 'change')
    vouch.push(...part.vouch)
    unvouch.push(...part.unvouch)
    if (!part.more)
      return { seq: part.seq, vouch, unvouch, ...(part.doors !== undefined && { doors: part.doors }) }
  }
  throw new FarportError(
    'ERR_PROTOCOL',
    `the peer sent a change of more than ${MAX_MESSAGES_PER_UPDATE} messages`,
  )
}

export function writeAck(stream: Duplex, seq: number): void {
  writeMessage(stream, { ok: true, ack: seq })
}

/** Resolves with the number of the change that is in force. @throws FarportError the relay's refusal, or ERR_PROTOCOL */
export async function readAck(stream: Duplex, signal: AbortSignal): Promise<number> {
  return (await readAnswer(stream, ackSchema, signal)).ack
}

/** In the place of an answer. */
export function writeRefusal(stream: Duplex, { code, message }: FarportError): void {
  writeMessage(stream, { ok: false, code, message: message.slice(0, 1024) })
}

/** What a relay may refuse with. Anything else it sends counts as ERR_PROTOCOL. */
const REFUSALS: readonly ErrorCode[] = ['ERR_NOT_GRANTED', 'ERR_UNFIT', 'ERR_PROTOCOL', 'ERR_INTERNAL']

/** An answer or a refusal. @throws FarportError the refusal, or ERR_PROTOCOL */
export async function readAnswer<T extends v.GenericSchema>(
  stream: Duplex,
  schema: T,
  signal: AbortSignal,
): Promise<v.InferOutput<T>> {
  const said = parse(v.union([schema, refusalSchema]), await readMessage(stream, signal), 'answer')
  const refusal = v.safeParse(refusalSchema, said)
  if (!refusal.success) return said as v.InferOutput<T>
  const { code, message } = refusal.output
  throw new FarportError(REFUSALS.find((known) => known === code) ?? 'ERR_PROTOCOL', printable(message))
}
