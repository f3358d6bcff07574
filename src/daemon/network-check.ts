import { randomBytes } from 'node:crypto'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createOverlay } from '../overlay/node.ts'
import { type NatReport, natReport, type StunService } from '../stun/nat-report.ts'
import { STUN_PORTS } from '../stun/server.ts'
import type { Identity } from '../trust/identity.ts'
import type { TrustStore } from '../trust/trust-store.ts'
import type { Finding } from './finding.ts'
import { natFindings, type PredictedPaths, predictedPaths } from './nat-findings.ts'
import { checkRelay, type RelayCheck, relayFindings } from './relay-check.ts'
import { byPeer, relayAddresses, relaysToPeers } from './relaying.ts'

export interface NetworkCheckOptions {
  /** Names in trusted_peers, or addresses. None: those that lead to our peers. */
  readonly asked: readonly string[]
  readonly identity: Identity | undefined
  readonly trust: TrustStore | undefined
  readonly tell: (finding: Finding) => void
  readonly log: Logger
  readonly signal: AbortSignal
}

export interface NetworkDiagnosis {
  readonly relays: readonly RelayCheck[]
  readonly nat?: NatReport
  /** Where it can be told. */
  readonly paths?: PredictedPaths
}

/**
 * How we stand with the relays, and what the network does to connections.
 * @throws FarportError ERR_USAGE, ERR_NOT_TRUSTED for a relay that is none; the signal's reason
 */
export async function checkNetwork(options: NetworkCheckOptions): Promise<NetworkDiagnosis> {
  const { asked, identity, trust, tell, log, signal } = options
  const relays = byPeer(findRelays(asked, trust))
  const seed = identity?.seed ?? randomBytes(32)
  const admits = (peerId: string) => relays.has(peerId)
  await using overlay = await createOverlay({ seed, listen: [], admits, log })
  const checks = await Promise.all(
    [...relays].map(async ([peerId, addresses]) => {
      const check = await checkRelay(peerId, addresses, { overlay, signal })
      const name = trust?.byId(peerId)?.name ?? check.addresses[0]?.host ?? peerId
      for (const finding of relayFindings(name, check)) tell(finding)
      return check
    }),
  )
  const [first, ...more] = stunServices(checks)
  const nat = first && (await natReport([first, ...more], { signal }))
  const paths = nat && predictedPaths(nat)
  for (const finding of nat === undefined ? withoutRelay(checks) : natFindings(nat)) tell(finding)
  return { relays: checks, ...(nat && { nat }), ...(paths && { paths }) }
}

function findRelays(asked: readonly string[], trust: TrustStore | undefined): string[] {
  if (trust !== undefined) return asked.length > 0 ? relayAddresses(asked, trust) : relaysToPeers(trust)
  const byName = asked.find((relay) => !relay.startsWith('/'))
  if (byName !== undefined)
    throw new FarportError('ERR_USAGE', `${byName} can't be looked up: give the address of the relay instead`)
  return [...asked]
}

/** Of each relay the first address that answers, else the first: STUN may get through where the relay does not. */
function stunServices(checks: readonly RelayCheck[]): StunService[] {
  return checks.flatMap(({ addresses }) => {
    const usable = addresses.find(({ connectMs }) => connectMs !== undefined) ?? addresses[0]
    return usable === undefined ? [] : [{ host: usable.host, ports: STUN_PORTS }]
  })
}

function withoutRelay(checks: readonly RelayCheck[]): Finding[] {
  if (checks.length > 0) return []
  return [
    {
      about: 'relay',
      verdict: 'note',
      text: 'no relay is known, so what this network does to connections is not known either',
      remedy: 'name one by --relay, or pair with a machine that is reached through one',
    },
  ]
}
