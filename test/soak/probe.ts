/**
 * Loaded into a farport by `--import`: answers each message over the IPC channel with what the process holds on to. So
 * what is measured is farport as it is, and not a part of it in a process of ours.
 */
import { readdirSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

const ROUNDS = 4
const BETWEEN_ROUNDS_MS = 500

/** How the process is, after its garbage was collected. */
export interface Holdings {
  readonly fds: number
  /** What keeps its event loop busy, by kind, as process.getActiveResourcesInfo() tells it. */
  readonly resources: Readonly<Record<string, number>>
  readonly rssBytes: number
  readonly heapBytes: number
  /** Of buffers, outside the heap. */
  readonly bufferBytes: number
}

function holdings(): Holdings {
  globalThis.gc?.()
  const resources: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1
  const { rss, heapUsed, arrayBuffers } = process.memoryUsage()
  // One less: reading the directory takes a descriptor.
  return {
    fds: readdirSync('/proc/self/fd').length - 1,
    resources,
    rssBytes: rss,
    heapBytes: heapUsed,
    bufferBytes: arrayBuffers,
  }
}

process.on('message', async () => {
  // What finalizers and weak references let go of takes several rounds.
  for (let round = 0; round < ROUNDS; round++) {
    globalThis.gc?.()
    await delay(BETWEEN_ROUNDS_MS)
  }
  process.send?.(holdings())
})
// A farport ends when it has nothing to do; listening for us is nothing.
process.channel?.unref()
