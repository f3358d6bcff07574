import { BlockList, isIPv4, isIPv6 } from 'node:net'
import { isLanAddress } from '../lan/lan-message.ts'
import { MAX_ADDRESSES } from './path-message.ts'

/** What is not another machine, or only on a link that the address does not name. */
const OURS = new BlockList()
OURS.addSubnet('127.0.0.0', 8, 'ipv4')
OURS.addSubnet('169.254.0.0', 16, 'ipv4')
OURS.addAddress('::1', 'ipv6')
/** Below it live the services of a network; nobody's peers, but for what firewalls let out. */
const FIRST_FREE_PORT = 1024
const WEB_PORTS = [80, 443]

/**
 * Whether we dial an address because a peer says it is its own: `/ip4/192.0.2.7/tcp/4001`, or a name. The peer is trusted,
 * yet must not make us look into other programs of this machine or probe what is around it. Private addresses are dialed:
 * the peer may be next door. When another machine has that address here, Noise finds another key.
 */
export function isDialable(address: string): boolean {
  if (!isLanAddress(address)) return false
  const [, , host = '', , port] = address.split('/')
  return isHostOfPeer(host) && isPortOfPeer(Number(port))
}

/** For peers on this very machine: as isDialable, and loopback addresses too. */
export function isDialableHere(address: string): boolean {
  if (isDialable(address)) return true
  const [, , host = '', , port] = address.split('/')
  return isLanAddress(address) && /^127\.|^::1$/.test(host) && isPortOfPeer(Number(port))
}

/** Of all our addresses those that may help the peer: direct ones, without our PeerID, each once. */
export function toTell(addresses: readonly string[], mayDial: (address: string) => boolean): string[] {
  const direct = addresses.map((address) => address.replace(/\/p2p\/[^/]*$/, '')).filter(mayDial)
  return [...new Set(direct)].slice(0, MAX_ADDRESSES)
}

function isHostOfPeer(host: string): boolean {
  if (isIPv4(host)) return !OURS.check(host, 'ipv4')
  if (isIPv6(host)) return !OURS.check(host, 'ipv6')
  return !/(^|\.)localhost$/i.test(host)
}

function isPortOfPeer(port: number): boolean {
  return port >= FIRST_FREE_PORT || WEB_PORTS.includes(port)
}
