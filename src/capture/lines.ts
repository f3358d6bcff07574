import { CaptureError } from './format.ts'

/** Longer lines are in no capture. */
const MAX_LINE_BYTES = 1024 * 1024

/** Splits a text into lines, wherever it is cut. */
export class Lines {
  #rest: Uint8Array = new Uint8Array(0);

  *push(bytes: Uint8Array): Generator<string, void> {
    let left: Uint8Array = Buffer.concat([this.#rest, bytes])
    for (let end = left.indexOf(0x0a); end >= 0; end = left.indexOf(0x0a)) {
      const line = left.subarray(0, end)
      left = left.subarray(end + 1)
      yield textOf(line)
    }
    if (left.length > MAX_LINE_BYTES) throw new CaptureError(`a line of more than ${MAX_LINE_BYTES} bytes`)
    this.#rest = Uint8Array.from(left)
  }

  /** Undefined when the last line was a whole one. */
  end(): string | undefined {
    return this.#rest.length === 0 ? undefined : textOf(this.#rest)
  }
}

function textOf(line: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(line)
  } catch {
    throw new CaptureError('it is not UTF-8')
  }
}
