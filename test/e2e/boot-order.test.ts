import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { startFarport } from '../../src/cli/child.ts'
import { linuxPort } from '../../src/device/linux-port.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { farport } from '../support/cli.ts'
import { Pluggable } from '../support/pluggable.ts'
import { TwoHomes } from '../support/two-homes.ts'

/**
 * An agent and a client that can only meet at a relay, each in a network namespace that has no address when they start.
 * Device, relay and network come later, in any order, and nobody gives another command.
 */
function unfit(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return 'network namespaces need Linux and root'
  return spawnSync('ip', ['-V']).status === 0 ? undefined : 'ip is missing: apt-get install iproute2'
}
const reason = unfit()
if (reason !== undefined && process.env.CI) throw new Error(reason)

const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' })
/** Longer than any pause between two tries. */
const STEP_MS = 30_000

type Step = 'network' | 'relay' | 'device'

interface Status {
  ports: { state: string }[]
  relays: { state: string; reason?: string }[]
  links: { state: string; reason?: string }[]
}

async function status(home: string): Promise<Status> {
  const { stdout, code, stderr } = await farport(['status', '--json', '--home', home])
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout) as Status
}

/** Waits until both tell what fits. */
async function both(homes: TwoHomes, what: string, fits: (agent: Status, client: Status) => boolean) {
  const deadline = performance.now() + STEP_MS
  for (;;) {
    const [agent, client] = [await status(homes.agentHome), await status(homes.clientHome)]
    if (fits(agent, client)) return
    if (performance.now() > deadline) assert.fail(`${what}: ${JSON.stringify({ agent, client })}`)
    await delay(250)
  }
}

/** Namespaces of agent, client and relay. The relay has a cable to either, and forwards nothing. */
class Site implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack()
  readonly #names: Readonly<Record<'agent' | 'client' | 'relay', string>>

  constructor() {
    const name = (role: string) => `farport-boot-${process.pid}-${role}`
    this.#names = { agent: name('agent'), client: name('client'), relay: name('relay') }
    for (const namespace of Object.values(this.#names)) {
      ip('netns', 'add', namespace)
      this.#stack.defer(() => void ip('netns', 'del', namespace))
    }
  }

  start(role: 'agent' | 'client' | 'relay', ...args: string[]): ReturnType<typeof startFarport> {
    return this.#stack.use(
      startFarport([...args, '--json'], {
        launch: (program, all, options) =>
          spawn('ip', ['netns', 'exec', this.#names[role], program, ...all], options),
        onLog: () => {},
      }),
    )
  }

  /** Cables, addresses, and the loopback device, which a machine has not from the beginning either. */
  connect(): void {
    const { relay } = this.#names
    for (const [role, net] of [
      ['agent', 1],
      ['client', 2],
    ] as const) {
      const other = this.#names[role]
      ip('link', 'add', `to-${role}`, 'netns', relay, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', other)
      ip('-n', relay, 'addr', 'add', `10.79.${net}.1/24`, 'dev', `to-${role}`)
      ip('-n', other, 'addr', 'add', `10.79.${net}.2/24`, 'dev', 'eth0')
      ip('-n', relay, 'link', 'set', `to-${role}`, 'up')
      ip('-n', other, 'link', 'set', 'eth0', 'up')
    }
    for (const name of Object.values(this.#names)) ip('-n', name, 'link', 'set', 'lo', 'up')
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}

for (const order of [
  ['network', 'relay', 'device'],
  ['device', 'relay', 'network'],
] as const satisfies Step[][]) {
  test(`${order.join(', then ')}: whatever comes last, then bytes flow`, {
    timeout: 180_000,
    skip: reason ?? false,
  }, async () => {
    await using homes = await TwoHomes.make()
    await using site = new Site()
    const relayHome = homes.path('R')
    await mkdir(relayHome, { mode: 0o700 })
    const relayId = (await loadIdentity(relayHome, { create: true })).peerId
    const relayAt = (net: number) => `/ip4/10.79.${net}.1/tcp/4001/p2p/${relayId}`
    await writeFile(join(relayHome, 'trusted_peers'), `agent ${homes.agentId} may=relay\n`, { mode: 0o600 })
    await homes.grant('ports=*')
    await homes.reach([])
    await writeFile(
      join(homes.clientHome, 'trusted_peers'),
      `a ${homes.agentId} addr=${relayAt(2)}/p2p-circuit\n`,
      { mode: 0o600 },
    )
    const pluggable = homes.use(new Pluggable(homes.path('device')))
    const link = homes.path('link')
    await writeFile(
      join(homes.agentHome, 'farport.yaml'),
      `relays: [${relayAt(1)}]\nports: {plc: ${pluggable.path}}\n`,
    )
    await writeFile(join(homes.clientHome, 'farport.yaml'), `links: [{port: a/plc, pty: ${link}}]\n`)
    await writeFile(
      join(relayHome, 'farport.yaml'),
      'listen: [/ip4/0.0.0.0/tcp/4001]\nrelay: {stun: false}\n',
    )

    await site.start('agent', 'up', '--home', homes.agentHome).event('ready')
    await site.start('client', 'up', '--home', homes.clientHome).event('ready')
    await using program = await linuxPort(link).open({})

    const there = new Set<Step>()
    const isThere = (agent: Status, client: Status) => {
      const [port, relay, own] = [agent.ports[0], agent.relays[0], client.links[0]]
      const meets = there.has('network') && there.has('relay')
      if (port?.state !== (there.has('device') ? (meets ? 'open' : 'ready') : 'waiting')) return false
      if ((relay?.state === 'reserved') !== meets) return false
      if (!meets && relay?.reason === undefined) return false
      if (there.size === 3) return own?.state === 'up'
      if (own?.state !== 'down') return false
      return meets
        ? /device|plc/.test(own.reason ?? '') && !/reach/.test(own.reason ?? '')
        : own.reason !== undefined
    }
    await both(homes, 'at the start', isThere)
    let device: Awaited<ReturnType<Pluggable['plug']>> | undefined
    for (const step of order) {
      if (step === 'network') site.connect()
      else if (step === 'device') device = await pluggable.plug()
      else await site.start('relay', 'up', '--home', relayHome).event('ready')
      there.add(step)
      await both(homes, `with ${[...there].join(', ')}`, isThere)
    }
    assert.ok(device)
    program.write('to the device')
    assert.equal(String((await once(device.master, 'data'))[0]), 'to the device')
    device.master.write('from the device')
    assert.equal(String((await once(program, 'data'))[0]), 'from the device')
  })
}
