import type { TrustStore } from '../trust/trust-store.ts'

/** The names in trusted_peers, also of those whose line went with the last change: what is cut off is told by name. */
export class PeerNames {
  readonly #trust: TrustStore
  #now: ReadonlyMap<string, string> = new Map()
  #before: ReadonlyMap<string, string> = new Map()

  constructor(trust: TrustStore) {
    this.#trust = trust
    this.refresh()
  }

  of(peerId: string): string | undefined {
    return this.#trust.byId(peerId)?.name ?? this.#now.get(peerId) ?? this.#before.get(peerId)
  }

  /** After each change. */
  refresh(): void {
    this.#before = this.#now
    this.#now = new Map(this.#trust.peers().map(({ peerId, name }) => [peerId, name]))
  }
}
