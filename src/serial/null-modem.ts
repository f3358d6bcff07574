import { type Attachment, MemoryPort, type MemoryPortOptions, memorySource } from './memory-port.ts'
import type { OutputLines, PortSource } from './port.ts'

type NullModemOptions = Pick<MemoryPortOptions, 'settings' | 'receiveBufferBytes' | 'paced' | 'clock'>

/**
 * Two ports in memory joined by a null-modem cable: TxD to RxD, RTS to CTS, DTR to DSR and DCD, each way; a break arrives
 * as one. A sender waits while the other's buffer is full. Once an end is closed, the lines it drove are low and what is
 * sent to it is lost.
 */
export function nullModem(options: NullModemOptions = {}): [a: MemoryPort, b: MemoryPort] {
  const { a, b } = cable('simulated:null-modem', options)
  return [new MemoryPort(a), new MemoryPort(b)]
}

/** The same cable, with ends that are opened and closed one at a time, each by one program. */
export function nullModemSources(
  path: string,
  options: NullModemOptions = {},
): { a: PortSource; b: PortSource } {
  const { a, b } = cable(path, options)
  return { a: memorySource(a), b: memorySource(b) }
}

function cable(path: string, options: NullModemOptions): { a: MemoryPortOptions; b: MemoryPortOptions } {
  const ends: { a?: MemoryPort; b?: MemoryPort } = {}

  function plugIn(port: MemoryPort, end: 'a' | 'b'): Attachment {
    ends[end] = port
    const far = () => ends[end === 'a' ? 'b' : 'a']
    port.drive(crossed(far()?.outputs ?? RELEASED))
    return {
      onBytes: (bytes) => far()?.receive(bytes) ?? bytes.length,
      onRoom: () => far()?.transmitMore(),
      onOutputs: (outputs) => far()?.drive(crossed(outputs)),
      onBreak: (on) => {
        if (on) far()?.report({ break: 1 })
      },
      onClose: () => {
        delete ends[end]
        far()?.drive(crossed(RELEASED))
        far()?.transmitMore()
      },
    }
  }

  const end = (name: 'a' | 'b'): MemoryPortOptions => ({
    ...options,
    description: { path: `${path}/${name}`, modemLines: true },
    attach: (port) => plugIn(port, name),
  })
  return { a: end('a'), b: end('b') }
}

const RELEASED: OutputLines = { dtr: false, rts: false }

function crossed({ dtr, rts }: OutputLines): { cts: boolean; dsr: boolean; dcd: boolean } {
  return { cts: rts, dsr: dtr, dcd: dtr }
}
