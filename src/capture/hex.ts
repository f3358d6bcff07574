/**
 * A capture to read with the eyes, and to search with grep: what the device sent behind `<`, what it was sent behind `>`, at
 * most 16 bytes a line, the time in UTC; lines that begin with # are remarks.
 *
 *   # farport capture of gps
 *   2026-11-23T03:40:12.123456Z < 24 47 50 47 47 41 2c 31  |$GPGGA,1|
 *   # 2026-11-23T03:40:13.000000Z lost 512 bytes
 */
import { CaptureError, type CaptureReader, type CaptureWriter, type Piece } from './format.ts'
import { Lines } from './lines.ts'

const BYTES_PER_LINE = 16
const LINE = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{6})Z ([<>])((?: [0-9a-f]{2}){1,16}) {2,}\|[ -~]*\|$/

export function hexWriter(port: string): CaptureWriter {
  return {
    start: () => Buffer.from(`# farport capture of ${port}\n`),
    piece: ({ atMs, direction, bytes }) => {
      const head = `${timeOf(atMs)} ${direction === 'fromDevice' ? '<' : '>'}`
      let text = ''
      for (let at = 0; at < bytes.length; at += BYTES_PER_LINE)
        text += `${head}${lineOf(bytes.subarray(at, at + BYTES_PER_LINE))}\n`
      return Buffer.from(text)
    },
    lost: (atMs, bytes) => Buffer.from(`# ${timeOf(atMs)} lost ${bytes} bytes\n`),
    end: () => Buffer.alloc(0),
  }
}

function lineOf(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => ` ${byte.toString(16).padStart(2, '0')}`).join('')
  const text = Array.from(bytes, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.'))
  return `${hex.padEnd(3 * BYTES_PER_LINE)}  |${text.join('')}|`
}

/** With microseconds, which Date does not have. */
function timeOf(atMs: number): string {
  const micros = Math.floor((atMs % 1) * 1000)
  return new Date(atMs).toISOString().replace('Z', `${String(micros).padStart(3, '0')}Z`)
}

export class HexReader implements CaptureReader {
  readonly #lines = new Lines();

  *push(bytes: Uint8Array): Generator<Piece, void> {
    for (const line of this.#lines.push(bytes)) yield* this.#read(line)
  }

  end(): void {
    if (this.#lines.end() !== undefined) throw new CaptureError('its last line is cut')
  }

  *#read(line: string): Generator<Piece, void> {
    if (line === '' || line.startsWith('#')) return
    const [, seconds, micros, arrow, hex = ''] = LINE.exec(line) ?? []
    const wholeMs = Date.parse(`${seconds}Z`)
    if (Number.isNaN(wholeMs)) throw new CaptureError('a line that is neither bytes nor a remark')
    yield {
      atMs: wholeMs + Number(micros) / 1000,
      direction: arrow === '<' ? 'fromDevice' : 'toDevice',
      bytes: Buffer.from(hex.replaceAll(' ', ''), 'hex'),
    }
  }
}
