import { readSync, writeSync } from 'node:fs'
import type {
  BindingInterface,
  BindingPortInterface,
  DarwinPortBinding,
  OpenOptions,
  WindowsPortBinding,
} from '@serialport/bindings-cpp'

/** As the package's poller takes them. */
const UV_READABLE = 1
const UV_WRITABLE = 2
const UV_DISCONNECT = 4
type Ready = 'readable' | 'writable'

const READ_BYTES = 64 * 1024

/** Reading and writing an open port of the serialport package: at once, as far as it goes, and waiting for more. */
export interface Wire {
  /** The rest of what the package offers. */
  readonly binding: BindingPortInterface
  /** Resolves when the device is gone, where the system tells so without a read or a write. */
  readonly gone: Promise<void>
  /** What has arrived; empty when nothing has, undefined when the device is gone. */
  readNow(): Buffer | undefined
  /** Resolves when there may be something to read; rejects when the device is gone. One at a time. */
  readable(): Promise<void>
  /** Answers how many bytes it took; undefined when the device is gone. */
  writeNow(bytes: Buffer): number | undefined
  /** Resolves when a write may go on; rejects when the device is gone. One at a time. */
  writable(): Promise<void>
}

export async function openWire(options: OpenOptions): Promise<Wire> {
  const { autoDetect, WindowsPortBinding: Windows } = await import('@serialport/bindings-cpp')
  // Each platform's own type differs in options that are not used here.
  const bindings = autoDetect() as BindingInterface<DarwinPortBinding | WindowsPortBinding>
  const binding = await bindings.open(options)
  return binding instanceof Windows ? windowsWire(binding) : unixWire(binding)
}

/**
 * The package's own read and write share one poller, and waiting to write makes it forget that somebody waits to read: as
 * long as a write is blocked nothing is received. Here both wait together.
 */
function unixWire(binding: DarwinPortBinding): Wire {
  const { poller } = binding
  const fd = binding.fd ?? -1
  const buffer = Buffer.allocUnsafe(READ_BYTES)
  const gone = Promise.withResolvers<void>()
  const waiting: { [event in Ready]?: PromiseWithResolvers<void> } = {}

  function wait(event: Ready): Promise<void> {
    const waiter = Promise.withResolvers<void>()
    waiting[event] = waiter
    arm()
    return waiter.promise
  }

  function arm(): void {
    const wanted = (waiting.readable ? UV_READABLE : 0) | (waiting.writable ? UV_WRITABLE : 0)
    if (binding.isOpen) poller.poll(wanted | UV_DISCONNECT)
  }

  for (const event of ['readable', 'writable'] as const) {
    poller.on(event, (error: Error | null) => {
      const waiter = waiting[event]
      delete waiting[event]
      if (error) return waiter?.reject(error)
      waiter?.resolve()
      // Not after an error: that may be the poller being closed, and polling on would be on a dead descriptor.
      arm()
    })
  }

  poller.on('disconnect', () => gone.resolve())
  arm()

  return {
    binding,
    gone: gone.promise,
    readNow() {
      const length = atOnce(() => readSync(fd, buffer) || hungUp())
      return length === undefined ? undefined : Buffer.from(buffer.subarray(0, length))
    },
    readable: () => wait('readable'),
    writeNow: (bytes) => atOnce(() => writeSync(fd, bytes)),
    writable: () => wait('writable'),
  }

  /** Zero when a call on the non-blocking descriptor would have to wait, undefined when the device is gone. */
  function atOnce(call: () => number): number | undefined {
    try {
      return binding.isOpen ? call() : undefined
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      return code === 'EAGAIN' || code === 'EINTR' ? 0 : undefined
    }
  }
}

/** A tty that has something to read, and then reads as empty, is one that was hung up. */
function hungUp(): never {
  throw new Error('the device has hung up')
}

/** Windows reads and writes by handing buffers over and being told later. One of each is under way at a time. */
function windowsWire(binding: WindowsPortBinding): Wire {
  let received: Buffer = Buffer.alloc(0)
  let writing: Promise<void> | undefined

  return {
    binding,
    gone: new Promise(() => {}),
    readNow() {
      const bytes = received
      received = Buffer.alloc(0)
      return bytes
    },
    async readable() {
      const { buffer, bytesRead } = await binding.read(Buffer.allocUnsafe(READ_BYTES), 0, READ_BYTES)
      received = buffer.subarray(0, bytesRead)
    },
    writeNow(bytes) {
      if (writing !== undefined) return 0
      writing = binding.write(Buffer.from(bytes)).finally(() => {
        writing = undefined
      })
      // Whoever waits in `writable()` sees the failure; nobody may wait.
      writing.catch(() => {})
      return bytes.length
    },
    writable: () => writing ?? Promise.resolve(),
  }
}
