/**
 * `/farport/directory/1`: whoever was let in asks a relay for the open invites under a nameplate. One question a stream,
 * in messages of u16 length (big-endian) | UTF-8 JSON:
 *
 *   asker → relay   { version: 1, nameplate: "734" }
 *   relay → asker   { ok: true, peers: [PeerID, …] }, at most 8, or { ok: false, code, message }; then the end
 *
 * Nothing else is told: not the addresses of those peers, whom to call through the relay, nor who else is there.
 */
import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import { FarportError } from '../errors.ts'
import { parse, readMessage, writeMessage } from '../wire/message.ts'
import { nameplateSchema, peerIdSchema, readAnswer, writeRefusal } from './vouch-message.ts'

export const DIRECTORY_PROTOCOL = '/farport/directory/1'

const MAX_PEERS = 8
const QUESTION_MS = 5_000
/** How long the asker has to read the answer: a reset overtakes what was sent. */
const LINGER_MS = 2_000

/** A person types a code wrong a few times; the 900 nameplates take one source more than an hour. */
const QUESTIONS_PER_SOURCE = 12
/** All sources together sweep them in eight minutes, and then know PeerIDs that let nobody guess more than thrice. */
const QUESTIONS = 120
const WINDOW_MS = 60_000

const questionSchema = v.object({ version: v.literal(1), nameplate: nameplateSchema })

const answerSchema = v.object({
  ok: v.literal(true),
  peers: v.pipe(v.array(peerIdSchema), v.maxLength(MAX_PEERS)),
})

/**
 * Asks a relay who has an open invite under the nameplate.
 * @throws FarportError the relay's refusal, or ERR_PROTOCOL
 */
export async function askDirectory(
  stream: Duplex,
  nameplate: string,
  signal: AbortSignal,
): Promise<string[]> {
  const ignore = () => {}
  stream.on('error', ignore)
  try {
    writeMessage(stream, { version: 1, nameplate })
    return (await readAnswer(stream, answerSchema, signal)).peers
  } finally {
    stream.destroy()
  }
}

/** The relay's half. */
export class Directory {
  readonly #find: (nameplate: string) => readonly string[]
  readonly #clock: () => number
  /** Questions of each source in this window; there are no more of them than questions. */
  readonly #asked = new Map<string, number>()
  #questions = 0
  #since = Number.NEGATIVE_INFINITY

  constructor(find: (nameplate: string) => readonly string[], clock = () => performance.now()) {
    this.#find = find
    this.#clock = clock
  }

  /**
   * Answers one stream. Never rejects.
   * @param source whose limit it counts against
   */
  async serve(stream: Duplex, source: string): Promise<void> {
    const ignore = () => {}
    stream.on('error', ignore)
    try {
      const signal = AbortSignal.timeout(QUESTION_MS)
      const { nameplate } = parse(questionSchema, await readMessage(stream, signal), 'question')
      this.#count(source)
      writeMessage(stream, { ok: true, peers: this.#find(nameplate).slice(0, MAX_PEERS) })
    } catch (error) {
      if (!(error instanceof FarportError) || !stream.writable) {
        stream.destroy()
        return
      }
      writeRefusal(stream, error)
    }
    stream.resume().end()
    setTimeout(() => stream.destroy(), LINGER_MS).unref()
  }

  #count(source: string): void {
    const now = this.#clock()
    if (now - this.#since >= WINDOW_MS) {
      this.#since = now
      this.#questions = 0
      this.#asked.clear()
    }
    const asked = this.#asked.get(source) ?? 0
    if (asked >= QUESTIONS_PER_SOURCE || this.#questions >= QUESTIONS)
      throw new FarportError('ERR_UNFIT', 'too many have asked for codes just now: try again in a minute')
    this.#asked.set(source, asked + 1)
    this.#questions++
  }
}
