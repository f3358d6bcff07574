import type { Logger } from '../log.ts'
import type { Overlay, Path, RelayPolicy } from '../overlay/node.ts'
import { DIRECTORY_PROTOCOL, Directory } from '../relay/directory.ts'
import { Reception } from '../relay/reception.ts'
import { Roster } from '../relay/roster.ts'
import { sourceOf } from '../relay/source.ts'
import { RELAY_PROTOCOL } from '../relay/vouch-message.ts'
import { StunServer } from '../stun/server.ts'
import type { TrustChange, TrustStore } from '../trust/trust-store.ts'
import type { Audit } from './audit-log.ts'

interface RelayRoleOptions {
  trust: TrustStore
  /** For UDP and TCP; none when this relay is no STUN server. */
  stunPorts: readonly [number, number] | undefined
  audit: Audit | undefined
  log: Logger
}

/** What makes a node a relay: who may reserve and call, what agents tell of their callers, the directory, and STUN. */
export class RelayRole implements AsyncDisposable {
  readonly #trust: TrustStore
  readonly #audit: Audit | undefined
  readonly #log: Logger
  readonly #roster: Roster
  readonly #stun: StunServer | undefined
  #reception: Reception | undefined

  private constructor({ trust, audit, log }: RelayRoleOptions, stun: StunServer | undefined) {
    this.#trust = trust
    this.#audit = audit
    this.#log = log
    this.#stun = stun
    this.#roster = new Roster({
      trusts: (peerId) => trust.admits(peerId),
      mayRelay: (peerId) => trust.mayRelay(peerId),
    })
  }

  /** @throws FarportError ERR_IN_USE when a STUN port is taken */
  static async start(options: RelayRoleOptions): Promise<RelayRole> {
    const { stunPorts: ports, log } = options
    const stun = ports && (await StunServer.start({ hosts: ['0.0.0.0'], ports, log }))
    return new RelayRole(options, stun)
  }

  /** Whether a peer that is not in trusted_peers may connect now. */
  admits(peerId: string): boolean {
    return this.#roster.admits(peerId)
  }

  /** What the overlay asks. Who is refused is written down. */
  get policy(): RelayPolicy {
    return {
      mayReserve: (peerId) => this.#roster.mayReserve(peerId) || this.#refuse(peerId, 'it may not reserve'),
      mayCall: (source, destination) =>
        this.#roster.mayCall(source, destination) || this.#refuse(source, `it may not call ${destination}`),
    }
  }

  /** Begins, on the node that was made with the policy. */
  async serve(overlay: Overlay): Promise<void> {
    const cut = (peerId: string, reason: string) => void overlay.disconnect(peerId, reason)
    const stun = (this.#stun?.addresses ?? []).map(({ port }) => port)
    const reception = new Reception({ roster: this.#roster, stun, log: this.#log })
    this.#reception = reception
    this.#roster.on('lost', (peerIds, reason) => {
      for (const peerId of peerIds) cut(peerId, reason)
    })
    overlay.on('connect', ({ peerId, direction, remoteAddress }) => {
      if (direction === 'outbound' || this.#roster.enter(peerId, sourceOf(remoteAddress))) return
      this.#refuse(peerId, 'there are too many strangers already', remoteAddress)
      cut(peerId, 'there are too many strangers already')
    })
    overlay.on('disconnect', ({ peerId, direction }) => {
      if (direction === 'inbound') this.#roster.leave(peerId)
    })
    await overlay.handle(RELAY_PROTOCOL, (stream, from) => void reception.serve(stream, from))
    const directory = new Directory((nameplate) => this.#roster.find(nameplate))
    await overlay.handle(DIRECTORY_PROTOCOL, (stream, from) => {
      // Who comes through a relay has no address of its own.
      void directory.serve(stream, sourceOfPath(from))
    })
  }

  /** After a change of trust: agents that are none any more lose what they have here. */
  enforce(overlay: Overlay, { removed, narrowed }: TrustChange): void {
    this.#roster.enforce()
    for (const peerId of [...removed, ...narrowed])
      if (!this.#trust.mayRelay(peerId)) void overlay.disconnect(peerId, 'this relay no longer serves it')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#reception?.[Symbol.dispose]()
    this.#roster[Symbol.dispose]()
    await this.#stun?.[Symbol.asyncDispose]()
  }

  #refuse(peerId: string, reason: string, address?: string): false {
    this.#audit?.record({ event: 'refuse', peerId, ...(address !== undefined && { address }), reason })
    return false
  }
}

function sourceOfPath({ kind, peerId, remoteAddress }: Path): string {
  return kind === 'direct' ? sourceOf(remoteAddress) : peerId
}
