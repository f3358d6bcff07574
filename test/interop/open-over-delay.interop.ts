/** What pyserial's steps cost on the local RFC 2217 port when the device is far away: figures, and how many round trips at most. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { missingPyserial } from '../support/pyserial.ts'
import { SlowPath } from '../support/slow-path.ts'
import { TwoHomes } from '../support/two-homes.ts'

const missing = missingPyserial()
if (missing !== undefined && process.env.CI) throw new Error(missing)

const ONE_WAY_MS = 50
const ROUND_TRIP_MS = 2 * ONE_WAY_MS

/** Times each step in milliseconds and prints them as JSON. */
const STEPS = `
import json, serial, sys, time
def timed(step):
    start = time.monotonic()
    step()
    return round(1000 * (time.monotonic() - start))
ms = {}
port = serial.serial_for_url(sys.argv[1], do_not_open=True, baudrate=115200, timeout=5)
ms['open'] = timed(port.open)
def line(name, value):
    return lambda: setattr(port, name, value)
ms['dtr'] = timed(line('dtr', False))
ms['rts'] = timed(line('rts', False))
ms['break'] = timed(line('break_condition', True))
timed(line('break_condition', False))
ms['purge rx'] = timed(port.reset_input_buffer)
ms['purge tx'] = timed(port.reset_output_buffer)
ms['baudrate'] = timed(line('baudrate', 57600))
port.write(b'hello')
ms['echo'] = timed(lambda: port.read(5))
print(json.dumps(ms))
`

test(`pyserial over a path with ${ROUND_TRIP_MS} ms there and back: open() takes 3 round trips at most, lines and purges none`, {
  skip: missing ?? false,
  timeout: 60_000,
}, async (t) => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  const agent = await homes.share('simulated:echo=near', 'simulated:echo=far')
  const proxy = homes.use(
    await SlowPath.to(Number(/tcp\/(\d+)/.exec(agent.addresses[0] ?? '')?.[1]), { delayMs: 0 }),
  )
  await homes.reach([`/ip4/127.0.0.1/tcp/${proxy.port}`])
  const [nearAt = '', farAt = ''] = await Promise.all(
    ['a/near', 'a/far'].map(async (port) => {
      const client = await homes.connect(port, '--rfc2217', '127.0.0.1:0')
      return client.links[0]?.at
    }),
  )
  const near = await run(nearAt)
  proxy.options.delayMs = ONE_WAY_MS
  const far = await run(farAt)
  t.diagnostic(`without delay, ms: ${JSON.stringify(near)}`)
  t.diagnostic(`with ${ONE_WAY_MS} ms each way, ms: ${JSON.stringify(far)}`)
  const roundTrips = (step: string) =>
    ((far[step] ?? Number.NaN) - (near[step] ?? Number.NaN)) / ROUND_TRIP_MS
  t.diagnostic(`open() took ${roundTrips('open').toFixed(1)} round trips more than without delay`)
  // pyserial looks for answers each 50 ms, so one that comes a little late costs it half a round trip.
  assert.ok(roundTrips('open') < 3.75, `open() took ${far.open} ms, without delay ${near.open} ms`)
  for (const step of ['dtr', 'rts', 'break', 'purge rx', 'purge tx'])
    assert.ok(roundTrips(step) < 0.8, `${step} took ${far[step]} ms, without delay ${near[step]} ms`)
  assert.ok((far.baudrate ?? 0) >= ROUND_TRIP_MS, 'settings are answered by the far end')
})

async function run(at: string): Promise<Record<string, number>> {
  const { stdout } = await promisify(execFile)('/usr/bin/python3', ['-c', STEPS, `rfc2217://${at}`], {
    timeout: 30_000,
  })
  return JSON.parse(stdout) as Record<string, number>
}
