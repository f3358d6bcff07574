import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { PATH_PROTOCOL } from '../../src/direct/direct-paths.ts'
import { FarportError } from '../../src/errors.ts'
import {
  decodeHopStatus,
  encodeReserve,
  HOP_PROTOCOL,
  STATUS,
  STOP_PROTOCOL,
} from '../../src/overlay/circuit-message.ts'
import { readCircuitMessage, writeCircuitMessage } from '../../src/overlay/circuit-stream.ts'
import type { Overlay } from '../../src/overlay/node.ts'
import { askDirectory, DIRECTORY_PROTOCOL } from '../../src/relay/directory.ts'
import { RELAY_PROTOCOL, readWelcome, writeHello } from '../../src/relay/vouch-message.ts'
import { SERIAL_PROTOCOL } from '../../src/session/hello.ts'
import { PORTS_PROTOCOL } from '../../src/session/listing.ts'
import { PING_PROTOCOL } from '../../src/session/ping.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { PAIR_PROTOCOL } from '../../src/trust/pairing.ts'
import { ROTATE_PROTOCOL } from '../../src/trust/rotation.ts'
import { freePort } from '../overlay/network.ts'
import { deadline, startNode } from '../overlay/nodes.ts'
import { relayIs } from '../overlay/relay-nodes.ts'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** How many knock while a paired client works. */
const STRANGERS = Number(process.env.FARPORT_STRANGERS ?? 100)
/** At a time. */
const AT_ONCE = 25

/** A relay, an agent that only it can reach, and a client that the agent knows: three processes. */
class Site implements AsyncDisposable {
  readonly homes: TwoHomes
  readonly relayId: string
  readonly relayAddress: string
  readonly relayPid: number

  private constructor(homes: TwoHomes, relayId: string, relayAddress: string, relayPid: number) {
    this.homes = homes
    this.relayId = relayId
    this.relayAddress = relayAddress
    this.relayPid = relayPid
  }

  static async make(): Promise<Site> {
    const homes = await TwoHomes.make()
    const home = homes.path('R')
    const { peerId } = await loadIdentity(home, { create: true })
    const trusted = { mode: 0o600 }
    await writeFile(`${home}/trusted_peers`, `agent ${homes.agentId} may=relay\n`, trusted)
    const address = `/ip4/127.0.0.1/tcp/${await freePort()}`
    const relay = homes.start(['relay', '--listen', address, '--no-stun', '--home', home])
    await relay.event('ready')
    const site = new Site(homes, peerId, `${address}/p2p/${peerId}`, relay.pid)
    await homes.grant('ports=*')
    const line = `a ${homes.agentId} addr=${site.relayAddress}/p2p-circuit\n`
    await writeFile(`${homes.clientHome}/trusted_peers`, line, trusted)
    const share = ['share', 'simulated:echo=echo', '--listen', 'none', '--relay', site.relayAddress]
    const agent = homes.start([...share, '--home', homes.agentHome])
    await agent.event('relay', ({ state }) => state === 'reserved')
    return site
  }

  get agentId(): string {
    return this.homes.agentId
  }

  /** Opens the agent's door to strangers; disposal ends the invite. */
  async openDoor(...flags: string[]) {
    const invite = this.homes.start(['invite', 'echo', ...flags, '--home', this.homes.agentHome])
    const { text } = (await invite.event('invite')) as unknown as { text: string }
    return Object.assign(invite, { text })
  }

  async toRelay(node: Overlay, protocol: string): Promise<Duplex> {
    const addresses = [this.relayAddress]
    return (await node.open(this.relayId, protocol, { addresses, signal: deadline() })).stream
  }

  async toAgent(node: Overlay, protocol: string): Promise<Duplex> {
    const addresses = [`${this.relayAddress}/p2p-circuit`]
    return (await node.open(this.agentId, protocol, { addresses, signal: deadline() })).stream
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.homes[Symbol.asyncDispose]()
  }
}

/** A node with a key that nobody has ever seen. */
const stranger = () => startNode({ listen: [] })

/** Asks for a reservation on a stream, and answers with the status. */
async function askToReserve(stream: Duplex): Promise<number> {
  writeCircuitMessage(stream, encodeReserve())
  const { status } = decodeHopStatus(await readCircuitMessage(stream, deadline()))
  stream.destroy()
  return status
}

