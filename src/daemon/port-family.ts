import { basename } from 'node:path'
import type { Share } from '../config/config.ts'
import { type DeviceSearch, deviceSearch, type FoundDevice } from '../device/device-search.ts'
import type { DiscoveredPort } from '../device/discovery.ts'
import type { Logger } from '../log.ts'
import type { SharedPort } from '../session/shared-port.ts'

export interface PortFamilyOptions {
  list: () => Promise<DiscoveredPort[]>
  /** The port called `name` whose device `search` finds from now on, as it has found this one. */
  member: (name: string, device: FoundDevice, search: DeviceSearch) => SharedPort
  log: Logger
}

/** Of one name; adapters that come and never come back must not add up. */
const MAX_MEMBERS = 64
const MAX_NAME = 64

/**
 * The ports that a name with a `*` stands for: one for each device that its search finds, called after the device. A port
 * stays when its device goes, and waits for it.
 */
export class PortFamily {
  readonly share: Share
  readonly #search: DeviceSearch
  readonly #options: PortFamilyOptions
  /** By name; who has been gone for longest first. */
  readonly #members = new Map<string, SharedPort>()
  #crowded = false

  constructor(share: Share, options: PortFamilyOptions) {
    this.share = share
    this.#search = deviceSearch(share.device, options.list)
    this.#options = options
  }

  get ports(): readonly SharedPort[] {
    return [...this.#members.values()]
  }

  /** Looks for devices. Whether `ports` has changed. */
  async look(): Promise<boolean> {
    const { log, member } = this.#options
    const { name: pattern } = this.share
    let changed = false
    const found = await this.#search()
    const here = new Set(found.map((device) => memberName(pattern, device)))
    for (const device of found) {
      const name = memberName(pattern, device)
      const known = this.#members.get(name)
      if (known !== undefined) {
        this.#members.delete(name)
        this.#members.set(name, known)
        continue
      }
      if (!this.#hasRoom(here)) {
        if (!this.#crowded)
          log.warn(
            { ports: pattern, device: device.path, most: MAX_MEMBERS },
            'too many devices for one name',
          )
        this.#crowded = true
        continue
      }
      const search = async () => (await this.#search()).filter((other) => memberName(pattern, other) === name)
      this.#members.set(name, member(name, device, search))
      log.info({ port: name, device: device.path }, 'a device is shared')
      changed = true
    }
    return changed
  }

  /** Whoever has been gone for longest makes room. */
  #hasRoom(here: ReadonlySet<string>): boolean {
    if (this.#members.size < MAX_MEMBERS) return true
    const gone = [...this.#members.keys()].find((name) => !here.has(name))
    return gone !== undefined && this.#members.delete(gone)
  }
}

/**
 * What stays with the device: its serial number, and which of its ports this is. A device without a number is called after its
 * by-id link, or else as the system calls it today.
 */
export function memberName(pattern: string, { port }: FoundDevice): string {
  const { usb, usbPart, byId, path } = port
  const own = usb?.serialNumber
    ? [usb.serialNumber, usbPart].filter((part) => part !== undefined).join('-')
    : basename(byId ?? path).replace(/^usb-/, '')
  const safe = own.replaceAll(/[^A-Za-z0-9_.-]+/g, '-')
  const name = pattern.replace('*', () => safe).replace(/^[^A-Za-z0-9]+/, '')
  return name.slice(0, MAX_NAME) || 'port'
}
