import type { Duplex } from 'node:stream'
import { pino } from 'pino'
import type { PortSource, SerialPort } from '../../src/serial/port.ts'
import { PortHost } from '../../src/session/host.ts'
import type { CarrierPath } from '../../src/session/keeper.ts'
import type { HostEvent } from '../../src/session/port-event.ts'
import { openRemotePort, type RemoteEvent } from '../../src/session/remote.ts'
import type { Right } from '../../src/trust/grants.ts'
import { type CarrierOptions, CarrierPair } from './carrier.ts'

const log = pino({ level: 'silent' })

export const RELAYED: CarrierPath = { id: 'over the relay', kind: 'relayed' }
export const DIRECT: CarrierPath = { id: 'straight', kind: 'direct' }

/** An agent's host and clients of it in one process, joined by carriers in memory that can be cut, over several paths. */
export class SessionPair implements AsyncDisposable {
  rights: ReadonlySet<Right> = new Set<Right>(['watch', 'use', 'configure', 'lines'])
  readonly host: PortHost
  readonly events: RemoteEvent[] = []
  /** When set, no new carrier can be had. */
  unreachable: Error | undefined
  /** What was done on the host, and which paths were suspected. */
  readonly told: HostEvent[] = []
  readonly suspected: string[] = []
  readonly #carriers = new Map<CarrierPair, CarrierPath | undefined>()
  readonly #carrierOptions: () => CarrierOptions
  readonly #listeners = new Set<(path: CarrierPath) => void>()
  #path: CarrierPath | undefined

  constructor(ports: Record<string, PortSource>, carrierOptions: () => CarrierOptions = () => ({})) {
    this.#carrierOptions = carrierOptions
    this.host = new PortHost({
      ports: Object.entries(ports).map(([name, source]) => ({ name, source })),
      rights: () => this.rights,
      tell: (event) => void this.told.push(event),
      log,
    })
  }

  open(
    port: string,
    {
      peer = 'client',
      resumeMs = 30_000,
      signal = AbortSignal.timeout(5_000),
      clock,
    }: { peer?: string; resumeMs?: number; signal?: AbortSignal; clock?: () => number } = {},
  ): Promise<SerialPort> {
    return openRemotePort(
      {
        port,
        connect: async () => ({ stream: this.connect(peer), ...(this.#path && { path: this.#path }) }),
        onBestPath: (listener) => {
          this.#listeners.add(listener)
          return () => void this.#listeners.delete(listener)
        },
        suspect: ({ id }) => void this.suspected.push(id),
        resumeMs,
        ...(clock && { clock }),
        report: (event) => void this.events.push(event),
        log,
      },
      signal,
    )
  }

  /** A stream to the host, as if `peer` had opened it. */
  connect(peer = 'client'): Duplex {
    if (this.unreachable !== undefined) throw this.unreachable
    const carrier = new CarrierPair(this.#carrierOptions())
    this.#carriers.set(carrier, this.#path)
    carrier.a.once('close', () => this.#carriers.delete(carrier))
    void this.host.accept(carrier.b, peer)
    return carrier.a
  }

  /** New carriers take this path; nobody is told. */
  usePath(path: CarrierPath): void {
    this.#path = path
  }

  /** New carriers take this path, which has become the best one. */
  prefer(path: CarrierPath): void {
    this.usePath(path)
    this.announce(path)
  }

  announce(path: CarrierPath): void {
    for (const listener of this.#listeners) listener(path)
  }

  /** Those there are, or those over one path; the oldest first. */
  carriers(path?: CarrierPath): CarrierPair[] {
    const all = [...this.#carriers.entries()]
    return all.filter(([, over]) => path === undefined || over?.id === path.id).map(([carrier]) => carrier)
  }

  /** Cuts every carrier there is, without a word to either side beyond the loss itself. */
  cut(): void {
    for (const carrier of this.carriers()) carrier.cut()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.host[Symbol.asyncDispose]()
  }
}
