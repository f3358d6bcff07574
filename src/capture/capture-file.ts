import { constants } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, rename, rm, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Logger } from '../log.ts'
import { type CaptureWriter, type Direction, MAX_PIECE_BYTES, type Piece } from './format.ts'
import { type CaptureFormat, captureWriter } from './formats.ts'

/** What waits to be written, at most; what comes beyond it is counted, not kept. */
const MAX_QUEUED_BYTES = 1024 * 1024
/** Each piece costs memory besides its bytes. */
const PIECE_COST_BYTES = 128
/** How soon it is tried again after a failure, such as a full disk, */
const RETRY_MS = 10_000
/** and what has to be free then. */
const MIN_FREE_BYTES = 1024 * 1024

export interface CaptureOptions {
  readonly path: string
  readonly format: CaptureFormat
  /** A file that has grown so long becomes the newest of the old ones, */
  readonly rotateBytes: number
  /** of which so many are kept, as PATH.1 (the newest), PATH.2 and so on. */
  readonly keep: number
}

export interface CaptureStatus {
  readonly file: string
  readonly state: 'capturing' | 'stopped'
  /** Why it stopped. */
  readonly reason?: string
  /** Bytes that are in no file. */
  readonly lost: number
}

type State =
  | { name: 'capturing'; handle: FileHandle; writer: CaptureWriter; bytes: number }
  /** Not yet, or not any more. */
  | { name: 'closed' }
  | { name: 'stopped'; reason: string; retry: NodeJS.Timeout }

/**
 * Writes what passes a port to a file, and never keeps the port waiting. Each start begins a new file, and so does each
 * recovery; the one before is rotated away. Files are 0600, and never somebody else's: a link at the path is moved like a file.
 */
export class CaptureFile implements AsyncDisposable {
  readonly #port: string
  readonly #options: CaptureOptions
  readonly #log: Logger
  #state: State = { name: 'closed' }
  #queue: Piece[] = []
  #queuedBytes = 0
  /** Not told in the file yet, and in all. */
  #untold = 0
  #lost = 0
  #writing: Promise<void> | undefined
  #over = false

  constructor(port: string, options: CaptureOptions, log: Logger) {
    this.#port = port
    this.#options = options
    this.#log = log.child({ port, capture: options.path })
    this.#wake()
  }

