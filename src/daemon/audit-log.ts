/**
 * `audit.log` in the home of a machine that shares ports: who was let in, who was turned away, and what was done to
 * which port. One JSON object a line, appended; everything a peer said is escaped, and no line holds payload or a secret.
 *
 *   every line  time (ISO 8601, UTC), event, peer (PeerID), name (as in trusted_peers; none for strangers)
 *   pair        ports, may, by (ticket, code)
 *   refuse      address, reason
 *   open        port, path (direct, relayed), address; mode, when it is not to use the port but to "watch" it
 *   configure   port, from, to ("115200 8N1"), changes
 *   lines       port, and of dtr, rts, break those that changed: {on, changes}; sequence: {name, runs},
 *               when resets were run here
 *   steal       port, path, address, from (PeerID), fromName: it takes the port, which the other loses
 *   close       port, path, address, toDevice, fromDevice (bytes of data), durationMs, reason; of a watcher mode, and
 *               bytes skipped because it was too slow and ignored because it may not write
 *   revoke      reason
 *   rotate      to (PeerID), state. A peer's key: announced, in force. Ours: accepted by the peer, switched
 *   left-out    refusals: how many were not written one by one, see RefusalLimit; addresses: how many they came from, as
 *               far as they are told apart
 *   lost        lines: how many could not be written
 *
 * A program can toggle DTR thousands of times a second, so `configure` and `lines` are gathered by peer and port and
 * written a second after the first of them, or before the port's `close`: `changes` counts, the values are the last.
 *
 * The file is opened for each line. Lines are few, and so a disk that was full, a file that was moved away or whose modes
 * were put right needs nobody to notice.
 */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { printable } from '../printable.ts'
import type { CallerPath, HostEvent } from '../session/port-event.ts'
import type { Right } from '../trust/grants.ts'
import { checkModes } from '../trust/strict-modes.ts'

export type AuditEvent =
  | HostEvent
  | {
      readonly event: 'pair'
      readonly peerId: string
      readonly ports: readonly string[]
      readonly may: readonly Right[]
      readonly by: 'ticket' | 'code'
    }
  /** Turned away before there was a session. `address` is a multiaddr or an IP address. */
  | {
      readonly event: 'refuse'
      readonly peerId: string
      readonly address?: string
      readonly path?: undefined
      readonly reason: string
    }
  | { readonly event: 'revoke'; readonly peerId: string; readonly reason: string }
  /** A key takes another's place; `peerId` is whose key it is, or who has accepted ours. */
  | {
      readonly event: 'rotate'
      readonly peerId: string
      readonly next: string
      readonly state: 'announced' | 'in force' | 'accepted' | 'switched'
    }

/** Where events are kept account of. */
export interface Audit {
  /** Never throws: an account that can't be kept is no reason to stop. */
  record(event: AuditEvent): void
}

export interface AuditLogOptions {
  home: string
  /** What trusted_peers calls the peer. */
  nameOf: (peerId: string) => string | undefined
  log: Logger
  /** When it is as large, it becomes `audit.log.1`, in the place of the one before. Default 8 MiB. */
  maxBytes?: number
  /** The system's write(2), for tests. */
  write?: (fd: number, line: Buffer) => number
}

export const AUDIT_LOG = 'audit.log'

const MAX_BYTES = 8 * 1024 * 1024
/** Of each thing a peer said. */
const MAX_TEXT = 256
const GATHER_MS = 1000

/**
 * @throws FarportError ERR_HOME when others can read or write the file that is there: what it says can't be believed.
 * Nothing else keeps us from starting, see AuditLog.
 */
export function openAuditLog(options: AuditLogOptions): AuditLog {
  const path = join(options.home, AUDIT_LOG)
  try {
    closeSync(openToAppend(path, 0).fd)
  } catch (error) {
    // Anything but its modes may yet pass, and is reported when there is a line to write.
    if (error instanceof FarportError) throw error
  }
  return new AuditLog(options)
}

/** A line that can't be written is lost and counted; the log tells once, and the file when it can be written again. */
export class AuditLog implements Audit, Disposable {
  readonly #path: string
  readonly #nameOf: AuditLogOptions['nameOf']
  readonly #log: Logger
  readonly #maxBytes: number
  readonly #write: (fd: number, line: Buffer) => number
  readonly #refusals = new RefusalLimit((summary) => this.#append('left-out', undefined, summary))
  /** By peer and port. A port has one holder, so there are no more than ports. */
  readonly #gathered = new Map<string, Gathered>()
  #lost = 0

