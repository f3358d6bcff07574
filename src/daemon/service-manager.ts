import { createRequire } from 'node:module'
import { FarportError } from '../errors.ts'

/** What systemd hears of a service of Type=notify: sd_notify(3). */
export interface ServiceManager extends Disposable {
  /** Told once everything that does not depend on others is there. */
  ready(): void
  /** One line for `systemctl status`. */
  status(text: string): void
  stopping(): void
  /**
   * Tells that we are well, as often as the unit's WatchdogSec= asks. An event loop that hangs tells nothing, nor does one
   * that is not `well`; systemd then kills and starts us anew.
   */
  watch(well: () => boolean): void
}

/** Who is listening for us; undefined for a process that nobody manages. */
export function serviceManager(env: NodeJS.ProcessEnv = process.env): ServiceManager | undefined {
  const { NOTIFY_SOCKET: name, WATCHDOG_USEC, WATCHDOG_PID } = env
  if (!name || process.platform !== 'linux') return undefined
  const socket = new NotifySocket(name)
  const isForUs = !WATCHDOG_PID || WATCHDOG_PID === `${process.pid}`
  const watchdogMs = isForUs ? Number(WATCHDOG_USEC ?? 0) / 1000 : 0
  let timer: NodeJS.Timeout | undefined
  return {
    ready: () => socket.send('READY=1'),
    status: (text) => socket.send(`STATUS=${text.replaceAll('\n', ' ').slice(0, MAX_STATUS_LENGTH)}`),
    stopping: () => socket.send('STOPPING=1'),
    watch(well) {
      if (!(watchdogMs > 0) || timer !== undefined) return
      const tell = () => {
        if (well()) socket.send('WATCHDOG=1')
      }
      tell()
      // Twice in the time there is, as sd_watchdog_enabled(3) advises.
      timer = setInterval(tell, watchdogMs / 2)
      timer.unref()
    },
    [Symbol.dispose]() {
      clearInterval(timer)
      socket[Symbol.dispose]()
    },
  }
}

const MAX_STATUS_LENGTH = 500

const AF_UNIX = 1
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0o2000000
/** A service manager that is slow must not hold us up. */
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
/** sizeof sun_path. */
const MAX_PATH_BYTES = 108

/** A datagram socket of the unix domain: Node has none, and libsystemd has no build for it that installs without a compiler. */
class NotifySocket implements Disposable {
  readonly #address: Buffer
  readonly #fd: number
  readonly #sendto: (...args: unknown[]) => number
  readonly #close: (fd: number) => number

  /** @throws FarportError ERR_USAGE for a name that is no address */
  constructor(name: string) {
    this.#address = addressOf(name)
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const c = koffi.load(null)
    this.#sendto = c.func(
      'intptr_t sendto(int fd, const void *bytes, size_t length, int flags, const void *address, uint32_t size)',
    ) as never
    this.#close = c.func('int close(int fd)') as never
    this.#fd = c.func('int socket(int domain, int type, int protocol)')(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
  }

  /** What can't be sent is let go: the service is for others. */
  send(text: string): void {
    const bytes = Buffer.from(text)
    const address = this.#address
    this.#sendto(this.#fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL, address, address.length)
  }

  [Symbol.dispose](): void {
    this.#close(this.#fd)
  }
}

/** struct sockaddr_un: the family, then a path or, where the name begins with @, an abstract name after a zero. */
function addressOf(name: string): Buffer {
  const path = Buffer.from(name.startsWith('@') ? `\0${name.slice(1)}` : `${name}\0`)
  if (!/^[@/]/.test(name) || path.length > MAX_PATH_BYTES)
    throw new FarportError('ERR_USAGE', `NOTIFY_SOCKET is no socket's name: ${name}`)
  const family = Buffer.alloc(2)
  // In the machine's byte order; farport's own layer knows little-endian machines only.
  family.writeUInt16LE(AF_UNIX)
  return Buffer.concat([family, path])
}
