import type { InputLines, LineSettings, OutputLines } from '../../src/rfc2217/line.ts'
import type { Rfc2217Server, ServerRequest } from '../../src/rfc2217/server.ts'
import { TelnetDecoder } from '../../src/telnet/decoder.ts'
import { toHex } from '../telnet/stream.ts'

export const ALL_LOW: InputLines = { cts: false, dsr: false, ri: false, dcd: false }

/** A port that does what it is asked, and remembers what that was. */
export class FakePort {
  settings: LineSettings = {
    baudRate: 9600,
    dataBits: 8,
    parity: 'none',
    stopBits: 1,
    outputFlow: 'none',
    inputFlow: 'none',
  }
  outputs: OutputLines = { dtr: true, rts: true }
  break = false
  /** In the order in which it happened; bytes as digits. */
  readonly log: string[] = []
  /** What a driver makes of the settings asked for. */
  driver = (settings: LineSettings): LineSettings => settings

  /** Does what a request wants; gives the bytes of the answer. */
  perform(server: Rfc2217Server, request: ServerRequest): Uint8Array {
    switch (request.type) {
      case 'configure':
        this.log.push(`configure ${JSON.stringify(request.change)}`)
        this.settings = this.driver({ ...this.settings, ...request.change })
        return server.answer(request, this.settings)
      case 'set-lines':
        this.log.push(`set-lines ${JSON.stringify(request.change)}`)
        this.outputs = { ...this.outputs, ...request.change }
        return server.answer(request, this.outputs)
      case 'set-break':
        this.log.push(`set-break ${request.on}`)
        this.break = request.on
        return server.answer(request, request.on)
      case 'purge':
        this.log.push(`purge ${request.what}`)
        return server.answer(request)
    }
  }
}

/** The bytes for a peer in words: payloads of subnegotiation 44 as digits, negotiations as three numbers. */
export function spoken(bytes: Uint8Array | undefined): string[] {
  const words: string[] = []
  for (const event of new TelnetDecoder().push(bytes ?? new Uint8Array(0))) {
    switch (event.type) {
      case 'subnegotiation':
        words.push(event.option === 44 ? toHex(event.payload) : `option ${event.option}`)
        break
      case 'negotiate':
        words.push(`${{ 251: 'WILL', 252: 'WONT', 253: 'DO', 254: 'DONT' }[event.verb]} ${event.option}`)
        break
      case 'command':
        words.push(`command ${event.code}`)
        break
      case 'data':
        words.push(`data ${toHex(event.bytes)}`)
        break
      case 'malformed':
        words.push(`malformed ${event.reason}`)
        break
    }
  }
  return words
}
