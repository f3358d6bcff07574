import { FarportError } from '../errors.ts'
import { gps } from './gps.ts'
import { type Attachment, type MemoryPort, memorySource } from './memory-port.ts'
import { nullModemSources } from './null-modem.ts'
import type { PortSource } from './port.ts'

/** A receive buffer like a small driver's: a program that comes late to a GPS does not want to hear an hour of it. */
const GPS_BUFFER_BYTES = 4096
const MAX_GPS_RATE_HZ = 10

/** The null-modem cables of one program, by name; both ends of a cable must be looked up in the same one. */
export type Cables = Map<string, { a: PortSource; b: PortSource }>

export interface SimulatedOptions {
  cables?: Cables
  /** Milliseconds since 1970. */
  clock?: () => number
}

/**
 * A device that isn't there, for trying things out and for tests. `kind` is what follows `simulated:`
 *
 *   gps, gps?hz=5        a GPS receiver under way, one to ten times a second
 *   echo                 a loop plug: TxD to RxD, RTS to CTS, DTR to DSR and DCD
 *   null-modem/NAME/a    one end of the cable NAME; the other is null-modem/NAME/b
 */
export function simulatedPort(kind: string, options: SimulatedOptions = {}): PortSource {
  const { cables = new Map(), clock = Date.now } = options
  const path = `simulated:${kind}`
  const description = { path, modemLines: true }

  const receiver = /^gps(?:\?hz=(\d+))?$/.exec(kind)
  if (receiver) {
    const rateHz = Number(receiver[1] ?? 1)
    if (rateHz < 1 || rateHz > MAX_GPS_RATE_HZ)
      throw new FarportError('ERR_USAGE', `${path}: hz is a whole number from 1 to ${MAX_GPS_RATE_HZ}.`)
    return memorySource({ description, attach: gps(rateHz, clock), receiveBufferBytes: GPS_BUFFER_BYTES })
  }

  if (kind === 'echo') return memorySource({ description, attach: loopPlug })

  const [, name, end] = /^null-modem\/([^/]+)\/([ab])$/.exec(kind) ?? []
  if (name && (end === 'a' || end === 'b')) {
    const cable = cables.get(name) ?? nullModemSources(`simulated:null-modem/${name}`)
    cables.set(name, cable)
    return cable[end]
  }

  throw new FarportError(
    'ERR_USAGE',
    `There is no ${path}; there are simulated:gps, simulated:echo and simulated:null-modem/NAME/a and /b.`,
  )
}

/** The plug that serial ports are tested with. What is not read in time holds the sender back, so no byte is lost. */
function loopPlug(port: MemoryPort): Attachment {
  return {
    onBytes: (bytes) => port.receive(bytes),
    onRoom: () => port.transmitMore(),
    onOutputs: ({ dtr, rts }) => port.drive({ cts: rts, dsr: dtr, dcd: dtr }),
    onBreak: (on) => {
      if (on) port.report({ break: 1 })
    },
    onClose: () => {},
  }
}
