import { setTimeout as delay } from 'node:timers/promises'
import type { Holdings } from './probe.ts'
import type { FarportProcess } from './process.ts'

const MIB = 1024 * 1024
/** Longer than any time limit of one cycle, such as the 30 s that the last bytes of a program may take. */
const SETTLE_MS = 40_000
/**
 * What a process may have more of after thousands of cycles than after the warm-up: descriptors and timers by those of one
 * cycle that is being cleared away, heap by what V8 has compiled meanwhile. The pages that allocators keep for the next
 * peak grow more and more slowly over some 15,000 quick cycles, while the heap stays as it is.
 */
const MAX_MORE_FDS = 4
const MAX_MORE_RESOURCES = 6
const MAX_MORE_HEAP_BYTES = 6 * MIB
const MAX_MORE_RSS_BYTES = 96 * MIB

/** What processes hold at the start and at the end of many cycles, and whether that is more than it should be. */
export class Ledger {
  readonly #processes: Readonly<Record<string, FarportProcess>>
  readonly #start = new Map<string, Holdings>()

  constructor(processes: Readonly<Record<string, FarportProcess>>) {
    this.#processes = processes
  }

  /** After the warm-up: what is loaded and cached once is there. */
  async open(): Promise<void> {
    await delay(SETTLE_MS)
    for (const [name, process] of Object.entries(this.#processes)) {
      const holdings = await process.measure()
      this.#start.set(name, holdings)
      console.log(`start  ${name}: ${line(holdings)}`)
    }
  }

  /** @throws when something has grown that must not */
  async close(): Promise<void> {
    await delay(SETTLE_MS)
    const grown: string[] = []
    for (const [name, process] of Object.entries(this.#processes)) {
      const before = this.#start.get(name)
      const now = await process.measure()
      console.log(`end    ${name}: ${line(now)}`)
      if (before === undefined) continue
      const grows: [what: string, more: number, most: number][] = [
        ['descriptors', now.fds - before.fds, MAX_MORE_FDS],
        ['resources of its event loop', count(now) - count(before), MAX_MORE_RESOURCES],
        ['bytes of heap', now.heapBytes - before.heapBytes, MAX_MORE_HEAP_BYTES],
        ['bytes of memory', now.rssBytes - before.rssBytes, MAX_MORE_RSS_BYTES],
      ]
      for (const [what, more, most] of grows)
        if (more > most) grown.push(`${name} has ${more} ${what} more than at the start`)
    }
    if (grown.length > 0) throw new Error(grown.join('; '))
  }
}

function line({ fds, resources, rssBytes, heapBytes, bufferBytes }: Holdings): string {
  const kinds = Object.entries(resources).map(([kind, many]) => `${kind} ${many}`)
  const mib = (bytes: number) => `${(bytes / MIB).toFixed(1)} MiB`
  return `${fds} fds, RSS ${mib(rssBytes)}, heap ${mib(heapBytes)}, buffers ${mib(bufferBytes)}, ${kinds.sort().join(', ') || 'no resources'}`
}

function count({ resources }: Holdings): number {
  return Object.values(resources).reduce((sum, many) => sum + many, 0)
}
