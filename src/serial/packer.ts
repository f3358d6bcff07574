import { FarportError } from '../errors.ts'

/** How bytes are gathered into pieces: what comes first ends one. */
export interface Packing {
  /** Silence in milliseconds that ends a piece, either way. Absent: see LAST_RESORT_MS. */
  readonly gapMs?: number
  /** The most bytes of one piece. */
  readonly sizeBytes?: number
  /** What the device ends a piece with, as Latin-1. */
  readonly until?: string
}

export const MAX_GAP_MS = 1_000
export const MAX_PIECE_BYTES = 16 * 1024
const MAX_UNTIL_BYTES = 8
/** Where only a size or an end is asked for, what is short of it leaves after so much silence: a prompt has no newline. */
const LAST_RESORT_MS = 100

/**
 * Gathers bytes and hands them on in pieces. Holds one piece at most, in a buffer that is made once, and one timer: a byte
 * that comes while it runs only notes the time.
 */
export class Packer implements Disposable {
  readonly #gapMs: number
  readonly #until: Buffer | undefined
  readonly #send: (piece: Buffer) => void
  readonly #clock: () => number
  readonly #buffer: Buffer
  #length = 0
  #lastByteMs = 0
  #timer: NodeJS.Timeout | undefined

  /** `send` gets a piece that stays as it is. `clock` tells milliseconds that only go forward. */
  constructor(
    { gapMs, sizeBytes, until }: Packing,
    send: (piece: Buffer) => void,
    clock = () => performance.now(),
  ) {
    this.#gapMs = gapMs ?? LAST_RESORT_MS
    this.#until = until === undefined ? undefined : Buffer.from(until, 'latin1')
    this.#send = send
    this.#clock = clock
    this.#buffer = Buffer.allocUnsafeSlow(sizeBytes ?? MAX_PIECE_BYTES)
  }

  push(bytes: Uint8Array): void {
    for (let rest = bytes; rest.length > 0; ) {
      const room = this.#buffer.length - this.#length
      const seen = this.#length
      const taken = rest.subarray(0, room)
      this.#buffer.set(taken, seen)
      this.#length += taken.length
      rest = rest.subarray(taken.length)
      this.#sendEnded(seen)
      if (this.#length === this.#buffer.length) this.flush()
    }
    if (this.#length === 0) return
    this.#lastByteMs = this.#clock()
    this.#timer ??= this.#wait(this.#gapMs)
  }

  /** Hands on what there is. */
  flush(): void {
    if (this.#length === 0) return
    const piece = Buffer.from(this.#buffer.subarray(0, this.#length))
    this.#length = 0
    this.#send(piece)
  }

  /** Forgets what there is. */
  discard(): void {
    this.#length = 0
  }

  [Symbol.dispose](): void {
    this.discard()
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  /** Hands on each piece whose end has come; bytes before `seen` hold none, but may begin one. */
  #sendEnded(seen: number): void {
    const until = this.#until
    if (until === undefined) return
    const bytes = this.#buffer.subarray(0, this.#length)
    const pieces: Buffer[] = []
    let begin = 0
    let at = bytes.indexOf(until, Math.max(0, seen - until.length + 1))
    while (at !== -1) {
      const end = at + until.length
      pieces.push(Buffer.from(bytes.subarray(begin, end)))
      begin = end
      at = bytes.indexOf(until, end)
    }
    this.#buffer.copyWithin(0, begin, this.#length)
    this.#length -= begin
    for (const piece of pieces) this.#send(piece)
  }

  #wait(ms: number): NodeJS.Timeout {
    return setTimeout(() => {
      this.#timer = undefined
      if (this.#length === 0) return
      const leftMs = this.#lastByteMs + this.#gapMs - this.#clock()
      if (leftMs <= 0) this.flush()
      else this.#timer = this.#wait(Math.ceil(leftMs))
    }, ms).unref()
  }
}

/**
 * What `pack.until=` says: characters, of which \n, \r, \t, \0, \\ and \xHH stand for what they do in C.
 * @throws FarportError ERR_USAGE
 */
export function parseUntil(text: string): string {
  const characters: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', 0: '\0', '\\': '\\' }
  const until = text.replace(/\\(?:x([0-9A-Fa-f]{2})|(.?))/g, (_, hex?: string, letter = '') => {
    const character = hex === undefined ? characters[letter] : String.fromCharCode(Number.parseInt(hex, 16))
    if (character === undefined) throw wrongUntil(text)
    return character
  })
  if (until.length === 0 || until.length > MAX_UNTIL_BYTES || /[^\0-\xff]/.test(until)) throw wrongUntil(text)
  return until
}

function wrongUntil(text: string): FarportError {
  return new FarportError(
    'ERR_USAGE',
    `“${text}” can't end a piece: pack.until= is one to ${MAX_UNTIL_BYTES} bytes, such as \\n, \\r\\n, \\x03 or ;`,
  )
}
