/**
 * How an invite is found on a LAN by the nameplate of its code: DNS-SD (RFC 6763) over multicast DNS (RFC 6762). The
 * nameplate is a subtype of the service, so that only those answer who are meant.
 *
 *   question     _734._sub._farport._tcp.local   PTR
 *     known      _734._sub._farport._tcp.local   PTR   12D3KooW…._farport._tcp.local   need not answer
 *
 *   answer       _734._sub._farport._tcp.local   PTR   12D3KooW…._farport._tcp.local
 *     additional 12D3KooW…._farport._tcp.local   TXT   addr=/ip4/192.0.2.7/tcp/4001
 *                                                      addr=…                          at most 8
 *
 * Both records live 120 s, or 0 s where an announcement is taken back. There are no SRV and A records, since they can't
 * say a forwarded port or a name outside `.local`.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net'
import { type Answer, AUTHORITATIVE_ANSWER, decode, encode, type Packet } from '@dnsquery/dns-packet'
import { peerIdProblem } from '../trust/peer-id.ts'

/** Who says that a nameplate is its own, and where it can be dialed. */
export interface LanPeer {
  readonly peerId: string
  /** One to MAX_ADDRESSES that pass isLanAddress. */
  readonly addresses: readonly string[]
}

export type LanMessage =
  | { type: 'question'; known: readonly string[] }
  | { type: 'answer'; peers: readonly LanPeer[] }

export const MAX_ADDRESSES = 8
/** So long that eight of them, with the names, fit into one Ethernet frame. */
const MAX_ADDRESS_LENGTH = 120
/** The longest that multicast DNS allows (RFC 6762, section 17). */
const MAX_MESSAGE_BYTES = 9000
/** Ours have two; others may ask and say many things at once. */
const MAX_RECORDS = 64
const HEADER_BYTES = 12
const COUNTS_AT = [4, 6, 8, 10]

const TTL_SECONDS = 120
const SERVICE = '_farport._tcp.local'
const ADDRESS_KEY = 'addr='
const HOST_AND_TCP = /^\/(ip4|ip6|dns|dns4|dns6)\/([\w.:-]+)\/tcp\/([1-9]\d{0,4})$/
/** The last label begins with a letter: `127.1` and `0x7f000001` are not names to a resolver, but addresses. */
const HOST_NAME = /^([a-z\d]([\w-]{0,61}[a-z\d])?\.)*[a-z]([\w-]{0,61}[a-z\d])?$/i
/** Unspecified, multicast and broadcast, and link-local IPv6, which means nothing without the name of a network. */
const NOBODY = new BlockList()
NOBODY.addSubnet('0.0.0.0', 8, 'ipv4')
NOBODY.addSubnet('224.0.0.0', 3, 'ipv4')
NOBODY.addAddress('::', 'ipv6')
NOBODY.addSubnet('fe80::', 10, 'ipv6')
NOBODY.addSubnet('ff00::', 8, 'ipv6')

export function encodeQuestion(nameplate: string): Uint8Array {
  return encode({ type: 'query', questions: [{ type: 'PTR', class: 'IN', name: subtype(nameplate) }] })
}

export function encodeAnswer(nameplate: string, { peerId, addresses }: LanPeer): Uint8Array {
  const txt = {
    type: 'TXT' as const,
    class: 'IN' as const,
    // Nobody else has this name, so that it needs no probing, and caches replace what they had under it.
    name: instance(peerId),
    flush: true,
    ttl: TTL_SECONDS,
    data: addresses.map((address) => ADDRESS_KEY + address),
  }
  return response({ answers: [pointer(nameplate, peerId, TTL_SECONDS)], additionals: [txt] })
}

/** Takes an answer back from those who keep it (RFC 6762, section 10.1). */
export function encodeGoodbye(nameplate: string, peerId: string): Uint8Array {
  return response({ answers: [pointer(nameplate, peerId, 0)] })
}

