/**
 * Who may do what on a relay, from what its owner and its agents say; holds no stream. The owner says who is an agent:
 * `may=relay` in trusted_peers. Each agent says who may call it: it vouches for PeerIDs, and while one of its invites is
 * open, its door is open to strangers. Nobody else gets in, and nobody who does gets further than to those agents.
 */
import { EventEmitter } from 'node:events'
import { FarportError } from '../errors.ts'

/** What one agent may ask of us. */
export const MAX_VOUCHES = 2_000
/** As many as an agent has invites open. */
export const MAX_DOORS = 4
/** An invite lasts ten minutes; clocks run at their own pace. */
export const MAX_DOOR_MS = 11 * 60_000
const MAX_AGENTS = 2_000

/** What an agent said stands so long after it was last heard: a peer of it must find it when it comes back. */
const GRACE_MS = 60_000

/** Strangers come to pair, which takes seconds. */
const STRANGER_MS = 20_000
const MAX_STRANGERS = 32
/** People who pair behind one address. */
const MAX_STRANGERS_PER_SOURCE = 4

/** An open invite of an agent. */
export interface Door {
  /** The three digits under which the directory tells of it; none for a ticket, which names the agent. */
  readonly nameplate?: string
  readonly forMs: number
}

/** What an agent has changed: whom it vouches for, and no longer; all its doors, when they are others than before. */
export interface Standing {
  readonly vouch: Iterable<string>
  readonly unvouch: Iterable<string>
  readonly doors?: readonly Door[]
}

interface RosterEvents {
  /** These have lost what they came by: cut what they have here. Some may have another way in, and come back by it. */
  lost: [peerIds: string[], reason: string]
}

interface RosterOptions {
  /** Whether the peer is in the owner's trusted_peers, with whatever rights. */
  trusts: (peerId: string) => boolean
  /** Whether the owner lets this peer reserve and vouch. */
  mayRelay: (peerId: string) => boolean
  /** Milliseconds from a clock that nobody sets. */
  clock?: () => number
}

interface OpenDoor {
  readonly nameplate?: string
  readonly until: number
}

/** `gone` since its stream was lost; what it said stands until the grace is over. */
interface Agent {
  readonly vouches: Set<string>
  doors: readonly OpenDoor[]
  gone: NodeJS.Timeout | undefined
  session: symbol
}

/** Somebody who is in because a door is open. */
interface Stranger {
  readonly source: string
  readonly timer: NodeJS.Timeout
  connections: number
}

export class Roster extends EventEmitter<RosterEvents> implements Disposable {
  readonly #trusts: RosterOptions['trusts']
  readonly #mayRelay: RosterOptions['mayRelay']
  readonly #clock: () => number
  readonly #agents = new Map<string, Agent>()
  /** How many agents vouch for a peer. */
  readonly #vouchedBy = new Map<string, number>()
  readonly #strangers = new Map<string, Stranger>()

  constructor({ trusts, mayRelay, clock = () => performance.now() }: RosterOptions) {
    super()
    this.#trusts = trusts
    this.#mayRelay = mayRelay
    this.#clock = clock
  }

