import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import { announceOnLan } from '../lan/lan.ts'
import type { Logger } from '../log.ts'
import type { Overlay, Path } from '../overlay/node.ts'
import { isRelayed } from '../overlay/relay-address.ts'
import { askDirectory, DIRECTORY_PROTOCOL } from '../relay/directory.ts'
import { describesTicketOrCode, newCode, parseCode } from '../trust/code.ts'
import type { Grant, Right } from '../trust/grants.ts'
import { INVITE_LIFETIME_MS, type InviteEnd, Invites, type Source } from '../trust/invites.ts'
import { joinInvite, recordPeer, serveInvite } from '../trust/pair-stream.ts'
import { inviteIdOf, PAIR_PROTOCOL, type PairingFailure } from '../trust/pairing.ts'
import type { Terms } from '../trust/pairing-terms.ts'
import { type Revocation, revokedSentence } from '../trust/revoked-peers.ts'
import { decodeTicket, encodeTicket } from '../trust/ticket.ts'
import type { TrustStore } from '../trust/trust-store.ts'
import type { TrustedPeer } from '../trust/trusted-peers.ts'
import type { Audit } from './audit-log.ts'
import { findInviter } from './find-inviter.ts'
import { byPeer, relaysToPeers } from './relaying.ts'

export interface InviteRequest {
  form: 'ticket' | 'code'
  /** Names or patterns of ports that whoever joins may use. */
  ports: readonly string[]
  may: readonly Right[]
  /** When the grant ends, in milliseconds since 1970. */
  expires?: number
}

/** What happens to an invite, as the person who made it should see it. */
export type InviteEvent =
  /** `text` is the secret: for the screen, never for a log. */
  | {
      event: 'invite'
      form: 'ticket' | 'code'
      text: string
      ports: readonly string[]
      may: readonly Right[]
      until: number
    }
  | { event: 'attempt'; reason: PairingFailure; triesLeft: number }
  | { event: 'paired'; peer: TrustedPeer }
  | { event: 'ended'; how: InviteEnd }

/** Who we are paired with now, and what it lets us do. */
export interface Joined {
  peer: TrustedPeer
  allows: Grant
}

/** A stranger who is let in while an invite is open has so long to pair. */
const STRANGER_MS = 20_000
const MAX_STRANGERS = 16
/** In a line of trusted_peers. */
const MAX_RELAYS_TOLD = 3
/** How long a code is looked for. */
const FIND_MS = 15_000
/** How much longer, once one who has those three digits has refused: most likely it was mistyped. */
const FIND_ANOTHER_MS = 2_000

interface PairingOptions {
  overlay: Overlay
  trust: TrustStore
  /** What we call ourselves to the other side, which may change it. */
  name: string
  /** Of invites we make; none when we make none. */
  audit?: Audit | undefined
  /** Whether a peer may be connected for other reasons than to pair. */
  stays: (peerId: string) => boolean
  /** Tells our relays that an invite is open, until disposed of; `until` is in milliseconds of performance.now(). */
  openDoor?: (door: { nameplate?: string; until: number }) => Promise<AsyncDisposable>
  log: Logger
}

/** Lets strangers in for as long as an invite is open, for nothing but to pair; and takes up invites of others. */
export class Pairing implements Disposable {
  readonly #overlay: Overlay
  readonly #trust: TrustStore
  readonly #name: string
  readonly #audit: Audit | undefined
  readonly #stays: PairingOptions['stays']
  readonly #openDoor: PairingOptions['openDoor']
  readonly #log: Logger
  readonly #invites: Invites
  /** Peers that a ticket or the LAN named, while we pair with them. */
  readonly #hosts = new Set<string>()
  readonly #strangers = new Map<string, NodeJS.Timeout>()
  readonly #serving = new Set<Promise<void>>()