  /** For openAuditLog. */
  constructor({ home, nameOf, log, maxBytes = MAX_BYTES, write = writeSync }: AuditLogOptions) {
    this.#path = join(home, AUDIT_LOG)
    this.#nameOf = nameOf
    this.#log = log
    this.#maxBytes = maxBytes
    this.#write = write
  }

  record(event: AuditEvent): void {
    const { peerId } = event
    switch (event.event) {
      case 'refuse': {
        const place = 'address' in event ? { address: event.address } : placeOf(event)
        if (this.#refusals.admit(hostOf(place.address) ?? peerId))
          this.#append('refuse', peerId, { ...place, reason: event.reason })
        break
      }
      case 'configure':
      case 'lines':
        this.#gather(event)
        break
      case 'open':
        this.#append('open', peerId, { port: event.port, ...modeOf(event), ...placeOf(event) })
        break
      case 'steal': {
        const { port, from } = event
        const fromName = this.#nameOf(from)
        this.#append('steal', peerId, { port, ...placeOf(event), from, ...(fromName && { fromName }) })
        break
      }
      case 'close': {
        const { port, toDevice, fromDevice, skipped, ignored, durationMs, reason } = event
        if (event.mode === undefined) this.#settle(keyOf(event))
        this.#append('close', peerId, {
          port,
          ...modeOf(event),
          ...placeOf(event),
          toDevice,
          fromDevice,
          ...(skipped && { skipped }),
          ...(ignored && { ignored }),
          durationMs,
          reason,
        })
        break
      }
      case 'pair':
        this.#append('pair', peerId, { ports: event.ports, may: event.may, by: event.by })
        break
      case 'revoke':
        this.#append('revoke', peerId, { reason: event.reason })
        break
      case 'rotate':
        this.#append('rotate', peerId, { to: event.next, state: event.state })
        break
      default:
        event satisfies never
    }
  }

  /** Writes what was held back. */
  [Symbol.dispose](): void {
    for (const key of this.#gathered.keys()) this.#settle(key)
    this.#refusals[Symbol.dispose]()
    if (this.#lost > 0) this.#log.error({ lines: this.#lost }, 'lines of the audit log were lost')
  }

  #gather(event: HostEvent & { event: 'configure' | 'lines' }): void {
    const key = keyOf(event)
    const { peerId, port } = event
    const gathered = this.#gathered.get(key) ?? {
      peerId,
      port,
      timer: setTimeout(() => this.#settle(key), GATHER_MS).unref(),
      settings: undefined,
      lines: {},
      sequence: undefined,
    }
    this.#gathered.set(key, gathered)
    if (event.event === 'configure') {
      const { from, changes } = gathered.settings ?? { from: event.from, changes: 0 }
      gathered.settings = { from, to: event.to, changes: changes + 1 }
      return
    }
    const { sequence } = event.changed
    if (sequence !== undefined)
      gathered.sequence = { name: sequence, runs: (gathered.sequence?.runs ?? 0) + 1 }
    for (const line of ['dtr', 'rts', 'break'] as const) {
      const on = event.changed[line]
      if (on !== undefined) gathered.lines[line] = { on, changes: (gathered.lines[line]?.changes ?? 0) + 1 }
    }
  }

  #settle(key: string): void {
    const gathered = this.#gathered.get(key)
    if (gathered === undefined) return
    this.#gathered.delete(key)
    const { peerId, port, timer, settings, lines, sequence } = gathered
    clearTimeout(timer)
    if (settings !== undefined) this.#append('configure', peerId, { port, ...settings })
    if (Object.keys(lines).length > 0 || sequence !== undefined)
      this.#append('lines', peerId, { port, ...lines, ...(sequence && { sequence }) })
  }

  #append(event: string, peer: string | undefined, fields: object): void {
    const name = peer === undefined ? undefined : this.#nameOf(peer)
    const line = lineOf({ event, peer, name, ...fields })
    try {
      if (this.#lost === 0) this.#appendBytes(line)
      else {
        this.#appendBytes(Buffer.concat([lineOf({ event: 'lost', lines: this.#lost }), line]))
        this.#log.info({ lines: this.#lost }, 'the audit log can be written again')
        this.#lost = 0
      }
    } catch (error) {
      if (this.#lost === 0)
        this.#log.error({ err: error }, 'the audit log can not be written; lines are lost')
      this.#lost++
    }
  }

  #appendBytes(bytes: Buffer): void {
    const { fd, size } = this.#openFor(bytes.length)
    try {
      if (this.#write(fd, bytes) === bytes.length) return
      // Half a line would spoil the next one.
      ftruncateSync(fd, size)
      throw new FarportError('ERR_HOME', `${this.#path} took half a line only: is the disk full?`)
    } finally {
      closeSync(fd)
    }
  }

  /** The file there is, or a new one when it has no room. */
  #openFor(bytes: number): { fd: number; size: number } {
    const file = openToAppend(this.#path, constants.O_CREAT)
    if (file.size === 0 || file.size + bytes <= this.#maxBytes) return file
    closeSync(file.fd)
    renameSync(this.#path, `${this.#path}.1`)
    return openToAppend(this.#path, constants.O_CREAT)
  }
}

/** What a peer has changed on a port within a second. */
interface Gathered {
  readonly peerId: string
  readonly port: string
  readonly timer: NodeJS.Timeout
  settings: { from: string; to: string; changes: number } | undefined
  readonly lines: { [line in 'dtr' | 'rts' | 'break']?: { on: boolean; changes: number } }
  sequence: { name: string; runs: number } | undefined
}

/** So many refusals of one source are written in this time, */
const MAX_REFUSALS_PER_SOURCE = 5
/** and so many of all: whoever has an IPv6 network has more addresses than we have disk. */
const MAX_REFUSALS = 20
const REFUSALS_WINDOW_MS = 60_000
/** So many sources are told apart. */
const MAX_SOURCES = 256

/** Lets through what a flood of refusals must not drown, and sums up the rest once a minute. */
class RefusalLimit implements Disposable {
  readonly #summarise: (summary: { refusals: number; addresses: number }) => void
  readonly #perSource = new Map<string, number>()
  readonly #leftOutOf = new Set<string>()
  #written = 0
  #leftOut = 0
  #timer: NodeJS.Timeout | undefined

  constructor(summarise: (summary: { refusals: number; addresses: number }) => void) {
    this.#summarise = summarise
  }

  admit(source: string): boolean {
    this.#timer ??= setTimeout(() => this.#renew(), REFUSALS_WINDOW_MS).unref()
    const count = this.#perSource.get(source) ?? 0
    if (count < MAX_REFUSALS_PER_SOURCE && this.#written < MAX_REFUSALS) {
      this.#perSource.set(source, count + 1)
      this.#written++
      return true
    }
    this.#leftOut++
    if (this.#leftOutOf.size < MAX_SOURCES) this.#leftOutOf.add(source)
    return false
  }

  [Symbol.dispose](): void {
    this.#renew()
  }

  #renew(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const summary = { refusals: this.#leftOut, addresses: this.#leftOutOf.size }
    this.#perSource.clear()
    this.#leftOutOf.clear()
    this.#written = 0
    this.#leftOut = 0
    if (summary.refusals > 0) this.#summarise(summary)
  }
}

function placeOf({ path }: { path?: CallerPath | undefined }): { path?: string; address?: string } {
  return path === undefined ? {} : { path: path.kind, address: path.remoteAddress }
}

function modeOf({ mode }: { mode?: 'watch' }): { mode?: 'watch' } {
  return mode === undefined ? {} : { mode }
}

/** The host of a multiaddr: ports and PeerIDs are an attacker's to choose. */
function hostOf(address: string | undefined): string | undefined {
  return address === undefined ? undefined : (/^\/[^/]+\/([^/]+)/.exec(address)?.[1] ?? address)
}

function keyOf({ peerId, port }: { peerId: string; port: string }): string {
  return `${peerId} ${port}`
}

function lineOf(fields: object): Buffer {
  const safe = (_key: string, value: unknown) =>
    typeof value === 'string' ? printable(value.slice(0, MAX_TEXT)) : value
  return Buffer.from(`${JSON.stringify({ time: new Date().toISOString(), ...fields }, safe)}\n`)
}

/** @throws FarportError ERR_HOME for a file in which others could write or read; else the system's error */
function openToAppend(path: string, create: number): { fd: number; size: number } {
  // O_NONBLOCK: a FIFO in the file's place must not hang us before we see what it is.
  const { O_WRONLY, O_APPEND, O_NONBLOCK = 0 } = constants
  const fd = openSync(path, O_WRONLY | O_APPEND | O_NONBLOCK | create, 0o600)
  try {
    const stats = fstatSync(fd)
    if (!stats.isFile()) throw new FarportError('ERR_HOME', `${path} is not a regular file: move it away`)
    checkModes(path, stats, 'accessible by others')
    return { fd, size: stats.size }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}
