import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { linuxPort } from '../../src/device/linux-port.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { SlowPath } from '../support/slow-path.ts'
import { TwoHomes } from '../support/two-homes.ts'

const DEADLINE_MS = 20_000
const FRAMES = 10
/** The pieces of a frame come apart on the way, by as much as the path is unsteady. */
const JITTER_MS = 15
const GAP_MS = 100

/** What a program that writes a frame in two pieces lets pass between them. */
const PAUSE_MS = 3

/** A Modbus RTU request or answer: eight bytes, some of them such that telnet has to escape them. */
function frame(n: number): Buffer {
  return Buffer.from([n + 1, 3, 0xff, n, 0xff, 0xff, 0x0d, 0xf0 + (n % 16)])
}

test('Modbus frames arrive whole through PTYs at both ends, over a path that cuts and delays', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=plc')
  const { addresses } = await homes.share(`${device.slavePath}=plc,pack.gap=${GAP_MS}ms`)
  const [, port = ''] = /\/tcp\/(\d+)/.exec(addresses[0] ?? '') ?? []
  const path = homes.use(await SlowPath.to(Number(port), { delayMs: 5, jitterMs: JITTER_MS, splitBytes: 7 }))
  await homes.reach([`/ip4/127.0.0.1/tcp/${path.port}`])
  await homes.connect('a/plc', '--pty', homes.path('link'))
  const master = homes.use(await linuxPort(homes.path('link')).open({}))
  const deadline = AbortSignal.timeout(DEADLINE_MS)

  for (let n = 0; n < FRAMES; n++) {
    const request = once(device.master, 'data', { signal: deadline })
    master.write(frame(n).subarray(0, 3))
    await delay(PAUSE_MS)
    master.write(frame(n).subarray(3))
    assert.deepEqual((await request)[0], frame(n), `request ${n}`)

    const answer = once(master, 'data', { signal: deadline })
    device.master.write(frame(n + 100).subarray(0, 5))
    await delay(PAUSE_MS)
    device.master.write(frame(n + 100).subarray(5))
    assert.deepEqual((await answer)[0], frame(n + 100), `answer ${n}`)
  }
})
