/**
 * A capture that asciinema plays: https://docs.asciinema.org/manual/asciicast/v2/. What the device sent is "o", what it was
 * sent "i", bytes that are lost a marker, "m".
 *
 *   {"version":2,"width":80,"height":24,"timestamp":1795405212,"title":"gps"}
 *   [0.123456,"o","$GPGGA,"]
 *
 * Its text is Unicode, and a device's is not always. A byte that is no part of UTF-8 stands as U+EF80 to U+EFFF, the byte's
 * value above U+EF00, as BSD's OPTU encodings have it; those very characters stand as their bytes. So nothing is lost. A
 * character that comes in parts waits for its last byte.
 */
import { CaptureError, type CaptureReader, type CaptureWriter, type Direction, type Piece } from './format.ts'
import { Lines } from './lines.ts'

const RAW = 0xef00
const CODES = { fromDevice: 'o', toDevice: 'i' } as const

export function asciicastWriter(port: string, startMs: number): CaptureWriter {
  const texts = { fromDevice: new TextOfBytes(), toDevice: new TextOfBytes() }
  const event = (atMs: number, code: string, text: string) =>
    text === '' ? '' : `${JSON.stringify([secondsAfter(startMs, atMs), code, text])}\n`
  return {
    start: () => {
      const timestamp = Math.floor(startMs / 1000)
      return Buffer.from(`${JSON.stringify({ version: 2, width: 80, height: 24, timestamp, title: port })}\n`)
    },
    piece: ({ atMs, direction, bytes }) =>
      Buffer.from(event(atMs, CODES[direction], texts[direction].push(bytes))),
    lost: (atMs, bytes) => Buffer.from(event(atMs, 'm', `lost ${bytes} bytes`)),
    end: () => {
      const left = (['fromDevice', 'toDevice'] as const).map((direction) =>
        event(Date.now(), CODES[direction], texts[direction].end()),
      )
      return Buffer.from(left.join(''))
    },
  }
}

/** The header's time is in whole seconds, and the events count from it. */
function secondsAfter(startMs: number, atMs: number): number {
  const seconds = (atMs - Math.floor(startMs / 1000) * 1000) / 1000
  return Math.max(0, Number(seconds.toFixed(6)))
}

/** Bytes as text that says which bytes they were. */
class TextOfBytes {
  #held: Uint8Array = new Uint8Array(0)

  push(more: Uint8Array): string {
    const bytes = Buffer.concat([this.#held, more])
    let text = ''
    let at = 0
    while (at < bytes.length) {
      const length = sequenceAt(bytes, at)
      if (length === 'unfinished') break
      text += length === 0 ? raw(bytes[at] ?? 0) : bytes.toString('utf8', at, at + length)
      at += length === 0 ? 1 : length
    }
    this.#held = Uint8Array.from(bytes.subarray(at))
    return text
  }

  end(): string {
    const text = Array.from(this.#held, raw).join('')
    this.#held = new Uint8Array(0)
    return text
  }
}

const raw = (byte: number) => String.fromCharCode(RAW | byte)

/** The length of the character there, 0 for a byte that is none, as Unicode's table 3-7 has it. */
function sequenceAt(bytes: Uint8Array, at: number): number | 'unfinished' {
  const [first = 0] = bytes.subarray(at)
  if (first < 0x80) return 1
  const length = first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0
  if (length === 0 || first < 0xc2) return 0
  const lowest = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80
  const highest = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i]
    if (byte === undefined) return 'unfinished'
    if (byte < (i === 1 ? lowest : 0x80) || byte > (i === 1 ? highest : 0xbf)) return 0
  }
  // What stands for raw bytes must not come from anything else.
  const isRaw = first === 0xee && (bytes[at + 1] ?? 0) >= 0xbe
  return isRaw ? 0 : length
}

function bytesOfText(text: string): Buffer {
  const parts: Uint8Array[] = []
  let from = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < (RAW | 0x80) || code > (RAW | 0xff)) continue
    parts.push(Buffer.from(text.slice(from, i)), Uint8Array.of(code & 0xff))
    from = i + 1
  }
  parts.push(Buffer.from(text.slice(from)))
  return Buffer.concat(parts)
}

export class AsciicastReader implements CaptureReader {
  readonly #lines = new Lines()
  #startMs: number | undefined;

  *push(bytes: Uint8Array): Generator<Piece, void> {
    for (const line of this.#lines.push(bytes)) yield* this.#read(line)
  }

  end(): void {
    if (this.#lines.end() !== undefined) throw new CaptureError('its last line is cut')
    if (this.#startMs === undefined) throw new CaptureError('it is empty')
  }

  *#read(line: string): Generator<Piece, void> {
    if (line.trim() === '') return
    const value = parse(line)
    if (this.#startMs === undefined) {
      this.#startMs = startOf(value)
      return
    }
    const [seconds, code, text] = Array.isArray(value) ? (value as unknown[]) : []
    if (typeof seconds !== 'number' || seconds < 0 || typeof code !== 'string' || typeof text !== 'string')
      throw new CaptureError('a line that is no event')
    const direction = directionOf(code)
    if (direction !== undefined)
      yield { atMs: this.#startMs + seconds * 1000, direction, bytes: bytesOfText(text) }
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    throw new CaptureError('a line that is no JSON')
  }
}

function startOf(header: unknown): number {
  const { version, timestamp = 0 } = (header ?? {}) as { version?: unknown; timestamp?: unknown }
  if (version !== 2 || typeof timestamp !== 'number')
    throw new CaptureError('it is not an asciicast of version 2')
  return timestamp * 1000
}

/** Markers and changes of size are no bytes. */
function directionOf(code: string): Direction | undefined {
  return code === 'o' ? 'fromDevice' : code === 'i' ? 'toDevice' : undefined
}
