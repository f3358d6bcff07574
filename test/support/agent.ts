import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { pino } from 'pino'
import { FarportError } from '../../src/errors.ts'
import type { MemoryPort } from '../../src/serial/memory-port.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { PortSource, SerialPort } from '../../src/serial/port.ts'
import { PortHost } from '../../src/session/host.ts'
import type { HostedPortStatus } from '../../src/session/hosted-port.ts'
import type { CarrierPath, KeeperOptions } from '../../src/session/keeper.ts'
import { type Listing, portsQuestion, readPorts } from '../../src/session/listing.ts'
import type { HostEvent } from '../../src/session/port-event.ts'
import { openRemotePort, type RemoteEvent, type RemoteMeter } from '../../src/session/remote.ts'
import type { SharedPort } from '../../src/session/shared-port.ts'
import type { Right } from '../../src/trust/grants.ts'
import { CarrierPair } from './carrier.ts'

const log = pino({ level: 'silent' })
const ALL: Right[] = ['watch', 'use', 'configure', 'lines', 'steal']
const DEADLINE_MS = 10_000

type Wish = Pick<KeeperOptions, 'mode' | 'steal' | 'replayBytes' | 'onTaken'> & {
  meter?: RemoteMeter
  peer?: string
  resumeMs?: number
}

export interface Opened {
  readonly port: SerialPort
  readonly events: RemoteEvent[]
  /** Its carriers, the oldest first; `unreachable` keeps new ones from being had. */
  readonly carriers: CarrierPair[]
  unreachable: boolean
  /** New carriers take this path, which has become the best one. */
  prefer(path: CarrierPath): void
}

/** An agent that shares one end of a null-modem cable as `port`; the device is at the other end. */
export class Agent implements AsyncDisposable {
  readonly rights = new Map<string, Set<Right>>()
  readonly told: HostEvent[] = []
  readonly host: PortHost
  /** Called each time the host asks what a peer may do. */
  onAsked = (_peer: string) => {}
  opens = 0
  /** The device opens when it has resolved. */
  slow: Promise<void> | undefined
  isOpen = false
  /** The shared end of the cable, since it was opened last. */
  near: MemoryPort | undefined
  #device: Promise<MemoryPort> | undefined
  readonly #far: PortSource
  readonly #opened: SerialPort[] = []

  constructor(shared: Partial<SharedPort> = {}) {
    const { a, b } = nullModemSources('test')
    this.#far = b
    const source: PortSource = {
      ...a,
      open: async (options) => {
        await this.slow
        const port = await a.open(options)
        this.near = port as MemoryPort
        this.opens++
        this.isOpen = true
        port.once('close', () => {
          this.isOpen = false
        })
        return port
      },
    }
    this.host = new PortHost({
      ports: [{ ...shared, name: 'port', source }],
      rights: (peer) => {
        this.onAsked(peer)
        return this.rights.get(peer) ?? new Set(ALL)
      },
      nameOf: (peer) => `the ${peer}`,
      tell: (event) => void this.told.push(event),
      log,
    })
  }

  /** What the port is wired to. */
  device(): Promise<MemoryPort> {
    this.#device ??= this.#far.open({}) as Promise<MemoryPort>
    return this.#device
  }

  async open({ peer = 'client', resumeMs = 30_000, ...wish }: Wish = {}): Promise<Opened> {
    let path: CarrierPath = { id: 'over the relay', kind: 'relayed' }
    let announce = (_path: CarrierPath) => {}
    const opened = {
      events: [] as RemoteEvent[],
      carriers: [] as CarrierPair[],
      unreachable: false,
      prefer: (better: CarrierPath) => {
        path = better
        announce(better)
      },
    }
    const port = await openRemotePort(
      {
        port: 'port',
        ...wish,
        connect: async () => {
          if (opened.unreachable) throw new Error('no way there')
          const carrier = new CarrierPair()
          opened.carriers.push(carrier)
          void this.host.accept(carrier.b, peer)
          return { stream: carrier.a, path }
        },
        onBestPath: (listener) => {
          announce = listener
          return () => {}
        },
        resumeMs,
        report: (event) => void opened.events.push(event),
        log,
      },
      AbortSignal.timeout(DEADLINE_MS),
    )
    this.#opened.push(port)
    return Object.assign(opened, { port })
  }

  async watch(wish: Wish = {}): Promise<Opened> {
    return await this.open({ peer: 'watcher', mode: 'watch', ...wish })
  }

  async list(peer: string): Promise<Listing | undefined> {
    const carrier = new CarrierPair()
    void this.host.answerPorts(carrier.b, peer)
    carrier.a.write(portsQuestion(undefined))
    const [listing] = await readPorts(carrier.a, AbortSignal.timeout(DEADLINE_MS))
    return listing
  }

  async status(): Promise<HostedPortStatus> {
    return (await this.host.statuses())[0] as HostedPortStatus
  }

  closes(): (HostEvent & { event: 'close' })[] {
    return this.told.filter((event) => event.event === 'close')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const port of this.#opened) port.destroy()
    await this.host[Symbol.asyncDispose]()
    await (await this.#device)?.[Symbol.asyncDispose]()
  }
}

/** What a port has brought so far, growing. */
export function heardBy({ port }: Opened): { text: () => string } {
  const chunks: Buffer[] = []
  port.on('data', (chunk: Buffer) => void chunks.push(chunk))
  return { text: () => Buffer.concat(chunks).toString('latin1') }
}

/** Turns of the event loop until it is so, at most for as long as a test should take. */
export async function until(isSo: () => boolean, what: string): Promise<void> {
  const giveUpAt = performance.now() + DEADLINE_MS
  while (!isSo()) {
    if (performance.now() > giveUpAt) assert.fail(`never: ${what}`)
    await turn()
  }
}

export const refusedWith =
  (code: string, words = /./) =>
  (error: unknown) =>
    error instanceof FarportError && error.code === code && words.test(error.message)
