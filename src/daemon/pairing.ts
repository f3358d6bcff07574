import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { announceOnLan, findOnLan } from '../overlay/lan.ts'
import type { Overlay, Path } from '../overlay/node.ts'
import { describesTicketOrCode, newCode, parseCode } from '../trust/code.ts'
import type { Grant, Right } from '../trust/grants.ts'
import { type Attempt, INVITE_LIFETIME_MS, type InviteEnd, Invites, type Source } from '../trust/invites.ts'
import { joinInvite, recordPeer, serveInvite } from '../trust/pair-stream.ts'
import { inviteIdOf, PAIR_PROTOCOL, type PairingFailure } from '../trust/pairing.ts'
import type { Terms } from '../trust/pairing-terms.ts'
import { decodeTicket, encodeTicket } from '../trust/ticket.ts'
import type { TrustStore } from '../trust/trust-store.ts'
import type { TrustedPeer } from '../trust/trusted-peers.ts'
import type { Audit } from './audit-log.ts'

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
/** How long a code is looked for on the LAN. */
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
  log: Logger
}

/** Lets strangers in for as long as an invite is open, for nothing but to pair; and takes up invites of others. */
export class Pairing implements Disposable {
  readonly #overlay: Overlay
  readonly #trust: TrustStore
  readonly #name: string
  readonly #audit: Audit | undefined
  readonly #log: Logger
  readonly #invites: Invites
  /** Peers that a ticket or the LAN named, while we pair with them. */
  readonly #hosts = new Set<string>()
  readonly #strangers = new Map<string, NodeJS.Timeout>()

  constructor({ overlay, trust, name, audit, log }: PairingOptions) {
    this.#overlay = overlay
    this.#trust = trust
    this.#name = name
    this.#audit = audit
    this.#log = log
    const failed = ({ peerId, address }: Source, reason: PairingFailure) =>
      audit?.record({
        event: 'refuse',
        peerId,
        ...(address !== undefined && { address }),
        reason: `pairing failed: ${reason}`,
      })
    this.#invites = new WatchedInvites({ self: overlay.peerId, record: recordPeer(trust) }, failed)
    overlay.on('connect', this.#onConnect)
  }

  /** Whether a peer that is not in trusted_peers may connect now. */
  admits(peerId: string): boolean {
    return this.#hosts.has(peerId) || (this.#invites.size > 0 && this.#strangers.size < MAX_STRANGERS)
  }

  /** Serves a stream on which a peer speaks PAIR_PROTOCOL. */
  async serve(stream: Duplex, { peerId, remoteAddress, kind }: Path): Promise<void> {
    const address =
      kind === 'direct' ? (/^\/ip[46]\/([^/]+)/.exec(remoteAddress)?.[1] ?? remoteAddress) : undefined
    await serveInvite(stream, {
      self: this.#overlay.peerId,
      joiner: peerId,
      invites: this.#invites,
      ...(address === undefined ? {} : { address }),
      signal: AbortSignal.timeout(STRANGER_MS),
    })
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
    const addrs = this.#reachable()
    const terms: Terms = {
      name: this.#name,
      ports,
      may,
      addrs,
      ...(expires === undefined ? {} : { expires }),
    }
    const { id, secret, text, nameplate } = form === 'code' ? freshCode() : this.#freshTicket(addrs, until)
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
          addresses: () => this.#reachable(),
          log: this.#log,
        }),
      )
    report({ event: 'invite', form, text, ports, may, until })
    const how = await over.promise
    report({ event: 'ended', how })
    return how
  }

  /**
   * Takes up an invite of another machine.
   * @param at where to look for it, with its PeerID, when a code can't be found on the LAN
   * @throws FarportError ERR_USAGE for what is no ticket or code, ERR_NOT_TRUSTED, ERR_PEER_UNREACHABLE
   */
  async join(text: string, { at, signal }: { at?: string; signal: AbortSignal }): Promise<Joined> {
    const terms: Terms = { name: this.#name, ports: [], may: [], addrs: [] }
    if (describesTicketOrCode(text) === 'ticket') {
      const { peerId, addresses, inviteId, secret } = decodeTicket(text, Date.now())
      try {
        return await this.#joinAt(
          { peerId, addresses },
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
      return await this.#joinOnLan(nameplate, invite, signal)
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
  async #joinOnLan(
    nameplate: string,
    invite: { inviteId: Uint8Array; secret: Uint8Array; terms: Terms },
    signal: AbortSignal,
  ): Promise<Joined> {
    const enough = new AbortController()
    const bounded = AbortSignal.any([signal, enough.signal, AbortSignal.timeout(FIND_MS)])
    const refusals = new Map<string, unknown>()
    let unreachable: unknown
    for await (const found of findOnLan(nameplate, { signal: bounded, log: this.#log })) {
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
        `nobody on this network has an open invite ${nameplate}-…: is it still open, and are both machines on one LAN? A ticket works everywhere`,
      )
    )
  }

  async #joinAt(
    { peerId, addresses }: { peerId: string; addresses: readonly string[] },
    invite: { inviteId: Uint8Array; secret: Uint8Array; terms: Terms; expected?: string },
    signal: AbortSignal,
  ): Promise<Joined> {
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
      const addrs = [...new Set([...addresses, ...joined.peer.addrs])]
      return { peer: await recordPeer(this.#trust)({ ...joined.peer, addrs }), allows: joined.allows }
    } finally {
      this.#hosts.delete(peerId)
      this.#dismiss(peerId)
    }
  }

  #freshTicket(addresses: readonly string[], until: number) {
    const id = randomBytes(8)
    const secret = randomBytes(16)
    const text = encodeTicket({
      peerId: this.#overlay.peerId,
      addresses,
      inviteId: id,
      secret,
      expires: until,
    })
    return { id, secret, text, nameplate: undefined }
  }

  /** Our addresses as another machine would dial them. */
  #reachable(): string[] {
    const all = this.#overlay.addresses().map((address) => address.replace(/\/p2p\/[^/]+$/, ''))
    const outside = all.filter((address) => !/^\/ip4\/127\.|^\/ip6\/::1\//.test(address))
    return (outside.length > 0 ? outside : all).slice(0, 4)
  }

  /** Strangers are let in to pair, and not to stay. */
  readonly #onConnect = ({ peerId }: Path): void => {
    if (this.#trust.admits(peerId) || this.#hosts.has(peerId) || this.#strangers.has(peerId)) return
    this.#strangers.set(peerId, setTimeout(() => this.#dismiss(peerId), STRANGER_MS).unref())
  }

  #dismiss(peerId: string): void {
    clearTimeout(this.#strangers.get(peerId))
    this.#strangers.delete(peerId)
    if (!this.#trust.admits(peerId)) void this.#overlay.disconnect(peerId, 'it has not paired')
  }
}

/** Says of each try that failed who made it, which the book's own events don't. */
class WatchedInvites extends Invites {
  readonly #failed: (source: Source, reason: PairingFailure) => void

  constructor(
    options: ConstructorParameters<typeof Invites>[0],
    failed: (source: Source, reason: PairingFailure) => void,
  ) {
    super(options)
    this.#failed = failed
    this.on('refused', (_id, reason, source) => failed(source, reason))
  }

  override begin(id: Uint8Array, source: Source): Attempt {
    const attempt = super.begin(id, source)
    return {
      ...attempt,
      fail: (reason) => {
        // The book says `failed` at once or, when the try is over anyhow, never.
        const tell = () => this.#failed(source, reason)
        this.once('failed', tell)
        attempt.fail(reason)
        this.off('failed', tell)
      },
    }
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
