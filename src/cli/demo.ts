import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import { portSource } from '../device/source.ts'
import { FarportError } from '../errors.ts'
import { appendPeer, recordPeer } from '../trust/append-peer.ts'
import { loadIdentity } from '../trust/identity.ts'
import { startFarport } from './child.ts'
import { EchoCheck } from './echo-check.ts'
import type { Output } from './output.ts'
import { type CommonFlags, run } from './run.ts'

interface DemoFlags extends CommonFlags {
  seconds?: number
}

type Farport = ReturnType<typeof startFarport>

/** A client that has the agent's ports, over the relay as soon as a program opens one. */
interface Stage {
  readonly client: Farport
  /** What the client calls the agent. */
  readonly agent: string
  /** The ports' virtual serial ports. */
  readonly gps: string
  readonly echo: string
}

const LOOPBACK = '/ip4/127.0.0.1/tcp/0'
/** Left alone, it would be direct before there is anything to see. */
const RELAYED_S = 0.7
/** That its relay is not there yet, an agent would warn of. */
const QUIET = ['--log-level', 'error']
/** From the first byte over the relay; it mostly takes a tenth of a second. */
const DIRECT_WITHIN_MS = 15_000
/** The echo goes on for so long after the change, to be measured and counted on the new path, too. */
const AFTERWARDS_MS = 300

export const demoCommand = new Command('demo')
  .description(
    'everything at once on this machine: a simulated GPS, an agent, a relay, a client with another key, live NMEA',
  )
  .option('--seconds <n>', 'end after so many seconds (default: at Ctrl-C)', (text) => {
    const value = Number(text)
    if (!(value > 0)) throw new InvalidArgumentError('A number of seconds.')
    return value
  })
  .action((flags: DemoFlags) =>
    run(flags, async ({ output, signal }) => {
      await using stack = new AsyncDisposableStack()
      const stage = await setStage(stack, output)
      await showDirectPath(stage, output)
      const end =
        flags.seconds === undefined
          ? signal
          : AbortSignal.any([signal, AbortSignal.timeout(flags.seconds * 1000)])
      await showSentences(stage.gps, output, end)
    }),
  )

/** Starts a relay, an agent and a client, each a process with a key of its own. */
async function setStage(stack: AsyncDisposableStack, output: Output): Promise<Stage> {
  const dir = await mkdtemp(join(tmpdir(), 'farport-demo-'))
  stack.defer(() => rm(dir, { recursive: true, force: true }))
  const [relayHome, agentHome, clientHome] = ['relay', 'agent', 'client'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ]
  const start = (args: string[], options?: { input: string }) =>
    stack.use(startFarport([...args, '--json'], options))

  const { peerId: relayId } = await loadIdentity(relayHome, { create: true })
  const { peerId } = await loadIdentity(agentHome, { create: true })
  await appendPeer(relayHome, { name: 'agent', peerId, ports: [], may: ['relay'], addrs: [] })
  const relayAt = `/ip4/127.0.0.1/tcp/${await freePort()}`
  const relayAddress = `${relayAt}/p2p/${relayId}`
  // Both at once: an agent waits for its relay.
  const relay = start(['relay', '--listen', relayAt, '--no-stun', '--home', relayHome])
  const sharing = ['--listen', LOOPBACK, '--relay', relayAddress, '--loopback', '0', '--home', agentHome]
  const agent = start(['share', 'simulated:gps=gps', 'simulated:echo=echo', ...sharing, ...QUIET])
  const { addresses } = (await relay.event('ready')) as unknown as Ready
  output.event(
    'relay',
    { pid: relay.pid, peerId: relayId, addresses },
    `relay   ${relayId} is where agent and client meet`,
  )
  const shared = (await agent.event('ready')) as unknown as Ready
  output.event(
    'agent',
    { pid: agent.pid, peerId, addresses: shared.addresses },
    `agent   ${peerId} shares a simulated GPS as "gps", and a loop plug as "echo"`,
  )

  const invite = start(['invite', 'gps', 'echo', '--code', '--home', agentHome])
  const { text } = (await invite.event('invite')) as unknown as { text: string }
  const pair = start(['pair', '--relay', relayAddress, '--home', clientHome], { input: text })
  if ((await pair.ended) !== 0)
    throw new FarportError('ERR_INTERNAL', 'the client could not pair with the agent')
  const { name } = (await pair.result) as { name: string }
  output.event('paired', { name }, `paired  by the code ${text}, which is spent now`)
  // As it is between two networks: the relay is all that the client knows of the agent.
  const addrs = [`${relayAddress}/p2p-circuit`]
  await recordPeer(clientHome, { name, peerId, ports: [], may: [], addrs }, Date.now())

  const [gps, echo] = [join(dir, 'gps'), join(dir, 'echo')]
  const links = ['--pty', gps, '--pty', echo]
  // It waits for a program to open one, and so calls nobody before.
  const client = start([
    'connect',
    `${name}/gps`,
    `${name}/echo`,
    ...links,
    '--wait',
    '--loopback',
    `${RELAYED_S}`,
    '--home',
    clientHome,
  ])
  await client.event('ready')
  output.event('client', { pid: client.pid, pty: gps }, `client  has them as ${gps} and ${echo}`)
  return { client, agent: name, gps, echo }
}

