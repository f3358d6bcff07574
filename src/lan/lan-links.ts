import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../log.ts'
import { LanLink, type Network } from './lan-link.ts'

/** Node does not tell when a cable is plugged in or a Wi-Fi joined. */
const SCAN_EVERY_MS = 1_000
/** Machines that run containers have many networks. */
const MAX_LINKS = 16

/** As `os.networkInterfaces()` answers. */
export type Interfaces = NodeJS.Dict<NetworkInterfaceInfo[]>

export interface LanLinksOptions {
  /** Called for each link as it comes up, with a way to ask for all addresses that this machine has. */
  onLink: (link: LanLink, machineAddresses: () => ReadonlySet<string>) => void
  /** This machine's, unless told otherwise. */
  interfaces?: (() => Interfaces) | undefined
  log: Logger
}

/** Multicast DNS on every network of this machine, also on those that come later. */
export class LanLinks implements AsyncDisposable {
  readonly #onLink: LanLinksOptions['onLink']
  readonly #interfaces: () => Interfaces
  readonly #log: Logger
  readonly #links = new Map<string, LanLink>()
  readonly #closed = new AbortController()
  #scanning: Promise<void> = Promise.resolve()
  #machineAddresses: ReadonlySet<string> = new Set()
  #warned = false
  #disposed: Promise<void> | undefined

  private constructor({ onLink, interfaces = networkInterfaces, log }: LanLinksOptions) {
    this.#onLink = onLink
    this.#interfaces = interfaces
    this.#log = log
  }

  /** Resolves when all networks that are there now have been tried. */
  static async open(options: LanLinksOptions): Promise<LanLinks> {
    const links = new LanLinks(options)
    await links.#scan()
    links.#scanning = links.#keepScanning()
    return links
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= this.#dispose()
    await this.#disposed
  }

  async #dispose(): Promise<void> {
    this.#closed.abort()
    await this.#scanning
    await this.#close([...this.#links.keys()])
  }

  async #keepScanning(): Promise<void> {
    const { signal } = this.#closed
    for (;;) {
      await sleep(SCAN_EVERY_MS, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      await this.#scan()
    }
  }

  async #scan(): Promise<void> {
    const interfaces = this.#ask()
    this.#machineAddresses = new Set(
      Object.values(interfaces).flatMap((list = []) => list.map(({ address }) => address)),
    )
    const networks = networksOf(interfaces)
    await this.#close(
      [...this.#links].filter(([key, link]) => !networks.has(key) || link.signal.aborted).map(([key]) => key),
    )
    for (const [key, network] of networks) {
      if (this.#links.size >= MAX_LINKS || this.#closed.signal.aborted) return
      if (this.#links.has(key)) continue
      try {
        const link = await LanLink.open(network, this.#log)
        this.#links.set(key, link)
        this.#onLink(link, () => this.#machineAddresses)
      } catch (err) {
        this.#warn(err, `no mDNS on the network ${network.name}: a code is not found there`)
      }
    }
  }

  /** A service whose system denies it netlink sockets can't list its networks. */
  #ask(): Interfaces {
    try {
      return this.#interfaces()
    } catch (err) {
      this.#warn(err, 'this machine does not tell its networks: a code is not found on them')
      return {}
    }
  }

  /** Everything is tried again with each scan; that it fails need not be said each time. */
  #warn(err: unknown, text: string): void {
    this.#log[this.#warned ? 'debug' : 'warn']({ err }, text)
    this.#warned = true
  }

  async #close(keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      await this.#links.get(key)?.[Symbol.asyncDispose]()
      this.#links.delete(key)
    }
  }
}

/**
 * Those with IPv4, by a key that is another when addresses or hardware are: a socket stays with the interface it has
 * joined, also when that is gone and another has taken its name and addresses.
 */
function networksOf(interfaces: Interfaces): Map<string, Network> {
  const networks = new Map<string, Network>()
  for (const [name, addresses = []] of Object.entries(interfaces))
    if (addresses.some(({ family }) => family === 'IPv4'))
      networks.set(JSON.stringify([name, addresses]), { name, addresses })
  return networks
}