  /** Whether the peer may connect to this relay. */
  admits(peerId: string): boolean {
    if (this.#hasStanding(peerId) || this.#strangers.has(peerId)) return true
    return this.#strangers.size < MAX_STRANGERS && this.#anyDoor()
  }

  /** Whether the peer may hold a reservation. */
  mayReserve(peerId: string): boolean {
    return this.#mayRelay(peerId)
  }

  /** Whether one peer may call another through us: that one wants it, or takes whoever comes for now. */
  mayCall(source: string, destination: string): boolean {
    const agent = this.#agents.get(destination)
    if (agent === undefined || !this.#mayRelay(destination)) return false
    return agent.vouches.has(source) || this.#openDoors(agent).length > 0
  }

  /** The agents that have a door open under this nameplate. */
  find(nameplate: string): string[] {
    const found: string[] = []
    for (const [peerId, agent] of this.#agents)
      if (this.#openDoors(agent).some((door) => door.nameplate === nameplate) && this.#mayRelay(peerId))
        found.push(peerId)
    return found
  }

  /**
   * A peer has connected. One that no agent vouches for is let in for a short time, a few from each source.
   * @returns false when it is one too many: then it must go at once
   */
  enter(peerId: string, source: string): boolean {
    const known = this.#strangers.get(peerId)
    if (known !== undefined) {
      known.connections++
      return true
    }
    if (this.#hasStanding(peerId)) return true
    const fromThere = [...this.#strangers.values()].filter((other) => other.source === source).length
    if (this.#strangers.size >= MAX_STRANGERS || fromThere >= MAX_STRANGERS_PER_SOURCE) return false
    const timer = setTimeout(() => this.#dismiss(peerId), STRANGER_MS).unref()
    this.#strangers.set(peerId, { source, timer, connections: 1 })
    return true
  }

  /** One connection of a peer is gone. */
  leave(peerId: string): void {
    const stranger = this.#strangers.get(peerId)
    if (stranger === undefined || --stranger.connections > 0) return
    clearTimeout(stranger.timer)
    this.#strangers.delete(peerId)
  }

  /**
   * An agent begins to tell us what it wants, or begins anew: what it said before stands until it has said all.
   * @throws FarportError ERR_NOT_GRANTED when it is no agent of ours, ERR_UNFIT when there are too many
   */
  begin(peerId: string): AgentSession {
    if (!this.#mayRelay(peerId))
      throw new FarportError(
        'ERR_NOT_GRANTED',
        `this relay does not serve ${peerId}: its owner can add may=relay to its line in trusted_peers there`,
      )
    const session = Symbol(peerId)
    const agent = this.#agents.get(peerId)
    if (agent !== undefined) agent.session = session
    else if (this.#agents.size >= MAX_AGENTS)
      throw new FarportError('ERR_UNFIT', `this relay has ${MAX_AGENTS} agents already, its most`)
    else this.#agents.set(peerId, { vouches: new Set(), doors: [], gone: undefined, session })
    this.#stay(peerId)
    return {
      replace: (standing) => this.#say(peerId, session, standing, true),
      change: (standing) => this.#say(peerId, session, standing, false),
      end: () => this.#begone(peerId, session),
    }
  }

  /** After each change of trust: what an agent said that is none any more does not count. */
  enforce(): void {
    for (const peerId of this.#agents.keys())
      if (!this.#mayRelay(peerId)) this.#forget(peerId, 'this relay no longer serves it')
  }

  [Symbol.dispose](): void {
    for (const { gone } of this.#agents.values()) clearTimeout(gone)
    for (const { timer } of this.#strangers.values()) clearTimeout(timer)
    this.#agents.clear()
    this.#strangers.clear()
    this.#vouchedBy.clear()
  }

  #say(peerId: string, session: symbol, standing: Standing, anew: boolean): void {
    const agent = this.#agents.get(peerId)
    if (agent?.session !== session)
      throw new FarportError('ERR_NOT_GRANTED', `${peerId} has begun anew elsewhere, or is no agent any more`)
    const vouch = new Set(standing.vouch)
    const unvouch = anew
      ? [...agent.vouches].filter((peer) => !vouch.has(peer))
      : [...new Set(standing.unvouch)]
    const more = [...vouch].filter((peer) => !agent.vouches.has(peer)).length
    const fewer = unvouch.filter((peer) => agent.vouches.has(peer)).length
    if (agent.vouches.size + more - fewer > MAX_VOUCHES)
      throw new FarportError(
        'ERR_UNFIT',
        `an agent can vouch for ${MAX_VOUCHES} peers on this relay, not more`,
      )
    if ((standing.doors?.length ?? 0) > MAX_DOORS)
      throw new FarportError('ERR_UNFIT', `an agent can have ${MAX_DOORS} doors open on this relay, not more`)
    const lost = unvouch.filter((peer) => this.#unvouch(agent, peer))
    for (const peer of vouch) this.#vouch(agent, peer)
    if (standing.doors !== undefined || anew)
      agent.doors = (standing.doors ?? []).map(({ nameplate, forMs }) => ({
        ...(nameplate !== undefined && { nameplate }),
        until: this.#clock() + Math.min(forMs, MAX_DOOR_MS),
      }))
    if (lost.length > 0) this.emit('lost', lost, 'an agent no longer vouches for it')
  }

  #vouch(agent: Agent, peerId: string): void {
    if (agent.vouches.has(peerId)) return
    agent.vouches.add(peerId)
    this.#vouchedBy.set(peerId, (this.#vouchedBy.get(peerId) ?? 0) + 1)
    // It has paired, say: from here on it is no stranger.
    const stranger = this.#strangers.get(peerId)
    clearTimeout(stranger?.timer)
    this.#strangers.delete(peerId)
  }

  /** @returns whether there was something to take back */
  #unvouch(agent: Agent, peerId: string): boolean {
    if (!agent.vouches.delete(peerId)) return false
    const left = (this.#vouchedBy.get(peerId) ?? 0) - 1
    if (left > 0) this.#vouchedBy.set(peerId, left)
    else this.#vouchedBy.delete(peerId)
    return true
  }

  /** It is here, or here again. */
  #stay(peerId: string): void {
    const agent = this.#agents.get(peerId)
    clearTimeout(agent?.gone)
    if (agent !== undefined) agent.gone = undefined
  }

  #begone(peerId: string, session: symbol): void {
    const agent = this.#agents.get(peerId)
    if (agent?.session !== session) return
    agent.gone = setTimeout(
      () => this.#forget(peerId, 'the agent that vouched for it is gone'),
      GRACE_MS,
    ).unref()
  }

  #forget(peerId: string, reason: string): void {
    const agent = this.#agents.get(peerId)
    if (agent === undefined) return
    clearTimeout(agent.gone)
    this.#agents.delete(peerId)
    const lost = [...agent.vouches].filter((peer) => this.#unvouch(agent, peer))
    this.emit('lost', this.#mayRelay(peerId) ? lost : [peerId, ...lost], reason)
  }

  #dismiss(peerId: string): void {
    this.#strangers.delete(peerId)
    if (!this.#hasStanding(peerId)) this.emit('lost', [peerId], 'it has not paired in time')
  }

  #hasStanding(peerId: string): boolean {
    return this.#trusts(peerId) || this.#vouchedBy.has(peerId)
  }

  #anyDoor(): boolean {
    for (const agent of this.#agents.values()) if (this.#openDoors(agent).length > 0) return true
    return false
  }

  #openDoors(agent: Agent): readonly OpenDoor[] {
    if (agent.doors.length > 0) {
      const now = this.#clock()
      agent.doors = agent.doors.filter(({ until }) => now < until)
    }
    return agent.doors
  }
}

/** One agent's say, until another session of the same agent takes its place. */
export interface AgentSession {
  /** All that it wants, in the place of what it said in earlier sessions. @throws FarportError */
  replace(standing: Standing): void
  /** @throws FarportError */
  change(standing: Standing): void
  /** Its stream is gone. */
  end(): void
}
