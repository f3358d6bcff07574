import { AsciicastReader, asciicastWriter } from './asciicast.ts'
import { CaptureError, type CaptureReader, type CaptureWriter, type Piece } from './format.ts'
import { HexReader, hexWriter } from './hex.ts'
import { PcapngReader, pcapngWriter } from './pcapng.ts'

export const CAPTURE_FORMATS = ['hex', 'asciicast', 'pcapng'] as const
export type CaptureFormat = (typeof CAPTURE_FORMATS)[number]

export function captureWriter(format: CaptureFormat, port: string, startMs: number): CaptureWriter {
  switch (format) {
    case 'hex':
      return hexWriter(port)
    case 'asciicast':
      return asciicastWriter(port, startMs)
    case 'pcapng':
      return pcapngWriter(port)
  }
}

/**
 * The pieces of a capture of any of the formats.
 * @throws CaptureError where it is damaged or cut, behind what there is before that
 */
export async function* readCapture(source: AsyncIterable<Uint8Array>): AsyncGenerator<Piece, void> {
  let reader: CaptureReader | undefined
  for await (const chunk of source) {
    if (chunk.length === 0) continue
    reader ??= readerFor(chunk[0] as number)
    yield* reader.push(chunk)
  }
  if (reader === undefined) throw new CaptureError('it is empty')
  reader.end()
}

/** Each format begins with another character. */
function readerFor(first: number): CaptureReader {
  switch (first) {
    case 0x0a:
      return new PcapngReader()
    case 0x7b:
      return new AsciicastReader()
    case 0x23:
      return new HexReader()
    default:
      throw new CaptureError('it is no capture: neither hex, asciicast nor pcapng')
  }
}
