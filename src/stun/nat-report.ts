import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { type Mapping, readMessage, type StunServerAddress, StunUdpClient, stunTcp } from './client.ts'
import type { Change, IpEndpoint } from './message.ts'

/** What decides about the address and port that a NAT gives to a local port (RFC 4787 §4.1). */
type MappingBehavior = 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent'

/** Whom a NAT or a firewall lets in to a local port that has sent something out (RFC 4787 §5), in the same words. */
type FilteringBehavior = MappingBehavior

export type ProtocolReport =
  /** No server answers. */
  | { state: 'blocked' }
  | {
      state: 'open'
      /** As the first server sees us. */
      mapped: IpEndpoint
      /** Whether there is a NAT: the address that servers see is none of this machine's. */
      translated: boolean
      /** From one address of servers alone, address-dependent can't be told from endpoint-independent: the latter is said. */
      mapping: MappingBehavior
      /** Whether the port that servers see is the local one. */
      portPreserved: boolean
      /**
       * Left out where it can't be found out. Of a server with one address, only whether a port is let in that nothing was
       * sent to: at best address-dependent is said.
       */
      filtering?: FilteringBehavior
      rttMs: number
    }

export interface NatReport {
  udp: ProtocolReport
  tcp: ProtocolReport
}

/** A server's two ports, both for UDP and TCP. */
export interface StunService {
  readonly host: string
  readonly ports: readonly [number, number]
}

/** One answer, and the server's address and port that gave it. */
interface Observation {
  server: StunServerAddress
  mapping: Mapping
}

const LEAST_PATIENCE_MS = 600

/**
 * Finds out what stands between this machine and the world, by asking servers from one local port each for UDP and TCP,
 * and never throws for what it finds. One server with two ports is enough to tell who can be reached; more, at other
 * addresses, or one that has two addresses, make it sharper. Takes about five round trips, and where something is filtered
 * at least 0.6 s; where all is blocked, until the signal or 3 s.
 *
 * @throws the signal's reason.
 */
export async function natReport(
  services: readonly [StunService, ...StunService[]],
  { signal }: { signal: AbortSignal },
): Promise<NatReport> {
  const [udp, tcp] = await Promise.all([reportUdp(services, signal), reportTcp(services, signal)])
  signal.throwIfAborted()
  return { udp, tcp }
}

async function reportUdp(
  services: readonly [StunService, ...StunService[]],
  signal: AbortSignal,
): Promise<ProtocolReport> {
  await using client = await StunUdpClient.bind({ family: 4 })
  // A port of its own: what the other one has sent to would be let in.
  await using fresh = await StunUdpClient.bind({ family: 4 })
  const observe = (servers: StunServerAddress[]) =>
    ask(servers, signal, (server, within) => client.ask(server, { signal: within }))
  const seen = await observe(endpoints(services))
  const [first] = seen
  if (first === undefined) return { state: 'blocked' }
  seen.push(...(await observe(otherAddress(first))))
  const filtering = await udpFilteringOf(fresh, first, signal)
  return { ...describe(first, seen), ...(filtering && { filtering }) }
}

async function reportTcp(
  services: readonly [StunService, ...StunService[]],
  signal: AbortSignal,
): Promise<ProtocolReport> {
  using held = new DisposableStack()
  const localPort = await freePort()
  const observe = (servers: StunServerAddress[], within: AbortSignal) =>
    ask(servers, within, async (server, signal) => held.use(await stunTcp(server, { localPort, signal })))
  const seen = await observe(endpoints(services), AbortSignal.any([signal, AbortSignal.timeout(3_000)]))
  const [first] = seen
  if (first === undefined) return { state: 'blocked' }
  const soon = AbortSignal.timeout(2 * patienceMs(first.mapping))
  seen.push(...(await observe(otherAddress(first), AbortSignal.any([signal, soon]))))
  const filtering = await tcpFilteringOf(first, signal)
  return { ...describe(first, seen), ...(filtering && { filtering }) }
}

