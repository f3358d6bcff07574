import assert from 'node:assert/strict'
import { on } from 'node:events'
import { test } from 'node:test'
import { linuxPort } from '../../src/device/linux-port.ts'
import { Crossing, type Role } from '../support/crossing.ts'
import { whyNoNatLab } from '../support/nat-lab.ts'

const BACK_WITHIN_MS = 10_000

interface Order {
  readonly killed: readonly Role[]
  /** One after the other; those in one array at once. */
  readonly started: readonly (readonly Role[])[]
}

const USUAL: Order = { killed: ['relay', 'agent'], started: [['agent'], ['relay']] }
const ORDERS: readonly Order[] = [
  USUAL,
  { killed: ['relay'], started: [['relay']] },
  { killed: ['agent'], started: [['agent']] },
  { killed: ['agent', 'relay'], started: [['relay'], ['agent']] },
  { killed: ['relay', 'agent'], started: [['relay', 'agent']] },
  { killed: ['relay', 'agent', 'client'], started: [['client'], ['agent'], ['relay']] },
  { killed: ['client', 'agent', 'relay'], started: [['relay'], ['agent'], ['client']] },
  { killed: ['relay', 'client', 'agent'], started: [['relay', 'agent', 'client']] },
]

for (const { killed, started } of process.env.FARPORT_NAT === 'all' ? ORDERS : [USUAL])
  test(`kill -9 of ${killed.join(', ')}; started again: ${started.map((at) => at.join(' with ')).join(', then ')}`, {
    skip: whyNoNatLab() ?? false,
    timeout: 90_000,
  }, async (t) => {
    await using crossing = await Crossing.up({
      agent: 'portrestricted',
      client: 'portrestricted',
      delayMs: 20,
    })
    let mark = '.'
    const timer = setInterval(() => {
      if (!crossing.device.master.writableNeedDrain) crossing.device.master.write(mark)
    }, 5)
    t.after(() => clearInterval(timer))
    const start = async (role: Role) => {
      switch (role) {
        case 'relay':
          return await crossing.startRelay()
        case 'agent':
          return await crossing.startAgent({ reserved: false })
        case 'client':
          return await crossing.startPty('--wait')
      }
    }
    await start('relay')
    await crossing.startAgent()
    const client = await start('client')
    await using program = await linuxPort(crossing.link).open({})
    await heard(program, '.')
    await client.farport.event('path', ({ kind }) => kind === 'direct')

    for (const role of killed) await crossing.kill(role)
    for (const roles of started.slice(0, -1)) await Promise.all(roles.map(start))
    // What the device says from now on can only be heard if all work again.
    mark = '!'
    const sinceMs = performance.now()
    const last = Promise.all((started.at(-1) ?? []).map(start))
    // Also where the client took its PTY along: a port that is opened by the link's name waits for a new one there.
    await heard(program, '!')
    const ms = Math.round(performance.now() - sinceMs)
    await last
    t.diagnostic(`back after ${ms} ms`)
    assert.ok(ms < BACK_WITHIN_MS, `${ms} ms`)
  })

async function heard(program: NodeJS.ReadableStream, mark: string): Promise<void> {
  for await (const [chunk] of on(program, 'data')) if ((chunk as Buffer).includes(mark)) return
}
