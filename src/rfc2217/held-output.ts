/** How much is kept for a peer that said FLOWCONTROL-SUSPEND, in bytes: some hundred answers. */
export const MAX_HELD_BYTES = 8192

const NOTHING = new Uint8Array(0)

type State = { state: 'flowing' } | { state: 'suspended'; held: Uint8Array[]; bytes: number; dropped: number }

/**
 * The way out of one half, which FLOWCONTROL-SUSPEND closes and FLOWCONTROL-RESUME opens. Meanwhile messages wait here up
 * to a bound; those that come on top are dropped and counted, since their askers can't expect answers while they refuse
 * to take any.
 */
export class HeldOutput {
  #state: State = { state: 'flowing' }

  get suspended(): boolean {
    return this.#state.state === 'suspended'
  }

  /** What may be sent now: the bytes, or nothing while suspended. */
  pass(bytes: Uint8Array): Uint8Array {
    const state = this.#state
    if (state.state === 'flowing') return bytes
    if (state.bytes + bytes.length > MAX_HELD_BYTES) state.dropped++
    else {
      state.held.push(bytes)
      state.bytes += bytes.length
    }
    return NOTHING
  }

  suspend(): void {
    if (this.#state.state === 'flowing') this.#state = { state: 'suspended', held: [], bytes: 0, dropped: 0 }
  }

  /** What has waited, in order, and how many messages there was no room for. */
  resume(): { held: readonly Uint8Array[]; dropped: number } {
    const before = this.#state
    this.#state = { state: 'flowing' }
    return before.state === 'flowing' ? { held: [], dropped: 0 } : before
  }
}
