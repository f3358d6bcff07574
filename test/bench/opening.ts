import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { missingPyserial } from '../support/pyserial.ts'
import { SlowPath } from '../support/slow-path.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { LOOPBACK } from './hosts.ts'
import { type Measured, type Part, reached } from './part.ts'
import { freePort, missingPackages, Rig } from './rig.ts'

const ROUND_TRIP_MS = 100

const OPEN = `
import serial, sys, time
port = serial.serial_for_url(sys.argv[1], do_not_open=True, baudrate=115200, timeout=5)
start = time.monotonic()
port.open()
print(1000 * (time.monotonic() - start))
`

/** Milliseconds that pyserial's open() takes, the median of three. */
async function openMs(url: string): Promise<number> {
  const took: number[] = []
  for (let i = 0; i < 3; i++) {
    const { stdout } = await promisify(execFile)('/usr/bin/python3', ['-c', OPEN, url], { timeout: 30_000 })
    took.push(Number(stdout))
    // The port is free again a round trip after it was closed.
    await delay(1_000)
  }
  return took.toSorted((a, b) => a - b)[1] as number
}

/** The far end's port, and what pyserial opens: each with a path in between whose delay can be set. */
type Setup = (rig: Rig) => Promise<{ path: SlowPath; url: string }>

async function farport(rig: Rig): Promise<{ path: SlowPath; url: string }> {
  const homes = rig.use(await TwoHomes.make())
  await homes.grant('ports=*')
  const agent = await homes.share(`${await rig.device('opened')}=p`)
  const port = Number(/tcp\/(\d+)/.exec(agent.addresses[0] ?? '')?.[1])
  const path = rig.use(await SlowPath.to(port, { delayMs: 0 }))
  await homes.reach([`/ip4/127.0.0.1/tcp/${path.port}`])
  const client = await homes.connect('a/p', '--rfc2217', '127.0.0.1:0')
  return { path, url: `rfc2217://${client.links[0]?.at}` }
}

async function ser2net(rig: Rig): Promise<{ path: SlowPath; url: string }> {
  const device = await rig.device('opened-ser2net')
  const served = await freePort()
  const config = rig.path('opening.yaml')
  writeFileSync(
    config,
    `connection: &c
  accepter: telnet(rfc2217),tcp,127.0.0.1,${served}
  connector: serialdev,${device},115200n81,local
  options:
    kickolduser: true
`,
  )
  rig.start('ser2net', ['-n', '-c', config])
  await LOOPBACK.far.listens(served)
  const path = rig.use(await SlowPath.to(served, { delayMs: 0 }))
  // Without it pyserial gives up: ser2net leaves requests for lines unanswered that a device does not have.
  return { path, url: `rfc2217://127.0.0.1:${path.port}?ign_set_control` }
}

const SETUPS: Readonly<Record<'farport' | 'ser2net, RFC 2217', Setup>> = {
  farport,
  'ser2net, RFC 2217': ser2net,
}

/** How long pyserial takes to open a port that is far away: the delay's share of it, in round trips. */
export const opening: Part = {
  name: 'opening',
  names: ['opening'],
  whyNot: () => {
    const missing = missingPackages(['ser2net'])
    return missingPyserial() ?? (missing.length > 0 ? `apt-get install ${missing.join(' ')}` : undefined)
  },
  async measure(run): Promise<Measured> {
    await using rig = new Rig()
    const results: { stack: string; nearMs: number; farMs: number; roundTrips: number }[] = []
    for (const [stack, setUp] of Object.entries(SETUPS)) {
      const { path, url } = await setUp(rig)
      const nearMs = Math.round(await openMs(url))
      path.options.delayMs = ROUND_TRIP_MS / 2
      const farMs = Math.round(await openMs(url))
      const roundTrips = Number(((farMs - nearMs) / ROUND_TRIP_MS).toFixed(1))
      results.push({ stack, nearMs, farMs, roundTrips })
      run.say(lineOf(results.at(-1) as (typeof results)[number]))
    }
    const ours = results.find(({ stack }) => stack === 'farport')
    const what = `pyserial’s open() over ${ROUND_TRIP_MS} ms`
    return {
      results,
      lines: results.map(lineOf),
      bars: ours === undefined ? [] : [reached(what, ours.roundTrips, 'round trips', '≤ 3')],
    }
  },
}

function lineOf(it: { stack: string; nearMs: number; farMs: number; roundTrips: number }): string {
  return `${it.stack.padEnd(36)} ${it.nearMs} ms without delay, ${it.farMs} ms over ${ROUND_TRIP_MS} ms: ${it.roundTrips} round trips`
}
