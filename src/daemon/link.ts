import { setTimeout as delay } from 'node:timers/promises'
import type { Link } from '../config/config.ts'
import { portSource } from '../device/source.ts'
import type { LocalEndpoint, OpenPort } from '../endpoints/endpoint.ts'
import { createPtyEndpoint } from '../endpoints/pty.ts'
import { bridgeSerial } from '../endpoints/serial-bridge.ts'
import { joinStdio } from '../endpoints/stdio.ts'
import { listenTcp } from '../endpoints/tcp.ts'
import { type ErrorCode, FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { SerialPort } from '../serial/port.ts'
import type { Listing } from '../session/listing.ts'
import type { LinkWatch } from './links.ts'
import type { Peers } from './peers.ts'
import { openWanted } from './remote-port.ts'

interface LinkOptions extends LinkWatch {
  peers: Peers
  log: Logger
}

/** Makes a port of a peer appear where the link says. The peer is called when a program opens it. */
export async function startLink(
  link: Link,
  { peers, report, released, meter, log }: LinkOptions,
): Promise<LocalEndpoint> {
  const { wait = false } = link
  const over = Promise.withResolvers<never>()
  let taken: FarportError | undefined
  const openOnce = async (until: AbortSignal) => {
    // Asked for again, it would be taken back.
    if (taken !== undefined) throw taken
    let opened: SerialPort | undefined
    const onTaken = (error: FarportError) => {
      if (wait) return
      taken = error
      over.reject(error)
      opened?.destroy(error)
    }
    const port = await openWanted(link, { peers, report, onTaken, meter, log }, until)
    port.once('close', released)
    opened = port
    return port
  }
  // A PTY tries again by itself, as long as a program has it open; a cable is there whether it leads anywhere or not.
  const patient = link.endpoint.type === 'serial' || (wait && link.endpoint.type !== 'pty')
  const asked = link.endpoint.type === 'pty' ? tellingWhy(openOnce, report, released) : openOnce
  const open: OpenPort = (until) => (patient ? waitFor(asked, report, until) : asked(until))
  const endpoint = await startEndpoint(link, open, { report, log })
  const ended = Promise.race([endpoint.ended, over.promise])
  // Whoever waits for it is told; a disposal that comes first must not leave the rejection unheard.
  ended.catch(() => {})
  return {
    address: endpoint.address,
    ended,
    [Symbol.asyncDispose]: () => endpoint[Symbol.asyncDispose](),
  }
}

/** First pause before a port is asked for again; it doubles up to the last. */
const FIRST_WAIT_MS = 100
const LAST_WAIT_MS = 2_000
/** What passes by itself. */
const PASSING: readonly ErrorCode[] = [
  'ERR_PORT_BUSY',
  'ERR_NO_SUCH_PORT',
  'ERR_DEVICE_ABSENT',
  'ERR_PEER_UNREACHABLE',
  'ERR_CHANNEL_LOST',
]

/** For a local end that asks again by itself as long as a program waits: what is awaited is told, each reason once. */
function tellingWhy(open: OpenPort, report: LinkOptions['report'], released: () => void): OpenPort {
  let told: string | undefined
  const onGivenUp = () => {
    told = undefined
    released()
  }
  return async (until) => {
    until.addEventListener('abort', onGivenUp, { once: true })
    try {
      const port = await open(until)
      told = undefined
      until.removeEventListener('abort', onGivenUp)
      return port
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      if (!until.aborted && reason !== told) report({ state: 'down', reason })
      told = reason
      throw error
    }
  }
}

async function waitFor(
  open: OpenPort,
  report: LinkOptions['report'],
  until: AbortSignal,
): Promise<SerialPort> {
  let told: string | undefined
  for (let pauseMs = FIRST_WAIT_MS; ; pauseMs = Math.min(2 * pauseMs, LAST_WAIT_MS)) {
    try {
      return await open(until)
    } catch (error) {
      if (until.aborted || !(error instanceof FarportError && PASSING.includes(error.code))) throw error
      if (error.message !== told) report({ state: 'down', reason: error.message })
      told = error.message
    }
    await delay(pauseMs, undefined, { signal: until })
  }
}

/** Says at once what would otherwise be found out by the first program that opens the port. */
export function checkLink(link: Link, ports: Listing[]): void {
  const where = `${link.peer}/${link.port}`
  const [port] = ports
  if (port === undefined)
    throw new FarportError('ERR_PROTOCOL', `${link.peer} says nothing about ${link.port}`)
  const { mode = 'use' } = link
  const need = mode === 'watch' ? 'watch' : 'use'
  if (!port.may.includes(need))
    throw new FarportError(
      'ERR_NOT_GRANTED',
      `we may ${port.may.join(', ')} ${where}, not ${need} it: its owner can change may= in our line there${
        port.may.includes('watch') ? ', or give --watch' : ''
      }`,
    )
  if (port.state === 'held' && mode === 'steal' && !port.may.includes('steal'))
    throw new FarportError(
      'ERR_NOT_GRANTED',
      `${where} is in use, and we may not take it over: its owner can add steal to may= in our line there`,
    )
  if (port.state === 'held' && mode === 'use') {
    const others = ['--wait', '--watch', ...(port.may.includes('steal') ? ['--steal'] : [])]
    throw new FarportError(
      'ERR_PORT_BUSY',
      `${where} is in use by another peer or program: try again when it is free, or give ${others.join(' or ')}`,
    )
  }
  if (port.state === 'absent')
    throw new FarportError(
      'ERR_DEVICE_ABSENT',
      `${where} has no device right now (${port.description.path}): plug it in, or give --wait`,
    )
}

async function startEndpoint(
  { endpoint, line, wait = false }: Link,
  open: OpenPort,
  { report, log }: Pick<LinkOptions, 'report' | 'log'>,
): Promise<LocalEndpoint> {
  switch (endpoint.type) {
    case 'pty': {
      const { path, access = {} } = endpoint
      const hidden = line && { dataBits: line.dataBits, parity: line.parity }
      return await createPtyEndpoint({ link: path, ...access, ...(hidden && { line: hidden }), log }, open)
    }
    case 'serial': {
      const { device, modemLines } = endpoint
      const source = portSource(device)
      const openNow: OpenPort = (signal) => source.open({ signal })
      const openLocal: OpenPort = (until) => (wait ? waitFor(openNow, report, until) : openNow(until))
      return await bridgeSerial({ path: device, openLocal, wait, line: line ?? {}, modemLines, log }, open)
    }
    case 'rfc2217':
    case 'raw':
      return await listenTcp({ host: endpoint.host, port: endpoint.port, mode: endpoint.type, log }, open)
    case 'stdio':
      return joinStdio({ input: process.stdin, output: process.stdout }, open)
    default:
      return endpoint satisfies never
  }
}