async function askToVouch(stream: Duplex): Promise<void> {
  stream.on('error', () => {})
  writeHello(stream)
  await readWelcome(stream, deadline()).finally(() => stream.destroy())
}

/** What comes on a stream until it is closed by the other side, also when it never opens. */
async function gotOn(opening: Promise<Duplex>, said = 'hello?'): Promise<string> {
  const stream = await opening.catch((error: unknown) => {
    assert.ok(error instanceof FarportError, String(error))
    return undefined
  })
  if (stream === undefined) return ''
  let got = ''
  stream
    .on('error', () => {})
    .on('data', (bytes) => {
      got += bytes
    })
  stream.write(said)
  if (!stream.closed) await once(stream, 'close', { signal: deadline() })
  return got
}

const refused = { code: 'ERR_NOT_TRUSTED' }

test('while every door is shut, a stranger gets no reservation, no call and no answer', async () => {
  await using site = await Site.make()
  await using node = await stranger()
  for (const protocol of [HOP_PROTOCOL, RELAY_PROTOCOL, DIRECTORY_PROTOCOL, PAIR_PROTOCOL])
    await assert.rejects(site.toRelay(node, protocol), refused, protocol)
  await assert.rejects(site.toAgent(node, PAIR_PROTOCOL), { code: 'ERR_PEER_UNREACHABLE' })

  await using squatter = await startNode({ listen: [], relays: [site.relayAddress] })
  const { reason } = await relayIs(squatter, 'refused')
  assert.match(reason ?? '', /does not know this machine's key/)
  assert.deepEqual(squatter.addresses(), [])
})

test('whom an agent vouches for may call that agent, and is nothing else to the relay', async () => {
  await using site = await Site.make()
  const { seed } = await loadIdentity(site.homes.clientHome, { create: false })
  await using client = await startNode({ listen: [], seed })
  assert.equal(await askToReserve(await site.toRelay(client, HOP_PROTOCOL)), STATUS.PERMISSION_DENIED)
  await assert.rejects(askToVouch(await site.toRelay(client, RELAY_PROTOCOL)), { code: 'ERR_NOT_GRANTED' })
  const other = await loadIdentity(site.homes.path('X'), { create: true })
  const addresses = [`${site.relayAddress}/p2p-circuit`]
  await assert.rejects(client.open(other.peerId, PORTS_PROTOCOL, { addresses, signal: deadline() }), {
    message: /that relay does not let us call it/,
  })
  // It is let through where it may go.
  const stream = await site.toAgent(client, PORTS_PROTOCOL)
  stream.destroy()
})

test('while an invite is open, a stranger comes through to pair, and for nothing else', async () => {
  await using site = await Site.make()
  const invite = await site.openDoor('--code')
  await using node = await stranger()
  // At the relay:
  assert.equal(await askToReserve(await site.toRelay(node, HOP_PROTOCOL)), STATUS.PERMISSION_DENIED)
  await assert.rejects(askToVouch(await site.toRelay(node, RELAY_PROTOCOL)), { code: 'ERR_NOT_GRANTED' })
  for (const protocol of [PATH_PROTOCOL, SERIAL_PROTOCOL, PORTS_PROTOCOL, STOP_PROTOCOL])
    assert.equal(await gotOn(site.toRelay(node, protocol)), '', protocol)
  const nameplate = invite.text.slice(0, 3)
  const other = nameplate === '999' ? '100' : String(Number(nameplate) + 1)
  const ask = async (which: string) =>
    await askDirectory(await site.toRelay(node, DIRECTORY_PROTOCOL), which, deadline())
  assert.deepEqual(await ask(other), [])
  assert.deepEqual(await ask(nameplate), [site.agentId])

  // At the agent, through the relay:
  for (const protocol of [
    SERIAL_PROTOCOL,
    PORTS_PROTOCOL,
    PATH_PROTOCOL,
    PING_PROTOCOL,
    ROTATE_PROTOCOL,
    RELAY_PROTOCOL,
    DIRECTORY_PROTOCOL,
    HOP_PROTOCOL,
    STOP_PROTOCOL,
  ])
    assert.equal(await gotOn(site.toAgent(node, protocol)), '', protocol)
  // The search bites: the one protocol that is served answers a stranger, if only that it speaks nonsense.
  const pairing = await site.toAgent(node, PAIR_PROTOCOL)
  const [path] = node.paths(site.agentId)
  assert.equal(path?.kind, 'relayed')
  pairing.destroy()
  const paired = await farport(['pair', '--relay', site.relayAddress, '--home', site.homes.path('J')], {
    input: invite.text,
  })
  assert.equal(paired.code, 0, paired.stderr)
  assert.equal(await invite.ended, 0)

  // The door is shut again.
  await using late = await stranger()
  await assert.rejects(site.toRelay(late, DIRECTORY_PROTOCOL), refused)
})

test('who opens connections and says nothing takes nobody else a place', async () => {
  await using site = await Site.make()
  const port = Number(site.relayAddress.split('/')[4])
  const silent: Socket[] = []
  using stack = new DisposableStack()
  stack.defer(() => {
    for (const socket of silent) socket.destroy()
  })
  for (let i = 0; i < 200; i++) {
    const socket = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.77' }).on('error', () => {})
    silent.push(socket)
  }
  await Promise.all(silent.map((socket) => once(socket, 'connect', { signal: deadline() }).catch(() => {})))
  const ports = await farport(['ports', 'a', '--home', site.homes.clientHome])
  assert.equal(ports.code, 0, ports.stderr)
  assert.match(ports.stdout, /echo/)
})

/** Processor time and memory of a process. */
function usage(pid: number): { cpuMs: number; rssMiB: number } {
  const [utime = 0, stime = 0] = (readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1] ?? '')
    .split(' ')
    .slice(11, 13)
    .map(Number)
  const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
  return { cpuMs: (utime + stime) * 10, rssMiB: Number(rss) / 1024 }
}

