import type { Connection } from '@libp2p/interface'
import { decodeHopStatus, encodeReserve, HOP_PROTOCOL, STATUS } from './circuit-message.ts'
import { readCircuitMessage, writeCircuitMessage } from './circuit-stream.ts'
import { toDuplex } from './duplex.ts'

/** The relay has heard us and does not want to; asking again soon is of no use. */
export class ReservationRefused extends Error {
  override readonly name = 'ReservationRefused'
}

/**
 * Asks a relay to hand us callers on this connection. Spoken here and not by libp2p, whose reservation is lost for good
 * when its connection is, and which gives up on a relay that was down once.
 * @returns for how many seconds, as far as the clocks agree
 * @throws ReservationRefused; another Error when the relay did not answer or can't now
 */
export async function reserve(connection: Connection, signal: AbortSignal): Promise<number> {
  const stream = toDuplex(await openHop(connection, signal))
  try {
    writeCircuitMessage(stream, encodeReserve())
    const { status, expires } = decodeHopStatus(await readCircuitMessage(stream, signal))
    switch (status) {
      case STATUS.OK:
        return (expires ?? 0) - Date.now() / 1000
      case STATUS.PERMISSION_DENIED:
        throw new ReservationRefused('the relay knows us, but may not serve us: ask whoever runs it')
      case STATUS.RESERVATION_REFUSED:
      case STATUS.RESOURCE_LIMIT_EXCEEDED:
        throw new Error('the relay is full')
      default:
        throw new Error(`the relay answered with status ${status}`)
    }
  } finally {
    stream.destroy()
  }
}

async function openHop(connection: Connection, signal: AbortSignal) {
  try {
    return await connection.newStream(HOP_PROTOCOL, { signal })
  } catch (cause) {
    if ((cause as Error).name === 'UnsupportedProtocolError')
      throw new ReservationRefused('what answers there is not a relay', { cause })
    throw cause
  }
}
