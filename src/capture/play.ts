import type { Piece } from './format.ts'

export interface PlayOptions {
  /** 2 is twice as fast as it was; Infinity waits for nothing. */
  speed: number
  signal: AbortSignal
  /** Resolves when there is room for more. */
  write: (bytes: Uint8Array) => Promise<void>
  /** Milliseconds that only go forward. */
  clock?: () => number
}

/** Timers take no more. */
const MAX_WAIT_MS = 2 ** 31 - 1

/**
 * Says again what the device said, when it said it: counted from the first piece, whichever way that went. What it was sent
 * is left out. Answers whether all was said; false when the signal came before.
 * @throws what reading the pieces throws, behind what came before
 */
export async function play(
  pieces: AsyncIterable<Piece>,
  { speed, signal, write, clock = () => performance.now() }: PlayOptions,
): Promise<boolean> {
  const start = clock()
  let firstMs: number | undefined
  for await (const { atMs, direction, bytes } of pieces) {
    firstMs ??= atMs
    if (direction === 'toDevice') continue
    // Clocks are set back at times; what came later stays later.
    const waitMs = start + (atMs - firstMs) / speed - clock()
    if (waitMs > 0) await passed(Math.min(waitMs, MAX_WAIT_MS), signal)
    if (signal.aborted) return false
    await write(bytes)
  }
  return true
}

async function passed(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  const onAbort = () => resolve()
  signal.addEventListener('abort', onAbort)
  await promise
  clearTimeout(timer)
  signal.removeEventListener('abort', onAbort)
}
