import { randomInt } from 'node:crypto'
import { BlockList } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../log.ts'
import type { LanLink } from './lan-link.ts'
import { type Interfaces, LanLinks } from './lan-links.ts'
import {
  encodeAnswer,
  encodeGoodbye,
  encodeQuestion,
  isLanAddress,
  type LanPeer,
  MAX_ADDRESSES,
  readMessage,
} from './lan-message.ts'

export type { LanPeer } from './lan-message.ts'

/** Said unasked so long after the one before, since Wi-Fi loses multicast (RFC 6762, section 8.3). */
const ANNOUNCE_AFTER_MS = [0, 1_000, 2_000]
/** Nothing is said more often on a network (section 6), */
const MIN_INTERVAL_MS = 1_000
/** and several that answer the same question don't do it at the same instant. */
const ANSWER_AFTER_MS = { min: 20, max: 120 }
/** Between the first two questions; from then on twice as long each time (section 5.2). */
const ASK_AGAIN_MS = 1_000
const MAX_ASK_AGAIN_MS = 60 * 60_000
/** Two of 900 nameplates are seldom the same, so that more than a few are somebody's mischief. */
const MAX_PEERS = 16

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

interface LanOptions {
  /** Which of the machine's networks to use, for those who do not want all. */
  interfaces?: () => Interfaces
  log: Logger
}

export interface LanAnnouncement extends LanOptions {
  /** Three digits. */
  nameplate: string
  peerId: string
  /**
   * Asked each time: where this peer listens, with or without its `/p2p/…`. Each network is told those that belong to it
   * (all of them for `0.0.0.0` and `::`) and those that belong to no network of this machine, such as a host name.
   */
  addresses: () => readonly string[]
}

/**
 * Tells the LANs of this machine that a nameplate is ours, when it starts and to whoever asks, until it is disposed of.
 * Resolves also where there is no network, and then waits for one.
 */
export async function announceOnLan(options: LanAnnouncement): Promise<AsyncDisposable> {
  const announcers = new Set<Announcer>()
  let over = false
  const links = await LanLinks.open({
    ...options,
    onLink: (link, machineAddresses) => {
      if (over) return
      const announcer = new Announcer(link, machineAddresses, options)
      announcers.add(announcer)
      link.signal.addEventListener('abort', () => announcers.delete(announcer), { once: true })
    },
  })
  return {
    async [Symbol.asyncDispose]() {
      over = true
      await Promise.all([...announcers].map((announcer) => announcer[Symbol.asyncDispose]()))
      await links[Symbol.asyncDispose]()
    },
  }
}

/**
 * Asks the LANs of this machine for a nameplate and yields who answers, until the signal is aborted. Nothing of it is
 * proven: anybody there may answer. A peer comes again when it has more addresses, and then with only those.
 */