/** A port that all questions can be asked from at once. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '0.0.0.0')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Asks several at once and gives the answers, in order, of those who did not take much longer than the first. */
async function ask(
  servers: readonly StunServerAddress[],
  signal: AbortSignal,
  question: (server: StunServerAddress, signal: AbortSignal) => Promise<Mapping>,
): Promise<Observation[]> {
  const late = new AbortController()
  const within = AbortSignal.any([signal, late.signal])
  let timer: NodeJS.Timeout | undefined
  const answers = await Promise.allSettled(
    servers.map(async (server) => {
      const mapping = await question(server, within)
      timer ??= setTimeout(() => late.abort(), patienceMs(mapping))
      return { server, mapping }
    }),
  )
  clearTimeout(timer)
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []))
}

/** How long what may never come is waited for, seen from an answer that came. */
function patienceMs({ rttMs }: Mapping): number {
  return Math.ceil(Math.max(LEAST_PATIENCE_MS, 4 * rttMs))
}

function endpoints(services: readonly StunService[]): StunServerAddress[] {
  return services.flatMap(({ host, ports }) => ports.map((port) => ({ host, port })))
}

function otherAddress({ mapping: { origin, other } }: Observation): StunServerAddress[] {
  return origin === undefined || other === undefined || other.address === origin.address
    ? []
    : [{ host: other.address, port: other.port }]
}

async function udpFilteringOf(
  fresh: StunUdpClient,
  { server, mapping }: Observation,
  signal: AbortSignal,
): Promise<FilteringBehavior | undefined> {
  const answered = async (change?: Change) => {
    const within = AbortSignal.any([signal, AbortSignal.timeout(patienceMs(mapping))])
    return await fresh.ask(server, { signal: within, ...(change && { change }) }).then(
      () => true,
      () => false,
    )
  }
  if (!(await answered())) return undefined
  const [address, port] = await Promise.all([
    answered({ address: true, port: true }),
    answered({ address: false, port: true }),
  ])
  if (address) return 'endpoint-independent'
  return port ? 'address-dependent' : 'address-and-port-dependent'
}

/** Who gets through to a port that has sent something to one server, tried by having that server call it. */
async function tcpFilteringOf(
  { server, mapping }: Observation,
  signal: AbortSignal,
): Promise<FilteringBehavior | undefined> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(2 * patienceMs(mapping))])
  const calls = new Map<string, FilteringBehavior>()
  const heard = new Set<FilteringBehavior>()
  const listener = createServer((socket) => {
    socket.on('error', () => undefined)
    readMessage(socket)
      .then(({ transactionId }) => calls.get(transactionId.toString('hex')))
      .then((call) => call && heard.add(call) && listener.emit('heard'))
      .catch(() => undefined)
      .finally(() => socket.destroy())
  })
  try {
    using held = await stunTcp(server, { signal: within })
    // Works in this order only: what is listened on can't be connected from.
    await once(listener.listen(held.local.port, held.local.address), 'listening')
    calls.set(held.requestCall({ address: true, port: true }).toString('hex'), 'endpoint-independent')
    calls.set(held.requestCall({ address: false, port: true }).toString('hex'), 'address-dependent')
    const enough = AbortSignal.any([signal, AbortSignal.timeout(patienceMs(mapping))])
    while (!heard.has('endpoint-independent') && !enough.aborted)
      await once(listener, 'heard', { signal: enough }).catch(() => undefined)
  } catch {
    return undefined
  } finally {
    listener.close()
  }
  if (heard.has('endpoint-independent')) return 'endpoint-independent'
  return heard.has('address-dependent') ? 'address-dependent' : 'address-and-port-dependent'
}

function describe(
  { mapping }: Observation,
  seen: readonly Observation[],
): ProtocolReport & { state: 'open' } {
  const own = Object.values(networkInterfaces()).flatMap((all) => all?.map(({ address }) => address) ?? [])
  return {
    state: 'open',
    mapped: mapping.mapped,
    translated: !own.includes(mapping.mapped.address),
    mapping: mappingBehavior(seen),
    portPreserved: mapping.mapped.port === mapping.local.port,
    rttMs: mapping.rttMs,
  }
}

function mappingBehavior(seen: readonly Observation[]): MappingBehavior {
  const mapped = ({ mapping }: Observation) => `${mapping.mapped.address} ${mapping.mapped.port}`
  const distinct = (some: readonly Observation[]) => new Set(some.map(mapped)).size > 1
  if (!distinct(seen)) return 'endpoint-independent'
  const byHost = Map.groupBy(seen, ({ server }) => server.host)
  return [...byHost.values()].some(distinct) ? 'address-and-port-dependent' : 'address-dependent'
}
