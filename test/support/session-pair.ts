import type { Duplex } from 'node:stream'
import { pino } from 'pino'
import type { PortSource, SerialPort } from '../../src/serial/port.ts'
import { PortHost } from '../../src/session/host.ts'
import { openRemotePort, type RemoteEvent } from '../../src/session/remote.ts'
import type { Right } from '../../src/trust/grants.ts'
import { CarrierPair } from './carrier.ts'

const log = pino({ level: 'silent' })

/** An agent's host and clients of it in one process, joined by carriers in memory that can be cut. */
export class SessionPair implements AsyncDisposable {
  rights: ReadonlySet<Right> = new Set<Right>(['watch', 'use', 'configure', 'lines'])
  readonly host: PortHost
  readonly events: RemoteEvent[] = []
  /** When set, no new carrier can be had. */
  unreachable: Error | undefined
  readonly #carriers = new Set<CarrierPair>()

  constructor(ports: Record<string, PortSource>) {
    this.host = new PortHost({
      ports: Object.entries(ports).map(([name, source]) => ({ name, source })),
      rights: () => this.rights,
      log,
    })
  }

  open(
    port: string,
    { peer = 'client', resumeMs = 30_000, signal = AbortSignal.timeout(5_000) } = {},
  ): Promise<SerialPort> {
    return openRemotePort(
      {
        port,
        connect: async () => this.connect(peer),
        resumeMs,
        report: (event) => void this.events.push(event),
        log,
      },
      signal,
    )
  }

  /** A stream to the host, as if `peer` had opened it. */
  connect(peer = 'client'): Duplex {
    if (this.unreachable !== undefined) throw this.unreachable
    const carrier = new CarrierPair()
    this.#carriers.add(carrier)
    carrier.a.once('close', () => this.#carriers.delete(carrier))
    void this.host.accept(carrier.b, peer)
    return carrier.a
  }

  /** Cuts every carrier there is, without a word to either side beyond the loss itself. */
  cut(): void {
    for (const carrier of this.#carriers) carrier.cut()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.host[Symbol.asyncDispose]()
  }
}
