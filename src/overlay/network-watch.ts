import { networkInterfaces } from 'node:os'

const TICK_MS = 2_000
/** A tick that comes so much too late was slept through: what was connected before may be gone. */
const SLEPT_MS = 10_000

interface Machine {
  /** Milliseconds since 1970. */
  nowMs(): number
  /** Its addresses in the networks it is in, as one text. */
  addresses(): string
}

const thisMachine: Machine = { nowMs: Date.now, addresses }

/** Calls back when the addresses of this machine have changed, and when it has slept. There is no event for either. */
export function watchNetwork(onChange: () => void, signal: AbortSignal, machine = thisMachine): void {
  let before = machine.addresses()
  let tickedAtMs = machine.nowMs()
  const timer = setInterval(() => {
    const now = machine.addresses()
    const nowMs = machine.nowMs()
    const changed = now !== before || nowMs - tickedAtMs > TICK_MS + SLEPT_MS
    before = now
    tickedAtMs = nowMs
    if (changed) onChange()
  }, TICK_MS)
  timer.unref()
  signal.addEventListener('abort', () => clearInterval(timer), { once: true })
}

function addresses(): string {
  return Object.entries(networkInterfaces())
    .flatMap(([name, all = []]) => all.filter((a) => !a.internal).map((a) => `${name} ${a.cidr}`))
    .sort()
    .join()
}
