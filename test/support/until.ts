import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'

const DEADLINE_MS = 10_000
const LOOK_MS = 5

/** Waits for what nobody tells of, such as a change of another program's termios, by looking again and again. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const start = performance.now()
  while (!holds()) {
    if (performance.now() - start > DEADLINE_MS) assert.fail(`not within ${DEADLINE_MS / 1000} s: ${what}`)
    await delay(LOOK_MS)
  }
}
