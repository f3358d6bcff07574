import { randomBytes } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createOverlay } from '../overlay/node.ts'
import { type NatReport, natReport, type StunService } from '../stun/nat-report.ts'
import { STUN_PORTS } from '../stun/server.ts'
import { type Identity, loadIdentity } from '../trust/identity.ts'
import { openTrustStore, type TrustStore } from '../trust/trust-store.ts'
import { TRUSTED_PEERS } from '../trust/trusted-peers.ts'
import { AUDIT_LOG } from './audit-log.ts'
import type { Finding } from './finding.ts'
import { natFindings, type PredictedPaths, predictedPaths } from './nat-findings.ts'
import { checkRelay, type RelayCheck, relayFindings } from './relay-check.ts'
import { byPeer, relayAddresses, relaysToPeers } from './relaying.ts'

/** File systems round times, and other machines may write to them. */
const CLOCK_TOLERANCE_MS = 60_000

export interface DoctorOptions {
  home: string
  /** Names in trusted_peers, or addresses. None: those that lead to our peers. */
  relays: readonly string[]
  log: Logger
  signal: AbortSignal
  /** Told each finding as soon as it is there. */
  tell: (finding: Finding) => void
}

/** What was found out, for programs. */
export interface Diagnosis {
  /** `unfit` when this machine's home or clock has to be mended, else how we stand with the relays. */
  readonly verdict: 'well' | 'unfit' | 'turned away' | 'no relay reached'
  readonly peerId?: string
  readonly relays: readonly RelayCheck[]
  readonly nat?: NatReport
  /** Where it can be told. */
  readonly paths?: PredictedPaths
}

/**
 * Looks at everything that keeps two farports from each other, and changes nothing: the home's files, the clock, relays,
 * and the NAT. A farport that runs for this home is not disturbed.
 * @throws FarportError ERR_USAGE, ERR_NOT_TRUSTED for a relay that is none; the signal's reason
 */
export async function examine(options: DoctorOptions): Promise<Diagnosis> {
  const { home, log, signal } = options
  let fit = true
  const tell = (finding: Finding) => {
    if (finding.verdict === 'bad' && finding.about !== 'relay') fit = false
    options.tell(finding)
  }
  const identity = await checkKey(home, tell)
  await using trust = await checkTrust(home, tell, log)
  tell(await clockFinding(home))

  const relays = byPeer(findRelays(options.relays, trust))
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
  return {
    verdict: fit ? standing(checks) : 'unfit',
    ...(identity && { peerId: identity.peerId }),
    relays: checks,
    ...(nat && { nat }),
    ...(paths && { paths }),
  }
}

async function checkKey(home: string, tell: DoctorOptions['tell']): Promise<Identity | undefined> {
  try {
    const identity = await loadIdentity(home, { create: false })
    tell({ about: 'key', verdict: 'ok', text: `this machine is ${identity.peerId}` })
    return identity
  } catch (error) {
    tell({ about: 'key', verdict: 'bad', text: sentenceOf(error) })
    return undefined
  }
}

async function checkTrust(
  home: string,
  tell: DoctorOptions['tell'],
  log: Logger,
): Promise<TrustStore | undefined> {
  try {
    // What it would log about the lines is told here.
    const trust = await openTrustStore(home, { log: log.child({}, { level: 'silent' }) })
    const count = trust.peers().length
    const text = `${TRUSTED_PEERS} is readable, ${count} ${count === 1 ? 'peer' : 'peers'}`
    tell({ about: 'trust', verdict: 'ok', text })
    for (const { line, sentence } of trust.problems())
      tell({ about: 'trust', verdict: 'bad', text: line === 0 ? sentence : `line ${line}: ${sentence}` })
    return trust
  } catch (error) {
    tell({ about: 'trust', verdict: 'bad', text: sentenceOf(error) })
    return undefined
  }
}

/** Nobody out there tells us the time in a way that we could believe; but it can't be before what has already been. */
async function clockFinding(home: string): Promise<Finding> {
  const now = Date.now()
  const shown = `${new Date(now).toISOString().slice(0, 19)}Z`
  const files = [
    import.meta.filename,
    ...['identity.key', TRUSTED_PEERS, AUDIT_LOG].map((f) => join(home, f)),
  ]
  for (const file of files) {
    const written = (await stat(file).catch(() => undefined))?.mtimeMs ?? 0
    if (written <= now + CLOCK_TOLERANCE_MS) continue
    return {
      about: 'clock',
      verdict: 'bad',
      text: `the clock says ${shown}, which is before ${file} was written`,
      remedy: 'set it, as by `timedatectl set-ntp true`: grants and invites end by it',
    }
  }
  return { about: 'clock', verdict: 'ok', text: shown }
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

function standing(checks: readonly RelayCheck[]): Diagnosis['verdict'] {
  const entries = checks.map(({ entry }) => entry)
  if (entries.length === 0 || entries.includes('let in')) return 'well'
  return entries.includes('turned away') ? 'turned away' : 'no relay reached'
}

function sentenceOf(error: unknown): string {
  if (error instanceof FarportError) return error.message
  throw error
}
