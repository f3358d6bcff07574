import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import type { PtyPair } from './pty-pair.ts'
import { Pyserial } from './pyserial.ts'
import { Rfc2217Socket } from './rfc2217-socket.ts'

/** What programs feel of an RFC 2217 server. Each takes HOST:PORT; the device echoes where it says so. */

const TRIPS = 1000
const BURST_BYTES = 60_000
const FLOOD_BYTES = 8 * 1024 * 1024
/** Nothing came for so long: nothing more will. */
const SILENCE_MS = 2_000

const MIB = 1024 * 1024

/** Whether pyserial opens it as it does by itself, without `ign_set_control`. */
export async function opensInPyserial(at: string): Promise<boolean> {
  return await Pyserial.open(`rfc2217://${at}`).then(
    async (program) => {
      await program[Symbol.asyncDispose]()
      return true
    },
    () => false,
  )
}

/** Median time of one byte to a device that echoes and back. */
export async function echoMedianMs(at: string): Promise<number> {
  using program = await Rfc2217Socket.open(at)
  const times: number[] = []
  for (let i = 0; i < TRIPS; i++) {
    const start = performance.now()
    program.send(Uint8Array.of(i & 0x7f))
    await once(program, 'data', { signal: AbortSignal.timeout(SILENCE_MS) })
    times.push(performance.now() - start)
  }
  return times.sort((a, b) => a - b)[TRIPS >> 1] ?? Number.NaN
}

/** A burst of every byte value, written at once to a device that echoes: what came back of it. */
export async function burstEchoed(at: string): Promise<string> {
  using program = await Rfc2217Socket.open(at)
  const burst = Buffer.from(Array.from({ length: BURST_BYTES }, (_, i) => (i * 7 + (i >> 8)) & 0xff))
  const back: Uint8Array[] = []
  let count = 0
  program.on('data', (bytes) => {
    back.push(bytes)
    count += bytes.length
  })
  program.send(burst)
  await untilSilent(() => count, BURST_BYTES)
  const came = Buffer.concat(back)
  if (came.equals(burst)) return `all ${BURST_BYTES} bytes`
  const wrong = burst.findIndex((byte, i) => byte !== came[i])
  return `${came.length} of ${BURST_BYTES} bytes, wrong from byte ${wrong} on`
}

/** Two programs, one of which stops reading: how much the other gets of what the device sends. */
export async function besideStalled(at: string, alsoAt: string, device: PtyPair): Promise<string> {
  using program = await Rfc2217Socket.open(at)
  using stalled = await Rfc2217Socket.open(alsoAt)
  stalled.stopReading()
  let count = 0
  program.on('data', (bytes) => {
    count += bytes.length
  })
  const chunk = Buffer.alloc(MIB / 16, 'farport ')
  let sent = 0
  const send = () => {
    while (sent < FLOOD_BYTES) {
      sent += chunk.length
      if (!device.master.write(chunk)) return void device.master.once('drain', send)
    }
  }
  send()
  await untilSilent(() => count, FLOOD_BYTES)
  return count === FLOOD_BYTES
    ? `all ${FLOOD_BYTES / MIB} MiB`
    : `${(count / MIB).toFixed(1)} of ${FLOOD_BYTES / MIB} MiB, then nothing`
}

/** Waits for `total` bytes, or for the end of them. */
async function untilSilent(count: () => number, total: number): Promise<void> {
  for (let before = -1, same = 0; count() < total && same < SILENCE_MS; before = count()) {
    await delay(50)
    same = count() === before ? same + 50 : 0
  }
}
