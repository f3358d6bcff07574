import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pino } from 'pino'
import type { Config } from '../../src/config/config.ts'
import { type Daemon, type InviteEvent, startDaemon } from '../../src/daemon/daemon.ts'

const log = pino({ level: 'silent' })

/** A daemon on a free port of the loopback address, in a home of its own. */
async function started(shares: Config['shares']) {
  await using stack = new AsyncDisposableStack()
  const home = await mkdtemp(join(tmpdir(), 'farport-daemon-'))
  stack.defer(() => rm(home, { recursive: true, force: true }))
  const config: Config = {
    home,
    listen: ['/ip4/127.0.0.1/tcp/0'],
    shares,
    links: [],
    wait: false,
    lasting: true,
  }
  const signal = AbortSignal.timeout(20_000)
  const daemon: Daemon = stack.use(await startDaemon(config, { log, signal, report: () => {} }))
  const parts = stack.move()
  return { daemon, config, signal, [Symbol.asyncDispose]: () => parts.disposeAsync() }
}

/** The ports of an invite that names none, or those that it does. */
async function invited(daemon: Daemon, ports: string[], until: AbortSignal): Promise<readonly string[]> {
  const stop = new AbortController()
  const events: InviteEvent[] = []
  await daemon.invite(
    { form: 'ticket', ports, may: ['use'] },
    (event) => {
      events.push(event)
      stop.abort()
    },
    AbortSignal.any([until, stop.signal]),
  )
  const [first] = events
  assert.equal(first?.event, 'invite')
  return first.ports
}

test('an invite that names no ports is to those that are shared now, also after another configuration', async () => {
  const [gps, plc] = [
    { name: 'gps', device: 'simulated:gps' },
    { name: 'plc', device: 'simulated:echo' },
  ]
  await using agent = await started([gps])
  const { daemon, config, signal } = agent
  assert.deepEqual(await invited(daemon, [], signal), ['gps'])
  const report = await daemon.become({ ...config, shares: [gps, plc] })
  assert.deepEqual(report.ports, { added: 1, removed: 0, kept: 1 })
  assert.deepEqual(await invited(daemon, [], signal), ['gps', 'plc'])
  assert.deepEqual(await invited(daemon, ['plc'], signal), ['plc'])
  await daemon.become({ ...config, shares: [] })
  assert.deepEqual((await daemon.status()).ports, [])
})
