import { isDeepStrictEqual } from 'node:util'
import type { Share } from '../config/config.ts'
import { isFamilyName } from '../config/port-name.ts'
import { type DiscoveredPort, listPorts } from '../device/discovery.ts'
import { foundPort } from '../device/found-port.ts'
import { portSource } from '../device/source.ts'
import type { Logger } from '../log.ts'
import type { Cables } from '../serial/simulated.ts'
import { parseTcpAddress } from '../serial/tcp-dial.ts'
import { foreignPort } from '../session/foreign-port.ts'
import type { SharedPort } from '../session/shared-port.ts'
import { PortFamily } from './port-family.ts'

const RFC2217 = 'rfc2217://'
/** Devices that a name with a `*` stands for are looked for this often. */
const LOOK_MS = 2_000

export interface SharedPortsOptions {
  log: Logger
  /** The serial ports of this machine. */
  list?: () => Promise<DiscoveredPort[]>
  lookMs?: number
}

type Entry =
  | { readonly share: Share; readonly port: SharedPort }
  | { readonly share: Share; readonly family: PortFamily }

/** The ports that a config shares, with what is known of their devices; these need not be there. */
export class SharedPorts {
  readonly #log: Logger
  readonly #list: () => Promise<DiscoveredPort[]>
  readonly #lookMs: number
  /** The two ends of a simulated cable meet here. */
  readonly #cables: Cables = new Map()
  #entries: readonly Entry[] = []
  #apply: (ports: readonly SharedPort[]) => Promise<void> = async () => {}
  /** Changes wait for each other. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor({ log, list = listPorts, lookMs = LOOK_MS }: SharedPortsOptions) {
    this.#log = log
    this.#list = joined(list)
    this.#lookMs = lookMs
  }

  static async start(shares: readonly Share[], options: SharedPortsOptions): Promise<SharedPorts> {
    const ports = new SharedPorts(options)
    await ports.become(shares)
    return ports
  }

  /** Those now; a port that has a name of its own goes before one that a `*` gives the same name. */
  get ports(): readonly SharedPort[] {
    const named = new Map<string, SharedPort>()
    for (const entry of this.#entries) if ('port' in entry) named.set(entry.port.name, entry.port)
    for (const entry of this.#entries)
      for (const port of 'family' in entry ? entry.family.ports : [])
        if (!named.has(port.name)) named.set(port.name, port)
    return [...named.values()]
  }

  /** Whose devices are not there now. */
  async absent(): Promise<{ port: string; device: string }[]> {
    const present = await Promise.all(
      this.#entries.map((entry) =>
        'port' in entry ? entry.port.source.present() : entry.family.ports.length > 0,
      ),
    )
    return this.#entries
      .filter((_, i) => !present[i])
      .map(({ share }) => ({ port: share.name, device: share.device }))
  }

  /** Hands over the ports whenever they change, until it is disposed of. */
  follow(apply: (ports: readonly SharedPort[]) => Promise<void>): AsyncDisposable {
    this.#apply = apply
    let looking = Promise.resolve()
    const timer = setInterval(() => {
      looking = this.look().catch((err) => this.#log.warn({ err }, 'devices could not be looked for'))
    }, this.#lookMs).unref()
    return {
      [Symbol.asyncDispose]: async () => {
        clearInterval(timer)
        await looking
        await this.#turn.catch(() => {})
        this.#apply = async () => {}
      },
    }
  }

  /** Looks for the devices of names with a `*`. */
  look(): Promise<void> {
    return this.#inTurn(async () => {
      const changes = await this.#lookForAll()
      if (changes.includes(true)) await this.#apply(this.ports)
    })
  }

  /** Shares these from now on. What is equal to before is the same object as before. */
  become(shares: readonly Share[]): Promise<{ added: number; removed: number; kept: number }> {
    return this.#inTurn(async () => {
      const known = shares.length > 0 ? await this.#list() : []
      const before = this.#entries
      const kept: Entry[] = []
      this.#entries = shares.map((share) => {
        const same = before.find((entry) => isDeepStrictEqual(entry.share, share))
        if (same !== undefined) kept.push(same)
        return same ?? this.#entryOf(share, known)
      })
      await this.#lookForAll()
      await this.#apply(this.ports)
      return {
        added: shares.length - kept.length,
        removed: before.length - kept.length,
        kept: kept.length,
      }
    })
  }

  async #lookForAll(): Promise<boolean[]> {
    const families = this.#entries.flatMap((entry) => ('family' in entry ? [entry.family] : []))
    if (families.length === 0) return []
    return await Promise.all(families.map((family) => family.look()))
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(change, change)
    this.#turn = done.catch(() => {})
    return done
  }

  #entryOf(share: Share, known: readonly DiscoveredPort[]): Entry {
    const { name, device } = share
    const options = optionsOf(share)
    const log = this.#log
    // On-close says how the lines are to be left.
    const linux = { log, restoreLines: share.onClose === undefined }
    if (isFamilyName(name))
      return {
        share,
        family: new PortFamily(share, {
          list: this.#list,
          member: (name, { path, port }, search) => ({
            name,
            source: foundPort(path, search, { ...linux, description: knownOf(port) }),
            ...options,
          }),
          log,
        }),
      }
    if (device.startsWith(RFC2217)) {
      const source = foreignPort(parseTcpAddress(device.slice(RFC2217.length)), { log })
      return { share, port: { name, source, ...options } }
    }
    const found = known.find(({ path, byId, byPath }) => [path, byId, byPath].includes(device))
    const description = knownOf(found)
    const source = portSource(device, { cables: this.#cables, description, ...linux })
    return { share, port: { name, source, ...options } }
  }
}

function knownOf(found: DiscoveredPort | undefined): Pick<DiscoveredPort, 'driver' | 'usb'> {
  return { ...(found?.driver && { driver: found.driver }), ...(found?.usb && { usb: found.usb }) }
}

/** Those who ask while it looks get what it finds: the status of many ports is one look. */
function joined<T>(look: () => Promise<T>): () => Promise<T> {
  let looking: Promise<T> | undefined
  return () => {
    looking ??= look().finally(() => {
      looking = undefined
    })
    return looking
  }
}

function optionsOf(share: Share): Omit<SharedPort, 'name' | 'source'> {
  const { reset, pack, replayBytes, banner, idleTimeoutMs, watchers } = share
  const { line, flow, onOpen, onClose, openString, closeString } = share
  const settings = { ...line, ...(flow && { outputFlow: flow, inputFlow: flow }) }
  return {
    ...(reset && { reset }),
    ...(pack && { pack }),
    ...(replayBytes !== undefined && { replayBytes }),
    ...(banner !== undefined && { banner }),
    ...(idleTimeoutMs !== undefined && { idleTimeoutMs }),
    ...(watchers !== undefined && { watchers }),
    habits: {
      ...(Object.keys(settings).length > 0 && { settings }),
      ...(onOpen && { openLines: onOpen }),
      ...(onClose && { closeLines: onClose }),
      ...(openString !== undefined && { openString }),
      ...(closeString !== undefined && { closeString }),
    },
  }
}
