import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { SerialPort } from '../serial/port.ts'
import { servePort } from '../session/serve.ts'
import type { LocalEndpoint, OpenPort } from './endpoint.ts'
import { forward } from './forward.ts'

export interface TcpOptions {
  host: string
  /** 0 takes any free port. */
  port: number
  /** `rfc2217` for programs that set the line, `raw` for bytes only. */
  mode: 'rfc2217' | 'raw'
  log: Logger
}

/**
 * A local TCP port that stands for a serial port. The port is opened for the first program that connects and closed when
 * that program leaves; a second one is turned away meanwhile, as a second opener of a serial device would be.
 * @throws FarportError ERR_IN_USE, ERR_USAGE when the address can't be listened on
 */
export async function listenTcp(
  { host, port, mode, log }: TcpOptions,
  open: OpenPort,
): Promise<LocalEndpoint> {
  const stop = new AbortController()
  let user: Promise<void> | undefined
  let waiting = false
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', (error) => log.debug({ err: error }, 'a local connection failed'))
    void admit(socket)
  })

  async function admit(socket: Socket): Promise<void> {
    // Whoever leaves and comes back at once is here before the port has let go of the last bytes, or before we have
    // even heard of the leaving.
    if (user !== undefined && !waiting) {
      waiting = true
      await Promise.race([user, delay(LEAVE_MS, undefined, { ref: false })])
      waiting = false
    }
    if (user !== undefined) {
      log.warn({ from: socket.remoteAddress }, 'turned away a second program: one at a time')
      socket.destroy()
    } else if (stop.signal.aborted || socket.destroyed) socket.destroy()
    else
      user = serveOne(socket).finally(() => {
        user = undefined
      })
  }

  async function serveOne(socket: Socket): Promise<void> {
    const left = new AbortController()
    const onClose = () => left.abort()
    socket.on('close', onClose)
    try {
      await using remote = await open(AbortSignal.any([stop.signal, left.signal]))
      remote.on('error', (error) => log.debug({ err: error }, 'the port failed'))
      const onStop = () => socket.destroy()
      stop.signal.addEventListener('abort', onStop)
      try {
        await (mode === 'rfc2217'
          ? servePort(socket, remote, { may: () => true, log })
          : joinRaw(socket, remote))
      } finally {
        stop.signal.removeEventListener('abort', onStop)
      }
    } catch (error) {
      if (!stop.signal.aborted && !left.signal.aborted)
        log.warn({ err: error }, 'could not serve a local connection')
    } finally {
      socket.destroy()
    }
  }

  await listen(server, host, port)
  const { address, port: bound, family } = server.address() as AddressInfo
  return {
    address: family === 'IPv6' ? `[${address}]:${bound}` : `${address}:${bound}`,
    ended: new Promise(() => {}),
    async [Symbol.asyncDispose]() {
      stop.abort()
      server.close()
      await user
    },
  }
}

/** Bytes both ways until the program hangs up. What it sent before is delivered first. */
async function joinRaw(socket: Socket, port: SerialPort): Promise<void> {
  void forward(port, socket)
  await forward(socket, port)
  if (!port.destroyed) await port.drain({ signal: AbortSignal.timeout(DRAIN_TIMEOUT_MS) }).catch(() => {})
}

/** How long a program that connects waits for the one before it to be gone; one may wait. */
const LEAVE_MS = 2_000

/** How long a program's last bytes may take when it has hung up and the device does not take them. */
const DRAIN_TIMEOUT_MS = 5_000

async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    server.listen({ host, port })
    await once(server, 'listening')
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'EADDRINUSE')
      throw new FarportError(
        'ERR_IN_USE',
        `${host}:${port} is taken by another program: choose another port`,
        { cause },
      )
    throw new FarportError('ERR_USAGE', `can't listen on ${host}:${port}: ${message}`, { cause })
  }
}