/** Has bytes go round while the client finds its way from the relay to the agent itself, and counts them. */
async function showDirectPath({ client, agent, echo }: Stage, output: Output): Promise<void> {
  await using port = await portSource(echo).open({ settings: { baudRate: 115_200 } })
  const startedAtMs = performance.now()
  const check = new EchoCheck(port)
  const relayed = await pathOf(client, 'relayed')
  output.event('path', relayed, describePath(relayed))
  const ofEcho = { port: `${agent}/echo`, state: 'moved', path: 'direct' }
  const moved = client.event('link', (event) => Object.entries(ofEcho).every(([k, is]) => event[k] === is))
  const late = new AbortController()
  const tooLate = sleep(DIRECT_WITHIN_MS, undefined, { signal: late.signal }).then(() => {
    throw new FarportError('ERR_INTERNAL', 'no direct path was found')
  })
  await Promise.race([moved, tooLate]).finally(() => late.abort())
  const afterMs = Math.round(performance.now() - startedAtMs)
  const relayedMs = check.takeRoundTripMs()
  const direct = await pathOf(client, 'direct')
  await sleep(AFTERWARDS_MS)
  const directMs = check.takeRoundTripMs()
  const { bytes, sha256 } = await check.finish()
  const roundTrip = { relayedMs: rounded(relayedMs), directMs: rounded(directMs) }
  output.event(
    'direct',
    { ...direct, afterMs, roundTrip },
    [
      describePath(direct),
      `        ${afterMs} ms after the first byte; an echo took ${roundTrip.relayedMs} ms before, and takes ${roundTrip.directMs} ms now`,
    ].join('\n'),
  )
  output.event(
    'count',
    { bytes, sha256 },
    `echo    ${bytes} bytes went round meanwhile: none lost, none twice, none in another place`,
  )
}

async function showSentences(pty: string, output: Output, end: AbortSignal): Promise<void> {
  if (!output.json) process.stderr.write('What follows is read from the virtual serial port:\n')
  await using port = await portSource(pty).open({ settings: { baudRate: 4800 } })
  const lines = createInterface({ input: port, crlfDelay: Infinity })
  let sentences = 0
  const stop = () => lines.close()
  end.addEventListener('abort', stop)
  for await (const sentence of lines) {
    if (!isNmea(sentence)) continue
    sentences++
    if (output.json) output.event('nmea', { sentence })
    else process.stdout.write(`${sentence}\n`)
  }
  end.removeEventListener('abort', stop)
  if (sentences === 0) throw new FarportError('ERR_INTERNAL', 'not one NMEA sentence came through')
  output.event('done', { sentences }, `${sentences} sentences came through, every checksum right`)
}

interface Ready {
  readonly addresses: readonly string[]
}

interface Path {
  readonly kind: string
  readonly address: string
  readonly encryption: string
  readonly muxer: string
}

async function pathOf(client: Farport, wanted: string): Promise<Path> {
  const event = await client.event('path', ({ kind }) => kind === wanted)
  const { kind, address, encryption, muxer } = event as unknown as Path
  return { kind, address, encryption, muxer }
}

function describePath({ kind, address, encryption, muxer }: Path): string {
  return [`path    ${kind}, ${address}`, `        encrypted by ${encryption}, multiplexed by ${muxer}`].join(
    '\n',
  )
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

function rounded(ms: number): number {
  return Math.round(ms * 10) / 10
}

/** Whether a line is a whole NMEA 0183 sentence: `$`, fields, `*`, and the XOR of what is between them in hexadecimal. */
function isNmea(line: string): boolean {
  const match = /^\$([^*]+)\*([0-9A-F]{2})$/.exec(line)
  if (match === null) return false
  let sum = 0
  for (const byte of Buffer.from(match[1] as string, 'latin1')) sum ^= byte
  return sum === Number.parseInt(match[2] as string, 16)
}