export async function* findOnLan(
  nameplate: string,
  { signal, interfaces, log }: LanOptions & { signal: AbortSignal },
): AsyncGenerator<LanPeer, void, undefined> {
  if (signal.aborted) return
  const findings = new Findings(log)
  await using links = await LanLinks.open({
    interfaces,
    log,
    onLink: (link) => {
      link.on('packet', ({ bytes, own }) => {
        const message = readMessage(bytes, nameplate)
        if (message?.type !== 'answer') return
        for (const { peerId, addresses } of message.peers)
          findings.add({ peerId, addresses: own ? addresses : addresses.filter((one) => !isLoopback(one)) })
      })
      void ask(link, nameplate)
    },
  })
  // At once, also while the caller is busy with what it got.
  const stop = () => void links[Symbol.asyncDispose]()
  signal.addEventListener('abort', stop, { once: true })
  try {
    while (!signal.aborted) {
      const peer = findings.next()
      if (peer === undefined) await findings.wait(signal)
      else yield peer
    }
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** What one network is told. */
class Announcer implements AsyncDisposable {
  readonly #link: LanLink
  readonly #machineAddresses: () => ReadonlySet<string>
  readonly #options: LanAnnouncement
  readonly #stopped = new AbortController()
  #saidAtMs = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined

  constructor(link: LanLink, machineAddresses: () => ReadonlySet<string>, options: LanAnnouncement) {
    this.#link = link
    this.#machineAddresses = machineAddresses
    this.#options = options
    link.signal.addEventListener('abort', () => this.#stop(), { once: true })
    link.on('packet', ({ bytes }) => this.#receive(bytes))
    void this.#announce()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop()
    const { nameplate, peerId } = this.#options
    if (this.#saidAtMs > 0) await this.#link.send(encodeGoodbye(nameplate, peerId))
  }

  async #announce(): Promise<void> {
    const { signal } = this.#stopped
    for (const afterMs of ANNOUNCE_AFTER_MS) {
      await sleep(afterMs, undefined, { signal }).catch(() => {})
      this.#sayIn(0)
    }
  }

  #receive(bytes: Uint8Array): void {
    const { nameplate, peerId } = this.#options
    const message = readMessage(bytes, nameplate)
    if (message?.type !== 'question' || message.known.includes(peerId)) return
    this.#sayIn(randomInt(ANSWER_AFTER_MS.min, ANSWER_AFTER_MS.max + 1))
  }

  /** All who ask meanwhile are answered together. */
  #sayIn(delayMs: number): void {
    if (this.#stopped.signal.aborted) return
    const pauseMs = this.#saidAtMs + MIN_INTERVAL_MS - performance.now()
    this.#timer ??= setTimeout(() => this.#say(), Math.max(delayMs, pauseMs))
  }

  #say(): void {
    this.#timer = undefined
    const { nameplate, peerId } = this.#options
    const addresses = this.#addresses()
    if (addresses.length === 0) return
    this.#saidAtMs = performance.now()
    void this.#link.send(encodeAnswer(nameplate, { peerId, addresses }))
  }

  #addresses(): string[] {
    const { peerId, addresses } = this.#options
    const machine = this.#machineAddresses()
    const suffix = `/p2p/${peerId}`
    const all = addresses()
      .map((address) => (address.endsWith(suffix) ? address.slice(0, -suffix.length) : address))
      .flatMap((address) => this.#withoutWildcard(address))
      .filter(isLanAddress)
    const here = all.filter((address) => this.#link.addresses.includes(hostOf(address)))
    const nowhere = all.filter((address) => !machine.has(hostOf(address)) && !isLoopback(address))
    return [...new Set([...here, ...nowhere])].slice(0, MAX_ADDRESSES)
  }

  #withoutWildcard(address: string): string[] {
    const [, any, port] = /^(\/ip4\/0\.0\.0\.0|\/ip6\/::)(\/tcp\/\d+)$/.exec(address) ?? []
    if (any === undefined) return [address]
    const kind = any.slice(1, 4)
    return this.#link.addresses
      .filter((host) => host.includes(':') === (kind === 'ip6'))
      .map((host) => `/${kind}/${host}${port}`)
  }

  #stop(): void {
    this.#stopped.abort()
    clearTimeout(this.#timer)
  }
}

/**
 * Asks until the link is closed. It never says whom it knows already: then somebody could keep a peer from answering by
 * answering first in its name.
 */
async function ask(link: LanLink, nameplate: string): Promise<void> {
  for (let waitMs = ASK_AGAIN_MS; !link.signal.aborted; waitMs = Math.min(2 * waitMs, MAX_ASK_AGAIN_MS)) {
    await link.send(encodeQuestion(nameplate))
    await sleep(waitMs, undefined, { signal: link.signal }).catch(() => {})
  }
}

/** Who was found, each address once, and who of them has not been asked for yet. */
class Findings {
  readonly #log: Logger
  readonly #addresses = new Map<string, Set<string>>()
  readonly #waiting: LanPeer[] = []
  #arrived = Promise.withResolvers<void>()
  #full = false

  constructor(log: Logger) {
    this.#log = log
  }

  add({ peerId, addresses }: LanPeer): void {
    const known = this.#addresses.get(peerId) ?? new Set()
    const fresh = addresses.filter((address) => !known.has(address)).slice(0, MAX_ADDRESSES - known.size)
    if (fresh.length === 0) return
    if (known.size === 0 && this.#addresses.size >= MAX_PEERS) {
      if (!this.#full)
        this.#log.warn('too many on this network say that the code is theirs: some are ignored')
      this.#full = true
      return
    }
    this.#addresses.set(peerId, new Set([...known, ...fresh]))
    this.#waiting.push({ peerId, addresses: fresh })
    this.#arrived.resolve()
  }

  next(): LanPeer | undefined {
    return this.#waiting.shift()
  }

  /** Until there is another one, or the signal is aborted. */
  async wait(signal: AbortSignal): Promise<void> {
    this.#arrived = Promise.withResolvers()
    if (signal.aborted || this.#waiting.length > 0) return
    const abort = () => this.#arrived.resolve()
    signal.addEventListener('abort', abort, { once: true })
    await this.#arrived.promise
    signal.removeEventListener('abort', abort)
  }
}

function hostOf(address: string): string {
  return address.split('/')[2] ?? ''
}

function isLoopback(address: string): boolean {
  const host = hostOf(address)
  if (address.startsWith('/dns')) return /^(.*\.)?localhost$/i.test(host)
  return LOOPBACK.check(host, host.includes(':') ? 'ipv6' : 'ipv4')
}