  get status(): CaptureStatus {
    const { path: file } = this.#options
    const stopped = this.#state.name === 'stopped' ? { reason: this.#state.reason } : undefined
    return { file, state: stopped === undefined ? 'capturing' : 'stopped', ...stopped, lost: this.#lost }
  }

  record(direction: Direction, bytes: Uint8Array): void {
    if (this.#over || bytes.length === 0) return
    if (this.#state.name === 'stopped' || this.#queuedBytes > MAX_QUEUED_BYTES) {
      this.#lose(bytes.length)
      return
    }
    // Its own copy: the port may use its memory again.
    for (let at = 0; at < bytes.length; at += MAX_PIECE_BYTES) {
      const piece = Uint8Array.from(bytes.subarray(at, at + MAX_PIECE_BYTES))
      this.#queue.push({ atMs: nowMs(), direction, bytes: piece })
      this.#queuedBytes += piece.length + PIECE_COST_BYTES
    }
    this.#wake()
  }

  /** Writes what is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true
    while (this.#writing !== undefined) await this.#writing
    if (this.#state.name === 'stopped') clearTimeout(this.#state.retry)
    if (this.#state.name === 'capturing') {
      const { handle, writer } = this.#state
      await handle.appendFile(writer.end()).catch(() => {})
      await handle.close().catch(() => {})
    }
    this.#state = { name: 'closed' }
  }

  #lose(bytes: number): void {
    this.#lost += bytes
    this.#untold += bytes
  }

  #wake(): void {
    if (this.#state.name === 'stopped') return
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined
      // What came between the last look and now.
      if (this.#queue.length > 0) this.#wake()
    })
  }

  async #write(): Promise<void> {
    let bytes = 0
    try {
      if (this.#state.name === 'closed') await this.#begin()
      while (this.#queue.length > 0 && this.#state.name === 'capturing') {
        const pieces = this.#queue
        bytes = pieces.reduce((sum, piece) => sum + piece.bytes.length, 0)
        this.#queue = []
        this.#queuedBytes = 0
        if (this.#state.bytes >= this.#options.rotateBytes) await this.#begin()
        await this.#append(pieces)
        bytes = 0
      }
    } catch (error) {
      this.#lose(bytes)
      await this.#stop(error as NodeJS.ErrnoException)
    }
  }

  async #append(pieces: readonly Piece[]): Promise<void> {
    if (this.#state.name !== 'capturing') return
    const { handle, writer } = this.#state
    const text = pieces.map((piece) => writer.piece(piece))
    const untold = this.#untold
    if (untold > 0) text.push(writer.lost(nowMs(), untold))
    const all = Buffer.concat(text)
    await handle.appendFile(all)
    this.#state.bytes += all.length
    this.#untold -= untold
  }

  /** Closes the file that there is, makes room for the next and begins it. */
  async #begin(): Promise<void> {
    const { path, format, keep } = this.#options
    const isFresh = this.#state.name === 'closed'
    if (this.#state.name === 'capturing') {
      const { handle, writer } = this.#state
      this.#state = { name: 'closed' }
      await handle.appendFile(writer.end())
      await handle.close()
    }
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    await rotate(path, keep)
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND
    const handle = await open(path, flags, 0o600)
    const writer = captureWriter(format, this.#port, nowMs())
    const head = writer.start()
    try {
      await handle.appendFile(head)
    } catch (error) {
      await handle.close()
      throw error
    }
    this.#state = { name: 'capturing', handle, writer, bytes: head.length }
    // What was lost while it had stopped is missing before all that follows.
    if (isFresh) await this.#append([])
  }

  async #stop(error: NodeJS.ErrnoException): Promise<void> {
    const before = this.#state
    for (const { bytes } of this.#queue) this.#lose(bytes.length)
    this.#queue = []
    this.#queuedBytes = 0
    if (before.name === 'capturing') await before.handle.close().catch(() => {})
    const reason = error.code === 'ENOSPC' ? 'the disk is full' : error.message
    this.#log.warn({ reason }, 'the capture has stopped; the port is served on, and it is tried again')
    this.#retryLater(reason)
  }

  #retryLater(reason: string): void {
    if (this.#over) {
      this.#state = { name: 'closed' }
      return
    }
    const retry = setTimeout(() => void this.#retry(reason), RETRY_MS).unref()
    this.#state = { name: 'stopped', reason, retry }
  }

  async #retry(reason: string): Promise<void> {
    // A file begun on a full disk would only push the older ones out.
    const { bavail, bsize } = await statfs(dirname(this.#options.path)).catch(() => ({
      bavail: 1,
      bsize: 1e9,
    }))
    if (bavail * bsize < MIN_FREE_BYTES || this.#over) {
      this.#retryLater(reason)
      return
    }
    this.#state = { name: 'closed' }
    this.#wake()
    await this.#writing
    if (this.status.state === 'capturing') this.#log.warn('the capture goes on')
  }
}

/** PATH becomes PATH.1, PATH.1 becomes PATH.2; the oldest goes. A file with nothing in it is not worth a place. */
async function rotate(path: string, keep: number): Promise<void> {
  const there = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  if (there === undefined) return
  // A path that was mistyped must not move a directory or a device away.
  if (!there.isFile() && !there.isSymbolicLink()) throw new Error(`${path} is there and is no file`)
  if (there.size === 0 || keep === 0) {
    await rm(path, { force: true })
    return
  }
  const name = (age: number) => (age === 0 ? path : `${path}.${age}`)
  for (let age = keep - 1; age >= 0; age--)
    await rename(name(age), name(age + 1)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
}

/** Of the wall clock, with microseconds. */
function nowMs(): number {
  return performance.timeOrigin + performance.now()
}
