import { EventEmitter } from 'node:events'
import { chmodSync, chownSync } from 'node:fs'
import { constants } from 'node:os'
import { FdDuplex } from '../device/fd-duplex.ts'
import { isSystemError, type Libc, loadLibc, TIOCPKT_EVENT } from '../device/libc.ts'
import type { WatchedFile } from '../device/open-watch.ts'
import { LFLAG, Termios2 } from '../device/termios.ts'
import type { PurgeWhat } from '../serial/port.ts'
import type { SerialSettings } from '../serial/settings.ts'
import { isNew, makeNew, type ProgramLine, programLine, setIdle, showSettings } from './pty-termios.ts'

/** Whether at least one program has the PTY open. It is `idle` only once all that programs wrote is in `stream`. */
type PtyState = 'idle' | 'open'

/** -1, as the kernel reads it in chown(2). */
const UNCHANGED = 0xffff_ffff

/** Which programs may open the slave. */
export interface PtyAccess {
  readonly mode: number
  readonly ownerId?: number
  readonly groupId?: number
}

interface PtyDeviceEvents {
  state: [state: PtyState]
  /** A program asked for settings: see `wish`. */
  settings: []
  /** A program threw away what it had not read (`rx`), what it had written (`tx`), or both. */
  flush: [what: PurgeWhat]
  /** `path` is another now: programs have to find the new one. */
  moved: [from: string]
  /** No program can open it any more, and there is no other to be had. */
  locked: [reason: unknown]
}

interface Pty {
  readonly fd: number
  readonly path: string
  /** Inotify on the slave. */
  readonly opens: WatchedFile
}

/** How soon that is seen which the kernel does not tell of. */
const LOOK_INTERVAL_MS = 25

/**
 * The master of a Linux PTY in packet mode, which sees what programs do with the slave.
 *
 * Packet mode (TIOCPKT, ioctl_tty(2)): each read(2) gives either one byte of notices, never 0, or a 0 and data after it. A
 * notice overtakes bytes written before it, and several become one; so each time the whole state is read again. A read of
 * one byte takes a notice and leaves data where it is.
 *
 * No slave is held open here. So the kernel itself says when the last program is gone, and says it after the last byte that
 * it wrote: the master reads EIO. Counting inotify's opens and closes would not do, since it merges equal events. It is
 * asked for opens only, each of which is just a reason to look.
 */
export class PtyDevice extends EventEmitter<PtyDeviceEvents> implements AsyncDisposable {
  /** What programs write is read here. What goes to them goes through `write()`. */
  readonly stream: FdDuplex
  readonly #libc: Libc
  readonly #access: PtyAccess
  readonly #notice = Buffer.alloc(1)
  #pty: Pty
  #state: PtyState = 'idle'
  /** As last seen: what differs from it came from a program. */
  #termios: Termios2
  #wish: ProgramLine | undefined
  #look: NodeJS.Timeout | undefined

