/**
 * What the descriptors of one round of the event loop have to do, done in one go: so what sixteen ports have received leaves
 * in one packet, not in sixteen.
 */
export class Round {
  #turns: (() => void)[] = []

  /** Calls back later in this round. */
  add(turn: () => void): void {
    if (this.#turns.push(turn) === 1) setImmediate(this.#run)
  }

  readonly #run = (): void => {
    const turns = this.#turns
    this.#turns = []
    for (const [i, turn] of turns.entries())
      try {
        turn()
      } catch (error) {
        // Not the others' fault.
        for (const other of turns.slice(i + 1)) this.add(other)
        throw error
      }
  }
}