  constructor({ overlay, trust, name, audit, stays, openDoor, log }: PairingOptions) {
    this.#overlay = overlay
    this.#trust = trust
    this.#name = name
    this.#audit = audit
    this.#stays = stays
    this.#openDoor = openDoor
    this.#log = log
    const failed = ({ peerId, address }: Source, reason: PairingFailure) =>
      audit?.record({
        event: 'refuse',
        peerId,
        ...(address !== undefined && { address }),
        reason: `pairing failed: ${reason}`,
      })
    this.#invites = new Invites({
      self: overlay.peerId,
      record: recordPeer(trust),
      isRevoked: (peerId) => this.#revocation(peerId) !== undefined,
    })
      .on('failed', (_id, reason, _triesLeft, source) => failed(source, reason))
      .on('refused', (_id, reason, source) => failed(source, reason))
    overlay.on('connect', this.#onConnect)
  }

  /** Whether a peer that is not in trusted_peers may connect now. */
  admits(peerId: string): boolean {
    if (this.#hosts.has(peerId)) return true
    return (
      this.#invites.size > 0 && this.#strangers.size < MAX_STRANGERS && this.#revocation(peerId) === undefined
    )
  }

  /** Serves a stream on which a peer speaks PAIR_PROTOCOL. */
  async serve(stream: Duplex, { peerId, remoteAddress, kind }: Path): Promise<void> {
    const address =
      kind === 'direct' ? (/^\/ip[46]\/([^/]+)/.exec(remoteAddress)?.[1] ?? remoteAddress) : undefined
    const serving = serveInvite(stream, {
      self: this.#overlay.peerId,
      joiner: peerId,
      invites: this.#invites,
      ...(address === undefined ? {} : { address }),
      signal: AbortSignal.timeout(STRANGER_MS),
    })
    this.#serving.add(serving)
    await serving.finally(() => this.#serving.delete(serving))
    this.#dismiss(peerId)
  }

  /**
   * Opens an invite and reports what happens to it until it is over.
   * @throws FarportError ERR_USAGE when it can't be opened
   */
  async invite(
    request: InviteRequest,
    report: (event: InviteEvent) => void,
    signal: AbortSignal,
  ): Promise<InviteEnd> {
    await using stack = new AsyncDisposableStack()
    const { form, ports, may, expires } = request
    const until = Date.now() + INVITE_LIFETIME_MS
    const code = form === 'code' ? freshCode() : undefined
    const nameplate = code?.nameplate
    // Before the ticket, which names a relay where we can be met now.
    if (this.#openDoor !== undefined)
      stack.use(
        await this.#openDoor({
          ...(nameplate !== undefined && { nameplate }),
          until: performance.now() + INVITE_LIFETIME_MS,
        }),
      )
    const { id, secret, text } = code ?? this.#freshTicket(until)
    const terms: Terms = {
      name: this.#name,
      ports,
      may,
      addrs: [...this.#directAddresses(), ...this.#relayedAddresses()],
      ...(expires === undefined ? {} : { expires }),
    }
    const hex = Buffer.from(id).toString('hex')
    const over = Promise.withResolvers<InviteEnd>()
    const mine = (of: string) => of === hex
    const onFailed = (of: string, reason: PairingFailure, triesLeft: number) => {
      if (mine(of)) report({ event: 'attempt', reason, triesLeft })
    }
    const onPaired = (of: string, peer: TrustedPeer) => {
      if (!mine(of)) return
      this.#log.info({ peer: peer.peerId, name: peer.name, ports: peer.ports }, 'paired')
      this.#audit?.record({ event: 'pair', peerId: peer.peerId, ports: peer.ports, may: peer.may, by: form })
      report({ event: 'paired', peer })
      over.resolve('used')
    }
    const onUnrecorded = (of: string, error: unknown) => {
      if (mine(of)) over.reject(error)
    }
    const onEnded = (of: string, how: InviteEnd) => {
      // A used one is spent first and recorded then: its end is `paired` or `unrecorded`.
      if (mine(of) && how !== 'used') over.resolve(how)
    }
    const onAbort = () => this.#invites.cancel(id)
    this.#invites
      .on('failed', onFailed)
      .on('paired', onPaired)
      .on('unrecorded', onUnrecorded)
      .on('ended', onEnded)
    stack.defer(() => {
      this.#invites
        .off('failed', onFailed)
        .off('paired', onPaired)
        .off('unrecorded', onUnrecorded)
        .off('ended', onEnded)
      signal.removeEventListener('abort', onAbort)
    })
    try {
      this.#invites.open({ id, secret, terms })
    } finally {
      secret.fill(0)
    }
    signal.addEventListener('abort', onAbort)
    if (signal.aborted) onAbort()
    if (nameplate !== undefined)
      stack.use(
        await announceOnLan({
          nameplate,
          peerId: this.#overlay.peerId,
          addresses: () => this.#directAddresses(),
          log: this.#log,
        }),
      )
    report({ event: 'invite', form, text, ports, may, until })
    const how = await over.promise.finally(async () => {
      // Last words are still on their way, and whoever called us may close the node: a joiner that never hears that it is
      // trusted does not trust either.
      if (!signal.aborted) await Promise.all(this.#serving)
    })
    report({ event: 'ended', how })
    return how
  }

  /**
   * Takes up an invite of another machine.
   * @param at where it is, with its PeerID, when its code can't be found
   * @param relays addresses of relays to ask for a code, beside those that lead to our peers
   * @throws FarportError ERR_USAGE for what is no ticket or code, ERR_NOT_TRUSTED, ERR_PEER_UNREACHABLE
   */
  async join(
    text: string,
    { at, relays = [], signal }: { at?: string; relays?: readonly string[]; signal: AbortSignal },
  ): Promise<Joined> {
    const terms: Terms = { name: this.#name, ports: [], may: [], addrs: [] }
    if (describesTicketOrCode(text) === 'ticket') {
      const { peerId, addresses, relay, inviteId, secret } = decodeTicket(text, Date.now())
      const relayed = relay === undefined ? [] : [`${relay}/p2p-circuit`]
      try {
        return await this.#joinAt(
          { peerId, addresses: [...addresses, ...relayed] },
          { inviteId, secret, terms, expected: peerId },
          signal,
        )
      } finally {
        secret.fill(0)
      }
    }
    const { nameplate, secret } = parseCode(text)
    const invite = { inviteId: inviteIdOf(nameplate), secret, terms }
    try {
      if (at !== undefined) return await this.#joinAt(peerOf(at), invite, signal)
      return await this.#joinFound(nameplate, relays, invite, signal)
    } finally {
      secret.fill(0)
    }
  }

  [Symbol.dispose](): void {
    this.#overlay.off('connect', this.#onConnect)
    for (const timer of this.#strangers.values()) clearTimeout(timer)
    this.#invites[Symbol.dispose]()
  }

  /** Several may have the same three digits: the words tell, and a wrong try costs an invite one of three. */
  async #joinFound(
    nameplate: string,
    relays: readonly string[],
    invite: { inviteId: Uint8Array; secret: Uint8Array; terms: Terms },
    signal: AbortSignal,
  ): Promise<Joined> {
    const enough = new AbortController()
    const bounded = AbortSignal.any([signal, enough.signal, AbortSignal.timeout(FIND_MS)])
    const refusals = new Map<string, unknown>()
    let unreachable: unknown
    const asked = [...new Set([...relays, ...relaysToPeers(this.#trust)])]
    const candidates = findInviter(nameplate, {
      relays: asked,
      askRelay: (relay, until) => this.#askRelay(nameplate, relay, until),
      signal: bounded,
      log: this.#log,
    })
    for await (const found of candidates) {
      // A peer is found again with further addresses; one that has said no is not asked twice.
      if (found.peerId === this.#overlay.peerId || refusals.has(found.peerId)) continue
      try {
        return await this.#joinAt(found, invite, signal)
      } catch (error) {
        if (error instanceof FarportError && error.code === 'ERR_PEER_UNREACHABLE') unreachable = error
        else {
          refusals.set(found.peerId, error)
          setTimeout(() => enough.abort(), FIND_ANOTHER_MS).unref()
        }
      }
    }
    signal.throwIfAborted()
    const [refused] = refusals.values()
    throw (
      refused ??
      unreachable ??
      new FarportError(
        'ERR_PEER_UNREACHABLE',
        asked.length > 0
          ? `nobody on this network and at ${asked.length === 1 ? 'the relay' : 'the relays'} has an open invite ${nameplate}-…: is it still open, and is the relay the right one? A ticket works everywhere`
          : `nobody on this network has an open invite ${nameplate}-…: is it still open, and are both machines on one LAN? Else name the relay by --relay, or use a ticket, which works everywhere`,
      )
    )
  }

  async #askRelay(
    nameplate: string,
    { peerId, addresses }: { peerId: string; addresses: readonly string[] },
    signal: AbortSignal,
  ): Promise<string[]> {
    this.#hosts.add(peerId)
    try {
      const { stream } = await this.#overlay.open(peerId, DIRECTORY_PROTOCOL, { addresses, signal })
      return await askDirectory(stream, nameplate, signal)
    } finally {
      this.#hosts.delete(peerId)
    }
  }

  async #joinAt(
    { peerId, addresses }: { peerId: string; addresses: readonly string[] },
    invite: { inviteId: Uint8Array; secret: Uint8Array; terms: Terms; expected?: string },
    signal: AbortSignal,
  ): Promise<Joined> {
    // Told before the invite is spent on a line that would not be written.
    const revocation = this.#revocation(peerId)
    if (revocation !== undefined) throw new FarportError('ERR_NOT_TRUSTED', revokedSentence(revocation))
    this.#hosts.add(peerId)
    try {
      const { stream } = await this.#overlay.open(peerId, PAIR_PROTOCOL, { addresses, signal })
      const joined = await joinInvite(stream, {
        self: this.#overlay.peerId,
        inviter: peerId,
        ...invite,
        signal,
      })
      // Where we reached it just now is where we shall reach it again, whatever it believes its addresses are.
      const all = [...new Set([...addresses, ...joined.peer.addrs])]
      const addrs = all.toSorted((a, b) => Number(isRelayed(a)) - Number(isRelayed(b)))
      return { peer: await recordPeer(this.#trust)({ ...joined.peer, addrs }), allows: joined.allows }
    } finally {
      this.#hosts.delete(peerId)
      this.#dismiss(peerId)
    }
  }

  #freshTicket(until: number) {
    const id = randomBytes(8)
    const secret = randomBytes(16)
    const [relay] = this.#relayedAddresses().map((address) => address.replace('/p2p-circuit', ''))
    const text = encodeTicket({
      peerId: this.#overlay.peerId,
      addresses: this.#directAddresses(),
      ...(relay !== undefined && { relay }),
      inviteId: id,
      secret,
      expires: until,
    })
    return { id, secret, text }
  }

  /** Our addresses as another machine would dial them, without our PeerID. */
  #directAddresses(): string[] {
    const all = this.#addresses().filter((address) => !isRelayed(address))
    const outside = all.filter((address) => !/^\/ip4\/127\.|^\/ip6\/::1\//.test(address))
    return (outside.length > 0 ? outside : all).slice(0, 4)
  }

  /** One of each relay, as far as they fit into what we say of ourselves. */
  #relayedAddresses(): string[] {
    const relays = byPeer(
      this.#addresses()
        .filter(isRelayed)
        .map((address) => address.replace('/p2p-circuit', '')),
    )
    return [...relays]
      .flatMap(([peerId, [address]]) => `${address}/p2p/${peerId}/p2p-circuit`)
      .slice(0, MAX_RELAYS_TOLD)
  }

  #addresses(): string[] {
    return this.#overlay.addresses().map((address) => address.replace(/\/p2p\/[^/]+$/, ''))
  }

  #revocation(peerId: string): Revocation | undefined {
    return this.#trust.revoked().find((revocation) => revocation.peerId === peerId)
  }

  /** Strangers are let in to pair, and not to stay. */
  readonly #onConnect = ({ peerId, direction }: Path): void => {
    // Whom we called is a host of ours, or a relay.
    if (direction === 'outbound') return
    if (this.#stays(peerId) || this.#hosts.has(peerId) || this.#strangers.has(peerId)) return
    this.#strangers.set(peerId, setTimeout(() => this.#dismiss(peerId), STRANGER_MS).unref())
  }

  #dismiss(peerId: string): void {
    clearTimeout(this.#strangers.get(peerId))
    this.#strangers.delete(peerId)
    if (!this.#stays(peerId)) void this.#overlay.disconnect(peerId, 'it has not paired')
  }
}

function freshCode() {
  const { nameplate, secret, text } = newCode()
  return { id: inviteIdOf(nameplate), secret, text, nameplate }
}

/** A multiaddr that ends with the PeerID of who is there. */
function peerOf(at: string): { peerId: string; addresses: string[] } {
  const match = /^(.+)\/p2p\/([^/]+)$/.exec(at)
  if (match === null)
    throw new FarportError(
      'ERR_USAGE',
      `"${at}" does not say who is there: write /ip4/ADDRESS/tcp/4001/p2p/PEERID`,
    )
  return { peerId: match[2] as string, addresses: [match[1] as string] }
}
