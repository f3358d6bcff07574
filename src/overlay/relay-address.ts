import { multiaddr } from '@multiformats/multiaddr'
import { FarportError } from '../errors.ts'

const CIRCUIT = '/p2p-circuit'

/** Whether a peer is reached through a relay at this address. */
export function isRelayed(address: string): boolean {
  return address.includes(CIRCUIT)
}

/** The relay in `/ip4/192.0.2.1/tcp/4001/p2p/R/p2p-circuit/p2p/X`, or undefined when the address names none. */
export function relayOf(address: string): string | undefined {
  const [relay = '', rest] = address.split(CIRCUIT)
  return rest === undefined ? undefined : /\/p2p\/([^/]+)$/.exec(relay)?.[1]
}

/** @throws Error when the address does not say which relay */
export function splitRelayed(address: string): { relayId: string; relayAddress: string } {
  const relayId = relayOf(address)
  if (relayId === undefined) throw new Error('it does not say which relay')
  return { relayId, relayAddress: address.slice(0, address.indexOf(CIRCUIT)) }
}

/** The addresses of each relay, by its PeerID. @throws FarportError ERR_USAGE */
export function groupRelays(addresses: readonly string[]): Map<string, string[]> {
  const relays = new Map<string, string[]>()
  for (const address of addresses) {
    const peerId = relayPeer(address)
    if (peerId === undefined)
      throw new FarportError(
        'ERR_USAGE',
        `${address} is not the address of a relay: write it as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…`,
      )
    const known = relays.get(peerId)
    if (known === undefined) relays.set(peerId, [address])
    else if (!known.includes(address)) known.push(address)
  }
  return relays
}

function relayPeer(address: string): string | undefined {
  try {
    const [host, port, peer, ...more] = multiaddr(address).getComponents()
    const isHost = ['ip4', 'ip6', 'dns', 'dns4', 'dns6'].includes(host?.name ?? '')
    return isHost && port?.name === 'tcp' && peer?.name === 'p2p' && more.length === 0
      ? peer.value
      : undefined
  } catch {
    return undefined
  }
}
