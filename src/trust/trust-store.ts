/**
 * `trusted_peers` in force, less `revoked_peers`: read, watched, and asked by whoever lets a peer in or opens a port. Fails
 * closed, as sshd does at each login: while one of the files can't be trusted or read, nobody has any right.
 */
import { EventEmitter } from 'node:events'
import { type FSWatcher, watch } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { printable } from '../printable.ts'
import {
  type Announced,
  announceKey,
  appendPeer,
  findPeer,
  promoteKey,
  recordPeer,
  removePeers,
} from './append-peer.ts'
import { hasExpired, isNarrower, type Right, rightsOn } from './grants.ts'
import { peerIdProblem } from './peer-id.ts'
import {
  REVOKED_PEERS,
  type Revocation,
  readRevokedPeers,
  rememberRevoked,
  revokedSentence,
} from './revoked-peers.ts'
import { lookAt, readTrustTable, type TrustTable } from './trust-table.ts'
import { formatTrustedPeer, type Problem, TRUSTED_PEERS, type TrustedPeer } from './trusted-peers.ts'

/**
 * The watcher answers in milliseconds where there is one; the poll is for what it can't see (network file systems, the
 * target of a link, a clock that was set) and for expiries. Together with the settling time it stays below a second.
 */
const POLL_MS = 500
/** Editors truncate and write, or move and write: act once the file has looked the same for so long, */
const SETTLE_MS = 100
/** but do act, also when it never stands still. */
const MAX_SETTLE_MS = 300

/** PeerIDs whose standing changed. */
export interface TrustChange {
  /** Admitted now, not before. */
  added: string[]
  /** No longer admitted: the line is gone or refused, or has expired. Cut what they have. */
  removed: string[]
  /** May have lost a right they had: ask `rights` again for what they have open. */
  narrowed: string[]
}

interface TrustStoreEvents {
  /** What is in force has changed. The lists may be empty, when grants only grew or an address is another. */
  change: [change: TrustChange]
}

/** Who was revoked now, or had been before. */
export interface Revoked extends Revocation {
  /** Its line stays in `trusted_peers`, refused: it keeps another of the same name out of force. */
  readonly lineStays: boolean
}

/** What came of a key that a peer has announced. */
export type Announcement = Announced | { readonly answer: 'revoked' }

/**
 * Opens the home's trust file; a missing one is empty, and is noticed when it comes.
 * @throws FarportError ERR_HOME when the home or the file could have been written by others, or can't be read
 */
export async function openTrustStore(
  home: string,
  { log, clock = Date.now }: { log: Logger; clock?: () => number },
): Promise<TrustStore> {
  const table = await readTrustTable(home)
  if (table.refused !== undefined) throw table.refused
  return new TrustStore(home, table, log, clock)
}

export class TrustStore extends EventEmitter<TrustStoreEvents> implements AsyncDisposable {
  readonly #home: string
  readonly #log: Logger
  readonly #clock: () => number
  readonly #closed = new AbortController()
  readonly #watcher: FSWatcher | undefined
  readonly #watching: Promise<void>
  #table: TrustTable
  /** Who was admitted when we last told. */
  #admitted: ReadonlyMap<string, TrustedPeer>
  /** Ends the pause between two looks. Renewed before each look, so that a hint during one is not lost. */
  #wake = new AbortController()
  /** Reading and writing the file happen one after the other. */
  #turn: Promise<void> = Promise.resolve()
  /**
   * How the file looked when we read it. Undefined asks for another read: after one that did not wait for the file to
   * settle, since a second write in the same tick of the file system's clock can look the same.
   */
  #lastLook: string | undefined

  /** For openTrustStore, which has read the table. */
  constructor(home: string, table: TrustTable, log: Logger, clock: () => number) {
    super()
    this.#home = home
    this.#log = log
    this.#clock = clock
    this.#table = table
    this.#admitted = this.#admittedNow()
    this.#report(table)
    this.#watcher = this.#watchDirectory()
    this.#watching = this.#keepWatch()
  }

