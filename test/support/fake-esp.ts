import { type Attachment, type MemoryPort, memorySource } from '../../src/serial/memory-port.ts'
import type { OutputLines, PortSource } from '../../src/serial/port.ts'

/** After the chip's EN pin rises, its ROM looks at GPIO0 so late: the capacitor at EN makes it slow. */
const SAMPLE_MS = 5
const SLIP_END = 0xc0
const SYNC = 8

/**
 * An ESP32 board: two transistors between the lines and the chip (EN is low while RTS is asserted and DTR is not, GPIO0
 * is low while DTR is and RTS is not), and a ROM that answers a SYNC if it came up with GPIO0 low. It goes by the clock and
 * not by timers, so that a busy machine does not change what it sees.
 */
export class FakeEsp {
  readonly source: PortSource
  /** What each reset led to. */
  readonly boots: ('loader' | 'app')[] = []
  #port: MemoryPort | undefined
  #outputs: OutputLines = { dtr: false, rts: false }
  /** When GPIO0 will be looked at. */
  #sampleAtMs: number | undefined
  #mode: 'off' | 'loader' | 'app' = 'app'

  constructor() {
    this.source = memorySource({
      description: { path: 'board', modemLines: true },
      attach: (port) => this.#attach(port),
    })
  }

  #attach(port: MemoryPort): Attachment {
    this.#port = port
    return {
      onBytes: (bytes) => {
        this.#elapse()
        if (this.#mode === 'loader' && bytes[0] === SLIP_END && bytes[2] === SYNC) this.#answerSync()
        return bytes.length
      },
      onRoom: () => {},
      onOutputs: (outputs) => this.#move(outputs),
      onBreak: () => {},
      onClose: () => {},
    }
  }

  #move(outputs: Readonly<OutputLines>): void {
    this.#elapse()
    const wasOff = inReset(this.#outputs)
    this.#outputs = { ...outputs }
    if (inReset(outputs)) {
      this.#sampleAtMs = undefined
      this.#mode = 'off'
    } else if (wasOff) this.#sampleAtMs = performance.now() + SAMPLE_MS
  }

  /** GPIO0 has been until now as the lines still say. */
  #elapse(): void {
    if (this.#sampleAtMs === undefined || performance.now() < this.#sampleAtMs) return
    this.#sampleAtMs = undefined
    this.#mode = this.#outputs.dtr && !this.#outputs.rts ? 'loader' : 'app'
    this.boots.push(this.#mode)
  }

  #answerSync(): void {
    this.#port?.receive(Buffer.from([SLIP_END, 1, SYNC, 2, 0, 0, 0, 0, 0, 0, 0, SLIP_END]))
  }
}

function inReset({ dtr, rts }: Readonly<OutputLines>): boolean {
  return rts && !dtr
}

/** The loader's first command, as a flashing program sends it. */
export const SYNC_COMMAND = Buffer.from([SLIP_END, 0, SYNC, 4, 0, 0, 0, 0, 0, 7, 7, 0x12, 0x20, SLIP_END])
