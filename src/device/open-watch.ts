import { FdDuplex } from './fd-duplex.ts'
import { IN, type Libc } from './libc.ts'

/** struct inotify_event: i32 wd, u32 mask, cookie and len; then a name, which a watched file has none of. */
const EVENT_BYTES = 16
/** The kernel has lost events: IN_Q_OVERFLOW. */
const OVERFLOW = 0x4000

/** A file that is watched until this is disposed of. */
export interface WatchedFile extends Disposable {
  /** Forgets the opens up to now, as after one of our own. */
  forget(): void
}

/**
 * Tells when programs open files. One inotify instance for all of them: a user may have 128 by default, and a client more
 * PTYs than that.
 */
export class OpenWatch {
  readonly #libc: Libc
  readonly #onOpen = new Map<number, () => void>()
  #stream: FdDuplex | undefined

  constructor(libc: Libc) {
    this.#libc = libc
  }

  /** Several opens at once may be told as one. @throws SyscallError where the file can't be watched */
  watch(path: string, onOpen: () => void): WatchedFile {
    const stream = this.#open()
    const fd = stream.fd as number
    let watch: number
    try {
      watch = this.#libc.inotifyWatch(fd, path, IN.OPEN)
    } catch (error) {
      this.#closeIfIdle()
      throw error
    }
    this.#onOpen.set(watch, onOpen)
    return {
      forget: () => {
        const events = Buffer.alloc(64 * EVENT_BYTES)
        for (let n = this.#libc.read(fd, events); n > 0; n = this.#libc.read(fd, events))
          this.#tell(events.subarray(0, n), watch)
      },
      [Symbol.dispose]: () => {
        if (!this.#onOpen.delete(watch)) return
        this.#libc.inotifyUnwatch(fd, watch)
        this.#closeIfIdle()
      },
    }
  }

  #open(): FdDuplex {
    if (this.#stream !== undefined) return this.#stream
    const stream = new FdDuplex(this.#libc, { fd: this.#libc.inotify() })
    stream.on('data', (events: Buffer) => this.#tell(events))
    this.#stream = stream
    return stream
  }

  #closeIfIdle(): void {
    if (this.#onOpen.size > 0) return
    this.#stream?.destroy()
    this.#stream = undefined
  }

  #tell(events: Buffer, except?: number): void {
    for (let at = 0; at + EVENT_BYTES <= events.length; at += EVENT_BYTES + events.readUInt32LE(at + 12)) {
      const watch = events.readInt32LE(at)
      const mask = events.readUInt32LE(at + 4)
      if ((mask & OVERFLOW) !== 0) for (const onOpen of [...this.#onOpen.values()]) onOpen()
      else if ((mask & IN.OPEN) !== 0 && watch !== except) this.#onOpen.get(watch)?.()
    }
  }
}
