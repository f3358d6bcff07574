interface Packet {
  readonly dueMs: number
  readonly bytes: Buffer
}

/** So many delivered packets are forgotten at once: to shift each from the front would move all that are behind it. */
const FORGET_AT_ONCE = 1024

/** Packets on their way, in order, each with the time at which it arrives. Whoever adds keeps count: it has no cap of its own. */
export class PacketQueue {
  #packets: Packet[] = []
  /** Where those begin that have not arrived. */
  #head = 0

  get packets(): number {
    return this.#packets.length - this.#head
  }

  /** Infinity when nothing is on its way. */
  get nextDueMs(): number {
    return this.#packets[this.#head]?.dueMs ?? Number.POSITIVE_INFINITY
  }

  /** Keeps a copy of the packet. No packet overtakes another: `dueMs` must not be less than that of the one before. */
  add(dueMs: number, packet: Buffer): void {
    this.#packets.push({ dueMs, bytes: Buffer.from(packet) })
  }

  /** Hands out all that have arrived by now. */
  deliver(nowMs: number, to: (packet: Buffer) => void): void {
    for (;;) {
      const next = this.#packets[this.#head]
      if (next === undefined || next.dueMs > nowMs) break
      to(next.bytes)
      this.#head++
    }
    if (this.#head < FORGET_AT_ONCE) return
    this.#packets = this.#packets.slice(this.#head)
    this.#head = 0
  }
}
