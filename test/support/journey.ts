import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { linuxPort } from '../../src/device/linux-port.ts'
import { Crossing, type Program } from './crossing.ts'
import { TwoWay } from './two-way.ts'

export interface Stage {
  readonly event: string
  /** Over what the link went when it happened. */
  readonly path: string
  /** The longest time without a byte, either way, from the event to the next one. */
  readonly longestSilenceMs: number
}

export interface Journey {
  readonly stages: readonly Stage[]
  readonly bytes: { up: number; down: number }
}

const BYTES_PER_S = 92_160
/** Longer than the relay is away, and finding it again takes. */
const RESUME_S = 60
const RELAY_AWAY_MS = 10_000
const ARRIVAL_TIMEOUT_MS = 20_000
const CHANGE_TIMEOUT_MS = 20_000

/**
 * One program has one PTY open, at 921600 baud both ways, while all that can happen to the path does.
 * @param calmMs how long to go on after each event
 */
export async function travel(calmMs: number, onStage: (stage: Stage) => void = () => {}): Promise<Journey> {
  await using crossing = await Crossing.up({ agent: 'portrestricted', client: 'portrestricted', delayMs: 20 })
  const { lab } = crossing
  await crossing.startRelay()
  await crossing.startAgent()
  const client = await crossing.startPty('--resume', `${RESUME_S}`)
  await using program = await linuxPort(crossing.link).open({ settings: { baudRate: 921_600 } })
  let closed = false
  program.on('close', () => {
    closed = true
  })
  const traffic = new TwoWay(program, crossing.device.master, BYTES_PER_S)
  const stages: Stage[] = []
  const after = async (event: string, happens: () => Promise<unknown>) => {
    const path = pathOf(client)
    const sinceMs = performance.now()
    await happens()
    await traffic.flows()
    await sleep(calmMs)
    const stage = { event, path, longestSilenceMs: Math.round(traffic.longestSilenceMs(sinceMs)) }
    stages.push(stage)
    onStage(stage)
    traffic.digests()
  }
  try {
    await after('relayed, then direct', () => next(client, 'direct'))
    await after('direct path cut: relayed', async () => {
      const relayed = next(client, 'relayed')
      await lab.cut('a', 'b')
      await relayed
    })
    await after('path healed: direct', async () => {
      const direct = next(client, 'direct')
      await lab.heal('a', 'b')
      await direct
    })
    await after('client has another address', async () => {
      const up = next(client)
      await lab.renumber('b')
      await up
    })
    await after(`relay killed, and back after ${RELAY_AWAY_MS / 1000} s`, async () => {
      await crossing.kill('relay')
      await sleep(RELAY_AWAY_MS)
      await crossing.startRelay()
    })
    await after("agent's router forgets all", () => lab.flush('a'))
    traffic.stop()
    const deadlineMs = performance.now() + ARRIVAL_TIMEOUT_MS
    while (traffic.outstanding > 0 && performance.now() < deadlineMs) await sleep(50)
    const { up, down } = traffic.digests()
    assert.equal(up.got, up.sent, 'from the program to the device')
    assert.equal(down.got, down.sent, 'from the device to the program')
    assert.equal(closed, false, 'the PTY stayed open')
    return { stages, bytes: traffic.bytes }
  } catch (error) {
    for (const { text } of client.logged.slice(-30)) process.stderr.write(`client: ${text}\n`)
    throw error
  } finally {
    traffic.stop()
  }
}

function pathOf({ farport }: Program): string {
  let path = 'none'
  // Looks at what has been said, and finds nothing that it looks for.
  const never = farport.event('link', (event) => {
    if (event.state !== 'dropped') path = String(event.path ?? 'none')
    return false
  })
  never.catch(() => {})
  return path
}

/** Resolves when the link goes on, from now, over a new carrier, of this kind. */
async function next({ farport }: Program, kind?: string): Promise<void> {
  // What has been said already is looked at within the call.
  let past = true
  const event = farport.event(
    'link',
    ({ state, path }) =>
      !past && (state === 'up' || state === 'moved') && (kind === undefined || path === kind),
  )
  past = false
  event.catch(() => {})
  const over = new AbortController()
  const late = sleep(CHANGE_TIMEOUT_MS, undefined, { signal: over.signal }).then(() => {
    throw new Error(`the link did not go on ${kind ?? ''} within ${CHANGE_TIMEOUT_MS} ms`)
  })
  await Promise.race([event, late]).finally(() => over.abort())
}
