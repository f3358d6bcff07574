import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { linuxPort } from '../../src/device/linux-port.ts'
import { Crossing, type Program } from './crossing.ts'
import type { NatCell } from './nat-cells.ts'

/** How a direct path came to be: by a plain dial, or by both sides opening at the same time. */
export type Method = 'dial' | 'simultaneous open'

export interface Crossed {
  /** From the start of `farport connect` to the first byte of the device at a program that has opened the PTY. */
  readonly firstByteMs: number
  /** From the same start to the port being used over a direct path; without it the search has failed, or taken too long. */
  readonly directMs?: number
  readonly method?: Method
  /** Why there is no direct path. */
  readonly reason?: string
}

const FIRST_BYTE_TIMEOUT_MS = 20_000
const DIRECT_TIMEOUT_MS = 20_000

/** Starts a relay, an agent and then a client, and follows that until it is direct, or has tried to be. */
export async function cross({ options, expected }: NatCell, delayMs: number): Promise<Crossed> {
  // That a search has failed, and why, is only told to whoever wants to know everything.
  const clientLog = expected === 'relayed' ? 'debug' : 'info'
  await using crossing = await Crossing.up({ ...options, delayMs, clientLog })
  await crossing.startRelay()
  await crossing.startAgent()
  using _ = chatter(crossing)
  const client = await crossing.startPty()
  await using program = await linuxPort(crossing.link).open({})
  await once(program, 'data', { signal: AbortSignal.timeout(FIRST_BYTE_TIMEOUT_MS) })
  const firstByteMs = Math.round(performance.now() - client.startedAtMs)
  const direct = client.farport
    .event('path', ({ kind }) => kind === 'direct')
    .then(() => Math.round(performance.now() - client.startedAtMs))
  direct.catch(() => {})
  const failed = searchFails(client)
  const directMs = await Promise.race([direct, failed.then(() => undefined)])
  if (directMs === undefined) return { firstByteMs, reason: (await failed) ?? 'nothing was found in time' }
  // The port works there, too.
  await once(program, 'data', { signal: AbortSignal.timeout(FIRST_BYTE_TIMEOUT_MS) })
  const way = logged(client, 'found a direct path')?.way
  return { firstByteMs, directMs, method: way === 'punched' ? 'simultaneous open' : 'dial' }
}

/** A device that says something every few milliseconds, so that waiting for it takes no time. */
function chatter({ device }: Crossing): Disposable {
  const timer = setInterval(() => {
    if (!device.master.writableNeedDrain) device.master.write('.')
  }, 5)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

async function searchFails(client: Program): Promise<string | undefined> {
  const deadlineMs = performance.now() + DIRECT_TIMEOUT_MS
  while (performance.now() < deadlineMs) {
    const failure = logged(client, 'no direct path')
    if (failure !== undefined) return (failure.err as { message: string }).message
    await sleep(20, undefined, { ref: false })
  }
  return undefined
}

function logged({ logged: lines }: Program, message: string): Record<string, unknown> | undefined {
  const line = lines.find(({ text }) => text.includes(`"msg":"${message}"`))
  return line && (JSON.parse(line.text) as Record<string, unknown>)
}
