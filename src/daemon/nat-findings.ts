import type { NatReport, ProtocolReport } from '../stun/nat-report.ts'
import { type PredictedPath, predictedPath, REACHES, type Reach, reachOf } from '../stun/predicted-path.ts'
import { STUN_PORTS } from '../stun/server.ts'
import type { Finding } from './finding.ts'

type Seen = ProtocolReport & { state: 'open' }

/** How we shall be connected with each class of peers. */
export type PredictedPaths = Readonly<Record<Reach, PredictedPath>>

/** Undefined where no STUN server answers: then a network that lets nothing out looks like a relay without STUN. */
export function predictedPaths(nat: NatReport): PredictedPaths | undefined {
  if (nat.tcp.state === 'blocked') return undefined
  const ours = reachOf(nat)
  const paths = REACHES.map((theirs) => [theirs, predictedPath(ours, theirs)] as const)
  return Object.fromEntries(paths) as Record<Reach, PredictedPath>
}

/** What a NAT report means, in words. */
export function natFindings(nat: NatReport): Finding[] {
  return [tcpFinding(nat.tcp), udpFinding(nat.udp), ...pathFindings(nat)]
}

function tcpFinding(tcp: ProtocolReport): Finding {
  if (tcp.state === 'blocked')
    return {
      about: 'tcp',
      verdict: 'note',
      text: 'no STUN server answers over TCP, so holes can not be punched',
      remedy: `open TCP ports ${STUN_PORTS.join(' and ')} at the relay, if it is not run with --no-stun, and let this network call them`,
    }
  const { mapping } = tcp
  if (!tcp.translated || mapping === 'endpoint-independent')
    return { about: 'tcp', verdict: 'ok', text: describe(tcp) }
  return {
    about: 'tcp',
    verdict: 'note',
    text: describe(tcp),
    remedy:
      'where a direct path matters, forward a TCP port to this machine and share with --announce /ip4/ADDRESS/tcp/PORT',
  }
}

function udpFinding(udp: ProtocolReport): Finding {
  return udp.state === 'blocked'
    ? { about: 'udp', verdict: 'ok', text: 'no STUN server answers over UDP, which farport can do without' }
    : { about: 'udp', verdict: 'ok', text: describe(udp) }
}

function describe(seen: Seen): string {
  const { mapped, translated, mapping, filtering, portPreserved } = seen
  const from = filtering === undefined ? '' : `; lets in ${LETS_IN[filtering]}`
  if (!translated) return `no NAT: the internet sees ${mapped.address}${from}`
  const port = portPreserved ? 'keeps the port' : 'changes the port'
  return `a NAT: the internet sees ${mapped.address}, which ${port} and ${MAPS[mapping]}${from}`
}

const MAPS: Record<Seen['mapping'], string> = {
  'endpoint-independent': 'uses one for all destinations',
  'address-dependent': 'uses another one for each address called',
  'address-and-port-dependent': 'uses another one for each destination',
}

const LETS_IN: Record<Seen['mapping'], string> = {
  'endpoint-independent': 'whoever calls a port in use',
  'address-dependent': 'at least whom we have called',
  'address-and-port-dependent': 'only what answers a call of ours',
}

function pathFindings(nat: NatReport): Finding[] {
  const paths = predictedPaths(nat)
  if (paths === undefined)
    return [
      {
        about: 'path',
        verdict: 'note',
        text: 'direct if one side can call the other, else through the relay',
      },
    ]
  return REACHES.map((theirs) => {
    const path = paths[theirs]
    return {
      about: 'path',
      verdict: path === 'relay' && theirs !== 'closed' ? 'note' : 'ok',
      text: `with a peer ${PEERS[theirs]}: ${PATHS[path]}`,
    } satisfies Finding
  })
}

const PEERS: Record<Reach, string> = {
  open: 'that others can connect to',
  punchable: 'behind a common NAT',
  unpredictable: 'behind a NAT with another port for each destination',
  closed: 'whose network lets little out',
}

const PATHS: Record<PredictedPath, string> = {
  dial: 'direct, one calls the other',
  punch: 'direct, by both calling at once',
  relay: 'through the relay',
}