  /**
   * @throws FarportError ERR_UNFIT on platforms other than Linux
   * @throws the system's EPERM when the group is none of ours, or the owner is another and we are not root
   */
  constructor(access: PtyAccess) {
    super()
    this.#libc = loadLibc()
    this.#access = access
    this.#pty = this.#makePty(makeNew)
    this.#termios = this.#libc.termios(this.#pty.fd)
    this.stream = new FdDuplex(this.#libc, { onRead: (bytes) => this.#onRead(bytes) })
    this.stream.on('hangup', () => this.#onHangUp())
    // Paused, yet reading up to its high-water mark: notices are seen while nobody takes the bytes.
    this.stream.pause()
    this.stream.read(0)
  }

  /** The slave: what programs open. */
  get path(): string {
    return this.#pty.path
  }

  get state(): PtyState {
    return this.#state
  }

  /** No program has it open, and nothing that one wrote is left to send. */
  get vacant(): boolean {
    return this.#state === 'idle' && this.stream.readableLength === 0
  }

  /** What programs ask for; nothing before the first one that asks. It outlives them, as on a real port. */
  get wish(): ProgramLine | undefined {
    return this.#wish
  }

  /** HUPCL: the modem lines are to drop at the last close. */
  get hangUpOnClose(): boolean {
    return programLine(this.#termios).hangUpOnClose
  }

  /** Bytes for whoever has it open; without one they are thrown away. False: wait for the stream's `drain`. */
  write(bytes: Uint8Array): boolean {
    return this.#state === 'idle' || this.stream.write(bytes)
  }

  /**
   * Lets programs find the settings of the port, until one has asked for others. Not for a moment when a program is likely
   * to ask: within microseconds of this, what it asks for is overwritten.
   */
  show(settings: Readonly<SerialSettings>): void {
    this.#takeNotice()
    this.#readTermios('if changed')
    if (this.#wish !== undefined && !isNew(this.#termios)) return
    const termios = this.#termios.copy()
    showSettings(termios, { ...settings, ...this.#wish?.settings })
    this.#setTermios(termios)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#look)
    this.stream.detach()
    this.stream.destroy()
    this.#close(this.#pty)
  }

  #makePty(setUp: (termios: Termios2) => void): Pty {
    const libc = this.#libc
    const { fd, slavePath } = libc.openPtyMaster()
    try {
      const { mode, ownerId = UNCHANGED, groupId = UNCHANGED } = this.#access
      if (ownerId !== UNCHANGED || groupId !== UNCHANGED) chownSync(slavePath, ownerId, groupId)
      chmodSync(slavePath, mode)
      const termios = libc.termios(fd)
      setUp(termios)
      libc.setTermios(fd, termios)
      lockExtproc(libc, fd)
      libc.setPacketMode(fd, true)
      // A master reads EIO only when its slave has been open before.
      libc.close(libc.openPtySlave(fd))
      return { fd, path: slavePath, opens: libc.opens.watch(slavePath, () => this.#onOpen()) }
    } catch (error) {
      libc.close(fd)
      throw error
    }
  }

  #close({ fd, opens }: Pty): void {
    opens[Symbol.dispose]()
    this.#libc.close(fd)
  }

  #onRead(bytes: Buffer): Buffer {
    const notices = bytes[0] as number
    if (notices !== 0) this.#onNotices(notices)
    else if (!this.#isTold()) this.#readTermios('if changed')
    const data = bytes.subarray(1)
    this.#lookIfNeeded(data.length)
    return data
  }

  #onNotices(notices: number): void {
    const rx = (notices & TIOCPKT_EVENT.FLUSHREAD) !== 0
    const tx = (notices & TIOCPKT_EVENT.FLUSHWRITE) !== 0
    if (rx) this.#discardUndelivered()
    // Only what was read before: the kernel can't tell bytes written before the flush from those after it.
    if (tx) this.stream.discardUnread()
    if (rx || tx) this.emit('flush', rx && tx ? 'both' : rx ? 'rx' : 'tx')
    // STOP and START need nothing: a program that stops its own output is stopped by the kernel.
    if (notices & TIOCPKT_EVENT.IOCTL) this.#readTermios('in any case')
    else if (notices & (TIOCPKT_EVENT.DOSTOP | TIOCPKT_EVENT.NOSTOP)) this.#readTermios('if changed')
  }

  /** A tcsetattr() that changes nothing is a wish too. */
  #readTermios(report: 'in any case' | 'if changed'): void {
    const termios = this.#libc.termios(this.#pty.fd)
    if (report === 'if changed' && termios.equals(this.#termios)) return
    this.#termios = termios
    this.#wish = programLine(termios)
    this.#lookIfNeeded()
    this.emit('settings')
  }

  /** Our own change: the notice of it is taken away, and a program's change in between is not. */
  #setTermios(termios: Termios2): void {
    this.#libc.setTermios(this.#pty.fd, termios)
    this.#termios = termios
    this.#takeNotice(TIOCPKT_EVENT.IOCTL | TIOCPKT_EVENT.DOSTOP | TIOCPKT_EVENT.NOSTOP)
    this.#readTermios('if changed')
  }

  /** Answers what read(2) did: 1 also when there is data, which stays where it is. */
  #takeNotice(except = 0): number {
    const n = this.#libc.read(this.#pty.fd, this.#notice)
    const notices = (this.#notice[0] as number) & ~except
    if (n === 1 && notices !== 0) this.#onNotices(notices)
    return n
  }

  #onOpen(): void {
    if (this.#state === 'open') return
    this.#state = 'open'
    this.stream.attach(this.#pty.fd)
    // Who hears of the program is to know what it asks for, if it already has.
    this.#takeNotice()
    this.#lookIfNeeded()
    this.emit('state', this.#state)
  }

  /** Some things don't show by themselves: changes without EXTPROC, and any notice while nobody reads the stream. */
  #lookIfNeeded(arrivingBytes = 0): void {
    if (this.#state === 'open' && (!this.#isTold() || this.#isFull(arrivingBytes)))
      this.#look ??= setInterval(() => this.#lookAround(), LOOK_INTERVAL_MS)
    else {
      clearInterval(this.#look)
      this.#look = undefined
    }
  }

  #lookAround(): void {
    this.#takeNotice()
    this.#readTermios('if changed')
    this.#lookIfNeeded()
  }

  #isTold(): boolean {
    return (this.#termios.lflag & LFLAG.EXTPROC) !== 0
  }

  #isFull(arrivingBytes = 0): boolean {
    return this.stream.readableLength + arrivingBytes >= this.stream.readableHighWaterMark
  }

  #onHangUp(): void {
    this.stream.detach()
    const locked = this.#libc.isHungUp(this.#pty.fd) && !this.#tidyUp()
    if (this.#takeNotice() !== -constants.errno.EIO) {
      // The next program was faster, and may even be gone again: for it and for the port nothing has happened.
      this.stream.attach(this.#pty.fd)
      return
    }
    if (locked) this.#replace()
    this.#state = 'idle'
    this.#lookIfNeeded()
    this.emit('state', this.#state)
  }

  /** Leaves the next program a PTY without stale bytes, modes that would echo, or a lock. False: it is locked for good. */
  #tidyUp(): boolean {
    const unlocked = this.#discardUndelivered('and unlock')
    // We must not be told of our own open. A program's in the same moment shows in the look that follows.
    this.#pty.opens.forget()
    this.#readTermios('if changed')
    const idle = this.#termios.copy()
    setIdle(idle)
    if (!idle.equals(this.#termios)) this.#setTermios(idle)
    return unlocked
  }

  /**
   * A program has left TIOCEXCL set. It outlives the program, only a descriptor of the slave could take it off, and without
   * root there is none to be had any more. Nobody else can open this PTY either, so nobody misses it.
   */
  #replace(): void {
    const old = this.#pty
    try {
      this.#pty = this.#makePty((termios) => termios.bytes.set(this.#termios.bytes))
    } catch (error) {
      this.emit('locked', error)
      return
    }
    this.emit('moved', old.path)
    this.#close(old)
  }

  /**
   * Throws away bytes on their way to programs: ours, and the kernel's. After a program's own flush too, since the room it
   * made may have been filled again. False: the slave is locked, and its last 4 KiB out of reach.
   */
  #discardUndelivered(unlock?: 'and unlock'): boolean {
    this.stream.discardUnsent()
    let slave: number
    try {
      slave = this.#libc.openPtySlave(this.#pty.fd)
    } catch (error) {
      this.#libc.flush(this.#pty.fd, 'tx')
      return !isSystemError(error, 'EBUSY')
    }
    this.#libc.flush(slave, 'rx')
    if (unlock) this.#libc.setExclusive(slave, false)
    this.#libc.close(slave)
    this.#takeNotice(TIOCPKT_EVENT.FLUSHREAD)
    return true
  }
}

/**
 * Most programs clear all local modes and EXTPROC with them, and then the kernel stops telling. Putting it back while they
 * work would overwrite settings they make at that moment. So it is locked where we may; elsewhere we look.
 */
function lockExtproc(libc: Libc, fd: number): void {
  const mask = new Termios2()
  mask.lflag = LFLAG.EXTPROC
  try {
    libc.lockTermios(fd, mask)
  } catch (error) {
    if (!isSystemError(error, 'EPERM')) throw error
  }
}