/** What a packet says about the nameplate: `undefined` for nothing, as most on a LAN do, and for what is malformed. */
export function readMessage(bytes: Uint8Array, nameplate: string): LanMessage | undefined {
  const packet = parse(bytes)
  if (packet === undefined) return undefined
  const { questions = [], answers = [], additionals = [] } = packet
  const name = subtype(nameplate)
  if (packet.type === 'query') {
    if (!questions.some((asked) => asked.type === 'PTR' && asked.name.toLowerCase() === name))
      return undefined
    // Who will soon forget us wants to hear us again (RFC 6762, section 7.1).
    return { type: 'question', known: pointedAt(answers, name, TTL_SECONDS / 2) }
  }
  const peers = pointedAt(answers, name, 1)
    .map((peerId) => ({ peerId, addresses: addressesOf(peerId, [...answers, ...additionals]) }))
    .filter(({ addresses }) => addresses.length > 0)
  return peers.length > 0 ? { type: 'answer', peers } : undefined
}

/**
 * Whether it is a host and a TCP port that could be dialed, and nothing else: `/ip4/192.0.2.7/tcp/4001`, or with `ip6`,
 * `dns`, `dns4`, `dns6`.
 */
export function isLanAddress(address: string): boolean {
  const [, kind, host = '', port] = HOST_AND_TCP.exec(address) ?? []
  if (address.length > MAX_ADDRESS_LENGTH || Number(port) > 65_535) return false
  switch (kind) {
    case undefined:
      return false
    case 'ip4':
      return isIPv4(host) && !NOBODY.check(host, 'ipv4')
    case 'ip6':
      return isIPv6(host) && !NOBODY.check(host, 'ipv6')
    default:
      return HOST_NAME.test(host)
  }
}

/** The library sets no bounds: it makes room for 262,140 records when a header of 12 bytes says so. */
function parse(bytes: Uint8Array): Packet | undefined {
  if (bytes.length < HEADER_BYTES || bytes.length > MAX_MESSAGE_BYTES) return undefined
  const header = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES)
  if (COUNTS_AT.reduce((sum, at) => sum + header.getUint16(at), 0) > MAX_RECORDS) return undefined
  try {
    return decode(bytes)
  } catch {
    return undefined
  }
}

function pointedAt(records: readonly Answer[], name: string, minTtlSeconds: number): string[] {
  const peerIds = records.flatMap((record) => {
    if (record.type !== 'PTR' || record.name.toLowerCase() !== name) return []
    if ((record.ttl ?? 0) < minTtlSeconds) return []
    // Capitals matter in a PeerID, so that this label is taken as it is.
    const [peerId = ''] = record.data.split('.', 1)
    return record.data === instance(peerId) && peerIdProblem(peerId) === undefined ? [peerId] : []
  })
  return [...new Set(peerIds)]
}

function addressesOf(peerId: string, records: readonly Answer[]): string[] {
  const addresses = records.flatMap((record) => {
    if (record.type !== 'TXT' || record.name !== instance(peerId) || !Array.isArray(record.data)) return []
    return record.data
      .map((item) => (typeof item === 'string' ? item : Buffer.from(item).toString('latin1')))
      .filter((text) => text.startsWith(ADDRESS_KEY))
      .map((text) => text.slice(ADDRESS_KEY.length))
  })
  return [...new Set(addresses.filter(isLanAddress))].slice(0, MAX_ADDRESSES)
}

function response(sections: { answers: Answer[]; additionals?: Answer[] }): Uint8Array {
  return encode({ type: 'response', flags: AUTHORITATIVE_ANSWER, ...sections })
}

function pointer(nameplate: string, peerId: string, ttl: number): Answer {
  return { type: 'PTR', class: 'IN', name: subtype(nameplate), ttl, data: instance(peerId) }
}

function subtype(nameplate: string): string {
  return `_${nameplate}._sub.${SERVICE}`
}

function instance(peerId: string): string {
  return `${peerId}.${SERVICE}`
}
