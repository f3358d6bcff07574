import type { Link } from '../config/config.ts'
import type { LocalEndpoint, OpenPort } from '../endpoints/endpoint.ts'
import { createPtyEndpoint } from '../endpoints/pty.ts'
import { joinStdio } from '../endpoints/stdio.ts'
import { listenTcp } from '../endpoints/tcp.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { SERIAL_PROTOCOL } from '../session/hello.ts'
import type { Listing } from '../session/listing.ts'
import { openRemotePort, type RemoteEvent } from '../session/remote.ts'
import type { Peers } from './peers.ts'

interface LinkOptions {
  peers: Peers
  report: (event: RemoteEvent) => void
  log: Logger
}

/** Makes a port of a peer appear where the link says. The peer is called when a program opens it. */
export async function startLink(link: Link, { peers, report, log }: LinkOptions): Promise<LocalEndpoint> {
  const { peer, port, resumeMs } = link
  const open: OpenPort = (until) =>
    openRemotePort(
      {
        port,
        connect: (attempt) => peers.connect(peer, SERIAL_PROTOCOL, attempt),
        onBestPath: (listener) => peers.onBestPath(peer, listener),
        suspect: (path) => peers.suspect(path),
        resumeMs,
        report,
        log,
      },
      until,
    )
  return await startEndpoint(link, open, log)
}

/** Says at once what would otherwise be found out by the first program that opens the port. */
export function checkLink(link: Link, ports: Listing[]): void {
  const where = `${link.peer}/${link.port}`
  const [port] = ports
  if (port === undefined)
    throw new FarportError('ERR_PROTOCOL', `${link.peer} says nothing about ${link.port}`)
  if (!port.may.includes('use'))
    throw new FarportError(
      'ERR_NOT_GRANTED',
      `we may ${port.may.join(', ')} ${where}, not use it: its owner can change may= in our line there`,
    )
  if (port.state === 'held')
    throw new FarportError(
      'ERR_PORT_BUSY',
      `${where} is in use by another peer or program: try again when it is free, or give --wait`,
    )
  if (port.state === 'absent')
    throw new FarportError(
      'ERR_DEVICE_ABSENT',
      `${where} has no device right now (${port.description.path}): plug it in, or give --wait`,
    )
}

async function startEndpoint({ endpoint }: Link, open: OpenPort, log: Logger): Promise<LocalEndpoint> {
  switch (endpoint.type) {
    case 'pty':
      return await createPtyEndpoint({ link: endpoint.path, log }, open)
    case 'rfc2217':
    case 'raw':
      return await listenTcp({ host: endpoint.host, port: endpoint.port, mode: endpoint.type, log }, open)
    case 'stdio':
      return joinStdio({ input: process.stdin, output: process.stdout }, open)
    default:
      return endpoint satisfies never
  }
}
