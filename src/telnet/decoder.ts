import { DO, DONT, IAC, SB, SE, type Verb, WILL, WONT } from './bytes.ts'

export type TelnetEvent =
  | { type: 'data'; bytes: Uint8Array }
  | { type: 'negotiate'; verb: Verb; option: number }
  | { type: 'subnegotiation'; option: number; payload: Uint8Array }
  | { type: 'command'; code: number }
  /** Bytes that mean nothing were dropped; the stream goes on behind them. `reason` is for a log. */
  | { type: 'malformed'; reason: string }

/** The longest payload of a subnegotiation that is kept, in bytes; doubled IACs count once. */
export const MAX_SUBNEGOTIATION = 1024

/** `sub-drop`: inside a subnegotiation that is already lost, looking for its end. */
type State = 'data' | 'iac' | 'option' | 'sub' | 'sub-iac' | 'sub-drop' | 'sub-drop-iac'

/**
 * Splits a byte stream into telnet events. Holds no socket and no timer: feed it chunks cut anywhere, the meaning stays
 * the same.
 *
 * It never throws, whatever the bytes are. A subnegotiation ends at IAC SE and nowhere else; one that breaks the rules
 * or is too long is dropped up to there, so that a peer's bug costs one message and not the connection.
 *
 * Data passes as it is: no CR NUL is turned into CR, also before BINARY is agreed. RFC 854 asks for it, but no serial
 * server does it, and a byte that a device sent is not ours to drop.
 */
export class TelnetDecoder {
  readonly #maxSubnegotiation: number
  readonly #payload: Uint8Array
  #state: State = 'data'
  #verb: Verb = DO
  /** Undefined until the option byte of the current subnegotiation has come. */
  #option: number | undefined
  #length = 0

  constructor({ maxSubnegotiation = MAX_SUBNEGOTIATION } = {}) {
    this.#maxSubnegotiation = maxSubnegotiation
    this.#payload = new Uint8Array(maxSubnegotiation)
  }

  /**
   * Gives the chunk's events one at a time; the caller may do something slow in between, but must take them all before
   * the next push. `data` is a view of the chunk, or a copy where 0xff had to be undoubled.
   */
  *push(chunk: Uint8Array): Generator<TelnetEvent, void> {
    let at = 0
    while (at < chunk.length) {
      const byte = chunk[at] as number
      switch (this.#state) {
        case 'data': {
          if (byte === IAC && chunk[at + 1] !== IAC) {
            this.#state = 'iac'
            at++
            break
          }
          const { bytes, end } = takeData(chunk, at)
          at = end
          yield { type: 'data', bytes }
          break
        }
        case 'iac':
          at++
          this.#state = 'data'
          switch (byte) {
            case IAC:
              yield { type: 'data', bytes: chunk.subarray(at - 1, at) }
              break
            case SB:
              this.#state = 'sub'
              this.#option = undefined
              this.#length = 0
              break
            case WILL:
            case WONT:
            case DO:
            case DONT:
              this.#state = 'option'
              this.#verb = byte
              break
            default:
              yield { type: 'command', code: byte }
          }
          break
        case 'option':
          at++
          this.#state = 'data'
          yield { type: 'negotiate', verb: this.#verb, option: byte }
          break
        case 'sub':
          at++
          if (byte === IAC) this.#state = 'sub-iac'
          else if (!this.#keep(byte)) yield this.#tooLong()
          break
        case 'sub-iac':
          at++
          if (byte === SE) {
            this.#state = 'data'
            yield this.#subnegotiation()
          } else if (byte === IAC) {
            this.#state = 'sub'
            if (!this.#keep(byte)) yield this.#tooLong()
          } else {
            this.#state = 'sub-drop'
            yield { type: 'malformed', reason: `IAC ${byte} inside a subnegotiation` }
          }
          break
        case 'sub-drop': {
          const iac = chunk.indexOf(IAC, at)
          at = iac === -1 ? chunk.length : iac + 1
          if (iac !== -1) this.#state = 'sub-drop-iac'
          break
        }
        case 'sub-drop-iac':
          at++
          this.#state = byte === SE ? 'data' : 'sub-drop'
          break
      }
    }
  }

  #subnegotiation(): TelnetEvent {
    if (this.#option === undefined) return { type: 'malformed', reason: 'a subnegotiation without an option' }
    return { type: 'subnegotiation', option: this.#option, payload: this.#payload.slice(0, this.#length) }
  }

  /** False when there is no room left. */
  #keep(byte: number): boolean {
    if (this.#option === undefined) this.#option = byte
    else if (this.#length === this.#maxSubnegotiation) return false
    else this.#payload[this.#length++] = byte
    return true
  }

  #tooLong(): TelnetEvent {
    this.#state = 'sub-drop'
    return { type: 'malformed', reason: `a subnegotiation longer than ${this.#maxSubnegotiation} bytes` }
  }
}

/**
 * The data from `start` up to the next command or the end of the chunk. A trailing IAC is left for the next chunk to
 * explain.
 */
function takeData(chunk: Uint8Array, start: number): { bytes: Uint8Array; end: number } {
  let iac = chunk.indexOf(IAC, start)
  if (iac === -1) return { bytes: chunk.subarray(start), end: chunk.length }
  if (chunk[iac + 1] !== IAC) return { bytes: chunk.subarray(start, iac), end: iac }

  let end = iac
  let doubled = 0
  while (end !== -1 && chunk[end + 1] === IAC) {
    doubled++
    end = chunk.indexOf(IAC, end + 2)
  }
  if (end === -1) end = chunk.length

  const bytes = new Uint8Array(end - start - doubled)
  let from = start
  let length = 0
  while (iac !== -1 && iac < end) {
    bytes.set(chunk.subarray(from, iac + 1), length)
    length += iac + 1 - from
    from = iac + 2
    iac = chunk.indexOf(IAC, from)
  }
  bytes.set(chunk.subarray(from, end), length)
  return { bytes, end }
}