  /** Whether the peer may connect at all. */
  admits(peerId: string): boolean {
    const peer = this.byId(peerId)
    return peer !== undefined && !hasExpired(peer, this.#clock())
  }

  /** What the peer may do with a shared port, now. */
  rights(peerId: string, port: string): ReadonlySet<Right> {
    const peer = this.byId(peerId)
    return peer === undefined ? new Set() : rightsOn(peer, port, this.#clock())
  }

  /** Whether the peer may use us as its relay: reserve, and vouch for others. */
  mayRelay(peerId: string): boolean {
    return this.admits(peerId) && (this.byId(peerId)?.may.includes('relay') ?? false)
  }

  /** The peer's line by either of its keys, also when it has expired. */
  byId(peerId: string): TrustedPeer | undefined {
    return this.#table.byId.get(peerId)
  }

  /** The peer's line, also when it has expired. */
  byName(name: string): TrustedPeer | undefined {
    return this.#table.byName.get(name)
  }

  /** In the order of the file, expired ones too. */
  peers(): TrustedPeer[] {
    return [...this.#table.byName.values()]
  }

  /** Whom `revoke` keeps out, in the order in which it happened. */
  revoked(): Revocation[] {
    return [...this.#table.revoked.values()]
  }

  /** What is not in force. */
  problems(): readonly Problem[] {
    return this.#table.problems
  }

  /**
   * Writes a line for the peer, in force when this resolves.
   * @throws FarportError ERR_USAGE when no such line can be, ERR_HOME when the file can't be written, ERR_NOT_TRUSTED when
   * the peer has been revoked
   */
  async add(peer: TrustedPeer): Promise<void> {
    await this.#inTurn(async () => {
      await refuseRevoked(this.#home, peer)
      await appendPeer(this.#home, peer)
    })
    await this.refresh()
  }

  /**
   * Writes the line of a peer that has paired, by a free name, or in the place of the line it has: see append-peer.ts. In
   * force when this resolves, with the line as it was written.
   * @throws FarportError ERR_USAGE when no such line can be, ERR_HOME when the file can't be written, ERR_NOT_TRUSTED when
   * the peer has been revoked
   */
  async record(peer: TrustedPeer): Promise<TrustedPeer> {
    const written = await this.#inTurn(async () => {
      await refuseRevoked(this.#home, peer)
      return await recordPeer(this.#home, peer, this.#clock())
    })
    await this.refresh()
    return written
  }

  /**
   * Notes a key that the peer has announced in the place of its own: see append-peer.ts. In force when this resolves.
   * @throws FarportError ERR_USAGE when its line has no room, ERR_HOME when the file can't be written
   */
  async announce(peerId: string, next: string): Promise<Announcement> {
    const announced = await this.#inTurn(async (): Promise<Announcement> => {
      const { revoked } = await readRevokedPeers(this.#home)
      if (revoked.has(next)) return { answer: 'revoked' }
      if (revoked.has(peerId)) return { answer: 'untrusted' }
      return await announceKey(this.#home, peerId, next, this.#clock())
    })
    if (announced.answer === 'noted') await this.refresh()
    return announced
  }

  /**
   * Gives the line of a peer over to the key it has announced, for good: the key it had is revoked. Answers with that one,
   * or undefined when no line has announced this key.
   *
   * The line is written first. What dies in between leaves the old key without a line, which is not let in either; the other
   * way round it would leave a line that is refused, and a peer locked out.
   * @throws FarportError ERR_USAGE, ERR_HOME
   */
  async promote(next: string): Promise<string | undefined> {
    try {
      return await this.#inTurn(async () => {
        const before = await promoteKey(this.#home, next)
        if (before === undefined) return undefined
        const { revoked } = await readRevokedPeers(this.#home)
        const name = (await findPeer(this.#home, next))?.name
        const gone = { peerId: before, revokedAt: this.#timestamp(), ...(name !== undefined && { name }) }
        if (!revoked.has(before)) await rememberRevoked(this.#home, [gone])
        return before
      })
    } finally {
      await this.refresh()
    }
  }

  /**
   * Takes trust back for good from peers named by their name in `trusted_peers` or by their PeerID: they are written into
   * `revoked_peers`, then their lines are deleted. In this order, so that whatever happens in between, nobody of them is
   * trusted any more; to revoke again finishes it. All are cut off, or, when one name is unknown, none.
   * @throws FarportError ERR_NOT_TRUSTED when no line has the name, ERR_USAGE when its line has no PeerID, ERR_HOME
   */
  async revoke(namesOrPeerIds: readonly string[]): Promise<Revoked[]> {
    try {
      return await this.#inTurn(async () => {
        const peers = new Map<string, Revocation>()
        const { revoked } = await readRevokedPeers(this.#home)
        const revokedAt = this.#timestamp()
        for (const word of namesOrPeerIds) {
          const named = await findPeer(this.#home, word)
          if (named === undefined && peerIdProblem(word) !== undefined)
            throw new FarportError(
              'ERR_NOT_TRUSTED',
              `no peer is called ${printable(word)}: see  farport peers  for those in trusted_peers`,
            )
          const { next = [], ...peer } = named ?? { peerId: word }
          // The announced keys first: a file that took half of it must not leave one of them in force.
          for (const peerId of [...next, peer.peerId])
            peers.set(peerId, revoked.get(peerId) ?? { ...peer, peerId, revokedAt })
        }
        const all = [...peers.values()]
        await rememberRevoked(
          this.#home,
          all.filter(({ peerId }) => !revoked.has(peerId)),
        )
        const removed = await removePeers(this.#home, [...peers.keys()])
        return all.map((peer) => ({ ...peer, lineStays: !removed.includes(peer.peerId) }))
      })
    } finally {
      // Also when the second file could not be written: the first cuts them off.
      await this.refresh()
    }
  }

  /** Puts the file in force as it is now, without waiting for the watcher. */
  async refresh(): Promise<void> {
    await this.#read(undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort()
    this.#wake.abort()
    this.#watcher?.close()
    await this.#watching
    await this.#turn
  }

  #watchDirectory(): FSWatcher | undefined {
    const pollOnly = (err: unknown) => this.#log.debug({ err }, 'trusted_peers is polled only')
    try {
      // The directory, not the file: editors put a new file in its place.
      return watch(this.#home, { persistent: false }, (_event, name) => {
        if (name === null || name === TRUSTED_PEERS || name === REVOKED_PEERS) this.#wake.abort()
      }).on('error', pollOnly)
    } catch (error) {
      pollOnly(error)
      return undefined
    }
  }

  async #keepWatch(): Promise<void> {
    const closed = this.#closed.signal
    while (!closed.aborted) {
      this.#wake = new AbortController()
      const look = await lookAt(this.#home)
      if (look !== this.#lastLook) await this.#read(await this.#settled(look))
      else this.#announce()
      if (!closed.aborted) await pause(POLL_MS, this.#wake.signal)
    }
  }

  /** Waits until the file stands still, and answers how it looks then. */
  async #settled(look: string): Promise<string> {
    let last = look
    for (let waitedMs = 0; waitedMs < MAX_SETTLE_MS; waitedMs += SETTLE_MS) {
      await pause(SETTLE_MS, this.#closed.signal)
      const next = await lookAt(this.#home)
      if (next === last) break
      last = next
    }
    return last
  }

  async #read(look: string | undefined): Promise<void> {
    await this.#inTurn(async () => {
      const table = await readTrustTable(this.#home)
      if (this.#closed.signal.aborted) return
      // What could not be read may become readable without looking different, so go on trying.
      this.#lastLook = table.refused === undefined ? look : undefined
      if (!isDeepStrictEqual(table.problems, this.#table.problems)) this.#report(table)
      this.#table = table
      this.#announce()
    })
  }

  /** ISO 8601, in UTC. */
  #timestamp(): string {
    return `${new Date(this.#clock()).toISOString().slice(0, 19)}Z`
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work)
    this.#turn = done.then(
      () => {},
      () => {},
    )
    return await done
  }

  /** Tells what has changed since it last told, by another file or by time alone. */
  #announce(): void {
    const before = this.#admitted
    const now = this.#admittedNow()
    const change: TrustChange = { added: [], removed: [], narrowed: [] }
    let differs = false
    for (const [peerId, peer] of now) {
      const old = before.get(peerId)
      if (old === undefined) change.added.push(peerId)
      else if (isNarrower(peer, old)) change.narrowed.push(peerId)
      differs ||= old === undefined || (old !== peer && formatTrustedPeer(old) !== formatTrustedPeer(peer))
    }
    for (const peerId of before.keys()) if (!now.has(peerId)) change.removed.push(peerId)
    this.#admitted = now
    if (!differs && change.removed.length === 0) return
    this.#log.info(change, 'trusted peers changed')
    this.emit('change', change)
  }

  #admittedNow(): ReadonlyMap<string, TrustedPeer> {
    const now = this.#clock()
    return new Map([...this.#table.byId].filter(([, peer]) => !hasExpired(peer, now)))
  }

  #report({ refused, problems }: TrustTable): void {
    if (refused !== undefined) this.#log.error({ problem: refused.message }, 'nobody is trusted')
    else for (const problem of problems) this.#log.warn(problem, 'a line is refused')
  }
}

/**
 * A pairing does not undo a revocation. An invite is meant for a person, and whoever has a stolen machine's key may come by
 * its code; that the key is back in the right hands is for the owner to say, by deleting the line.
 */
async function refuseRevoked(home: string, { peerId }: TrustedPeer): Promise<void> {
  const revocation = (await readRevokedPeers(home)).revoked.get(peerId)
  if (revocation !== undefined) throw new FarportError('ERR_NOT_TRUSTED', revokedSentence(revocation))
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { ref: false, signal }).catch(() => {})
}