/** Sends a byte and waits for it, again and again; afterwards, what it saw. */
class Worker implements AsyncDisposable {
  worstMs = 0
  trips = 0
  readonly #socket: Socket
  readonly #over = new AbortController()
  readonly #running: Promise<void>

  constructor(socket: Socket) {
    this.#socket = socket
    this.#running = this.#run()
  }

  async #run(): Promise<void> {
    const { signal } = this.#over
    while (!signal.aborted) {
      const byte = this.trips % 256
      const since = performance.now()
      this.#socket.write(Buffer.of(byte))
      const [answer] = (await once(this.#socket, 'data')) as [Buffer]
      assert.deepEqual([...answer], [byte])
      this.worstMs = Math.max(this.worstMs, performance.now() - since)
      this.trips++
      await sleep(10, undefined, { signal }).catch(() => {})
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort()
    await this.#running
    this.#socket.destroy()
  }
}

test(`${STRANGERS} strangers knock while a paired client works`, {
  timeout: 60_000 + STRANGERS * 200,
  skip: process.platform === 'linux' ? false : 'only Linux has /proc',
}, async (t) => {
  await using site = await Site.make()
  const client = await site.homes.connect('a/echo', '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  socket.write('?')
  await once(socket, 'data', { signal: deadline() })
  const before = usage(site.relayPid)
  const worker = new Worker(socket)
  let knocked = 0
  /** What a stranger was let do. */
  const got: string[] = []
  const knock = async () => {
    while (knocked < STRANGERS) {
      knocked++
      await using node = await startNode({ listen: [], seed: randomBytes(32) })
      const tries = {
        reserve: async () =>
          assert.equal(await askToReserve(await site.toRelay(node, HOP_PROTOCOL)), STATUS.OK),
        call: async () => void (await site.toAgent(node, SERIAL_PROTOCOL)),
      }
      for (const [name, attempt] of Object.entries(tries))
        await attempt().then(
          () => got.push(name),
          () => {},
        )
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, knock))
  await worker[Symbol.asyncDispose]()
  assert.deepEqual(got, [])
  const after = usage(site.relayPid)
  const figures = {
    strangers: STRANGERS,
    trips: worker.trips,
    worstMs: Math.round(worker.worstMs),
    relayCpuMsPerStranger: Math.round((after.cpuMs - before.cpuMs) / STRANGERS),
    rssMiBBefore: Math.round(before.rssMiB),
    rssMiBAfter: Math.round(after.rssMiB),
  }
  t.diagnostic(JSON.stringify(figures))
  assert.ok(worker.trips > 20, `${worker.trips} round trips`)
  assert.ok(worker.worstMs < 3_000, `${worker.worstMs} ms`)
  // What is not collected yet; it does not grow with the number of strangers.
  assert.ok(after.rssMiB - before.rssMiB < 192, `${before.rssMiB} MiB before, ${after.rssMiB} MiB after`)
})
