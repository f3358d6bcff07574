import { relayOf } from './relay-address.ts'

/** Relays of peers we dialed lately; a forgotten one is remembered again by the next dial. */
const MAX_PASSING = 256

/** Relays may be dialed although nobody trusts them, because an address that we were given leads through them. */
export class KnownRelays {
  readonly #ours: ReadonlySet<string>
  readonly #passing = new Set<string>()

  /** @param ours those that hand us callers */
  constructor(ours: Iterable<string>) {
    this.#ours = new Set(ours)
  }

  /** Whether we asked it to hand us callers. */
  isOurs(peerId: string): boolean {
    return this.#ours.has(peerId)
  }

  has(peerId: string): boolean {
    return this.#ours.has(peerId) || this.#passing.has(peerId)
  }

  /** Remembers the relays that these addresses lead through. */
  add(addresses: readonly string[]): void {
    for (const relay of addresses.map(relayOf)) {
      if (relay === undefined) continue
      // Back to the end: the one that was not needed for longest is forgotten first.
      this.#passing.delete(relay)
      this.#passing.add(relay)
      if (this.#passing.size > MAX_PASSING)
        this.#passing.delete(this.#passing.values().next().value as string)
    }
  }
}
