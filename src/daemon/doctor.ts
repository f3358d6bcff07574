import { listPorts } from '../device/discovery.ts'
import { portHolder } from '../device/port-holder.ts'
import type { Logger } from '../log.ts'
import { deviceFindings } from './device-check.ts'
import type { Finding } from './finding.ts'
import { checkKey, checkTrust, clockFinding, diskFinding, ownersFinding } from './home-check.ts'
import { thisMachine } from './machine.ts'
import type { NetworkDiagnosis } from './network-check.ts'
import { nativeFindings, runtimeFinding } from './runtime-check.ts'
import { checkConfig, serviceFinding } from './service-check.ts'

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
export interface Diagnosis extends NetworkDiagnosis {
  /** `unfit` when something on this machine has to be mended, else how we stand with the relays. */
  readonly verdict: 'well' | 'unfit' | 'turned away' | 'no relay reached'
  readonly peerId?: string
}

/**
 * Looks at everything that keeps farport from working here and two farports from each other, and changes nothing: the
 * runtime, native code, the home's files, the clock, farport.yaml, serial ports, relays, and the NAT. A farport that runs
 * for this home is asked how it is and not disturbed.
 * @throws FarportError ERR_USAGE, ERR_NOT_TRUSTED for a relay that is none; the signal's reason
 */
export async function examine(options: DoctorOptions): Promise<Diagnosis> {
  const { home, log, signal } = options
  let fit = true
  const tell = (finding: Finding) => {
    if (finding.verdict === 'bad' && finding.about !== 'relay') fit = false
    options.tell(finding)
  }
  const machine = await thisMachine(home)
  tell(runtimeFinding(machine))
  for (const finding of await nativeFindings()) tell(finding)
  const identity = await checkKey(home, tell)
  await using trust = await checkTrust(home, tell, log)
  for (const finding of [await ownersFinding(home), await diskFinding(home), await clockFinding(home)])
    if (finding !== undefined) tell(finding)
  const configured = await checkConfig(home, tell)
  const service = await serviceFinding(home, signal)
  tell(service.finding)
  for (const finding of await deviceFindings({
    ...{ machine, configured, holderOf: portHolder, discovered: await listPorts() },
    ...(service.pid !== undefined && { farportPid: service.pid }),
  }))
    tell(finding)

  // Loaded only now: libp2p is large, and a machine on which it can't be loaded has heard why by then.
  const { checkNetwork } = await import('./network-check.ts')
  const network = await checkNetwork({ asked: options.relays, identity, trust, tell, log, signal })
  return {
    verdict: fit ? standing(network) : 'unfit',
    ...(identity && { peerId: identity.peerId }),
    ...network,
  }
}

function standing({ relays }: NetworkDiagnosis): Diagnosis['verdict'] {
  const entries = relays.map(({ entry }) => entry)
  if (entries.length === 0 || entries.includes('let in')) return 'well'
  return entries.includes('turned away') ? 'turned away' : 'no relay reached'
}
