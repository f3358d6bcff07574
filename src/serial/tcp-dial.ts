import { connect, isIPv6, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { FarportError } from '../errors.ts'

export interface TcpAddress {
  readonly host: string
  readonly port: number
}

/** How long a server may take to accept. */
const CONNECT_TIMEOUT_MS = 5_000
const FIRST_PAUSE_MS = 250
const LAST_PAUSE_MS = 5_000
const SEEN_MS = 10_000
/** A server that has lost its power says nothing: the system's own probes find out, after this much silence. */
const KEEPALIVE_MS = 15_000

/**
 * `HOST:PORT`; an IPv6 address goes in brackets.
 * @throws FarportError ERR_USAGE
 */
export function parseTcpAddress(text: string): TcpAddress {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]/@?#\s]+)):(\d{1,5})$/.exec(text) ?? []
  const host = bracketed ?? plain
  const port = Number(digits)
  const wrong = bracketed !== undefined && !isIPv6(bracketed.replace(/%.*$/, ''))
  if (host === undefined || wrong || port < 1 || port > 65_535)
    throw new FarportError(
      'ERR_USAGE',
      `“${text}” is no address of a serial server: write HOST:PORT, like 192.0.2.7:2000 or [2001:db8::7]:2000.`,
    )
  return { host, port }
}

export function formatTcpAddress({ host, port }: TcpAddress): string {
  return isIPv6(host.replace(/%.*$/, '')) ? `[${host}]:${port}` : `${host}:${port}`
}

/** @throws FarportError ERR_DEVICE_ABSENT when nobody answers there; the signal's reason */
export async function dialTcp(address: TcpAddress, signal: AbortSignal): Promise<Socket> {
  signal.throwIfAborted()
  const late = AbortSignal.timeout(CONNECT_TIMEOUT_MS)
  const socket = connect({ ...address, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_MS })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const either = AbortSignal.any([signal, late])
  const stop = () => reject(either.reason)
  socket.once('connect', resolve).once('error', reject)
  either.addEventListener('abort', stop)
  try {
    await promise
    // Later failures show as 'close', which is what users of it go by.
    socket.on('error', () => {})
    return socket
  } catch (cause) {
    socket.on('error', () => {}).destroy()
    signal.throwIfAborted()
    throw new FarportError('ERR_DEVICE_ABSENT', `${formatTcpAddress(address)} ${reasonOf(cause)}`, { cause })
  } finally {
    either.removeEventListener('abort', stop)
    socket.off('connect', resolve).off('error', reject)
  }
}

/**
 * Tells whether somebody accepts there, by a connection that is closed at once. To a serial server that is a user who
 * comes and goes: it moves lines, and some are busy with it for seconds; so one that was there just now is not asked.
 */
export function presenceOf(address: TcpAddress): () => Promise<boolean> {
  let seenAtMs = Number.NEGATIVE_INFINITY
  return async () => {
    if (performance.now() - seenAtMs < SEEN_MS) return true
    const socket = await dialTcp(address, AbortSignal.timeout(CONNECT_TIMEOUT_MS)).catch(() => undefined)
    if (socket === undefined) return false
    seenAtMs = performance.now()
    socket.destroy()
    return true
  }
}

/** Tries until it succeeds, with longer and longer pauses in between. @throws the signal's reason */
export async function untilItWorks<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LAST_PAUSE_MS)) {
    // Up to a fifth more, so that many ports of one server don't come back in step.
    await delay(pauseMs * (1 + Math.random() / 5), undefined, { signal })
    try {
      return await attempt()
    } catch {
      signal.throwIfAborted()
    }
  }
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  switch (code) {
    case 'ECONNREFUSED':
      return 'refuses connections: is the serial server running there?'
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'can’t be found: is its name spelled right?'
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return 'can’t be reached from this network.'
    default:
      return error instanceof Error && error.name === 'TimeoutError'
        ? `did not answer within ${CONNECT_TIMEOUT_MS / 1000} s.`
        : `can’t be reached: ${message}`
  }
}
