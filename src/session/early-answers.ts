import { setTimeout as delay } from 'node:timers/promises'
import type { Rfc2217Server } from '../rfc2217/server.ts'
import type { ServerRequest } from '../rfc2217/server-request.ts'
import type { OutputLines, SerialPort } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'

type Request = Exclude<ServerRequest, { type: 'purge' }>
type SettingsRequest = Extract<Request, { type: 'configure' }>
type LinesRequest = Extract<Request, { type: 'set-lines' }>

/** So many requests may be on their way to the port at a time. */
const MAX_ON_THEIR_WAY = 16
/** Longest wait for the bytes before a request to be on their way; flow control may hold them up for ever. */
const MAX_WRITE_MS = 2_500

/**
 * Answers a program here about a port that is far away. What goes there keeps its order, so a request need not wait for
 * the one before it. Lines and breaks are answered at once, as if the port were here: tools step through them one by one,
 * and each step would cost a round trip. When the far end says otherwise (a peer without the right, say), the program is
 * told so then, and a question gets the truth. Settings are answered when the far end has answered.
 */
export class EarlyAnswers {
  readonly #port: SerialPort
  readonly #server: Rfc2217Server
  readonly #send: (bytes: Uint8Array | undefined) => void
  readonly #onTheirWay = new Set<Promise<void>>()
  /** Answers about settings keep their order. */
  #settingsAnswered: Promise<void> = Promise.resolve()
  #settingsOnTheirWay = 0
  #lastLines: LinesRequest | undefined

  /** `send` takes bytes for the program. */
  constructor(port: SerialPort, server: Rfc2217Server, send: (bytes: Uint8Array | undefined) => void) {
    this.#port = port
    this.#server = server
    this.#send = send
  }

  /** Resolves when the next request, or data, may follow. Rejects when the port is gone. */
  async perform(request: Request): Promise<void> {
    if (this.#port.writableLength > 0) await this.#written()
    while (this.#onTheirWay.size >= MAX_ON_THEIR_WAY) await Promise.race(this.#onTheirWay)
    switch (request.type) {
      case 'configure':
        this.#configure(request)
        break
      case 'set-lines': {
        const asked = Object.keys(request.change).length > 0
        const outputs = { ...this.#port.outputs, ...request.change }
        if (asked) this.#lastLines = request
        const set = asked ? this.#port.setLines(request.change) : undefined
        this.#send(this.#server.answer(request, outputs))
        if (set !== undefined) void this.#follow(async () => this.#correct(request, outputs, await set))
        break
      }
      case 'set-break': {
        const set = this.#port.setBreak(request.on)
        this.#send(this.#server.answer(request, request.on))
        void this.#follow(() => set)
        break
      }
      default:
        request satisfies never
    }
  }

  #configure(request: SettingsRequest): void {
    const asked = Object.keys(request.change).length > 0
    const inForce = this.#port.settings
    const known = this.#settingsOnTheirWay === 0 && includes(inForce, request.change)
    const configured = asked ? this.#port.configure(request.change) : Promise.resolve(inForce)
    if (known) {
      // What is in force already can be said: tools set again at each step what they have set before.
      this.#send(this.#server.answer(request, inForce))
      void this.#follow(async () => this.#send(this.#server.settings(difference(inForce, await configured))))
      return
    }
    const before = this.#settingsAnswered
    this.#settingsOnTheirWay++
    this.#settingsAnswered = this.#follow(async () => {
      try {
        await before
        await configured
        this.#send(this.#server.answer(request, this.#port.settings))
      } finally {
        this.#settingsOnTheirWay--
      }
    })
  }

  /** A port that is gone closes the program's stream by itself. */
  #follow(answer: () => Promise<void>): Promise<void> {
    const done = answer()
      .catch(() => {})
      .finally(() => this.#onTheirWay.delete(done))
    this.#onTheirWay.add(done)
    return done
  }

  /** Tells lines that are not as was said; of several requests the last one tells. */
  #correct(request: LinesRequest, told: Readonly<OutputLines>, inForce: Readonly<OutputLines>): void {
    if (request !== this.#lastLines) return
    const wrong = (['dtr', 'rts'] as const).filter((line) => told[line] !== inForce[line])
    if (wrong.length === 0) return
    const asked = wrong.map((line) => ({ type: `set-${line}`, value: 'query' }) as const)
    this.#send(this.#server.answer({ type: 'set-lines', change: {}, asked }, inForce))
  }

  /** Bytes that wait in our own buffer would come behind the request. */
  async #written(): Promise<void> {
    const late = new AbortController()
    const written = new Promise<void>((resolve) => this.#port.write(new Uint8Array(0), () => resolve()))
    await Promise.race([written, delay(MAX_WRITE_MS, undefined, { signal: late.signal }).catch(() => {})])
    late.abort()
  }
}

function includes(settings: Readonly<SerialSettings>, part: Readonly<Partial<SerialSettings>>): boolean {
  return Object.keys(difference(settings, { ...settings, ...part })).length === 0
}

/** What of `now` was not so before. */
function difference(
  before: Readonly<SerialSettings>,
  now: Readonly<SerialSettings>,
): Partial<SerialSettings> {
  const names = Object.keys(now) as (keyof SerialSettings)[]
  return Object.fromEntries(
    names.filter((name) => now[name] !== before[name]).map((name) => [name, now[name]]),
  )
}
