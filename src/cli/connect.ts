import { Command, InvalidArgumentError } from 'commander'
import type { Endpoint, Link } from '../config/config.ts'
import type { DaemonEvent } from '../daemon/daemon.ts'
import { FarportError } from '../errors.ts'
import { loopbackOption } from './loopback.ts'
import { type CommonFlags, run } from './run.ts'
import { until } from './until.ts'

interface ConnectFlags extends CommonFlags {
  pty?: string[]
  rfc2217?: string[]
  raw?: string[]
  stdio?: true
  resume: number
  wait?: true
  loopback?: number
}

export const connectCommand = new Command('connect')
  .description('use ports of other machines as if they were plugged in here')
  .argument(
    '<peer/port...>',
    'the peer by its name in trusted_peers, and the port by the name it is shared under',
  )
  .option('--pty <link...>', 'a virtual serial port, found at LINK')
  .option('--rfc2217 <host:port...>', 'a local RFC 2217 port: settings, modem lines and break included')
  .option('--raw <host:port...>', 'a local TCP port that carries bytes only')
  .option('--stdio', 'standard input and output')
  .option(
    '--resume <seconds>',
    'how long to keep bytes on their way when the connection is lost',
    seconds,
    30,
  )
  .option('--wait', 'keep trying when the peer or the port is not there yet, instead of ending')
  .addOption(loopbackOption())
  .addHelpText(
    'after',
    '\nSeveral ports in one process: as many PEER/PORT as local ends, in the same order.\n' +
      '  farport connect pi/gps pi/plc --pty /tmp/gps --pty /tmp/plc',
  )
  .action((targets: string[], flags: ConnectFlags) =>
    run(flags, async ({ home, output, log, signal }) => {
      const links = linksOf(targets, flags)
      const { startDaemon } = await import('../daemon/daemon.ts')
      const stdio = flags.stdio === true
      // With --stdio standard output is the port's, so events have to go without a place under --json.
      const report = (event: DaemonEvent) => {
        if (!stdio) output.event(event.event, event, describe(event))
      }
      await using daemon = await startDaemon(
        {
          home,
          listen: [],
          ...(flags.loopback !== undefined && { loopback: { afterMs: flags.loopback * 1000 } }),
          shares: [],
          links,
          wait: flags.wait === true,
        },
        { log, signal, report },
      )
      if (!stdio) {
        const ready = daemon.links.map((link) => ({ port: `${link.peer}/${link.port}`, at: link.address }))
        output.event('ready', { links: ready }, ready.map(({ port, at }) => `${port} is at ${at}`).join('\n'))
      }
      await Promise.race([until(signal), daemon.ended])
    }),
  )

function seconds(text: string): number {
  const value = Number(text)
  if (!(value >= 0 && value <= 600)) throw new InvalidArgumentError('Seconds, 0 to 600.')
  return value
}

function describe(event: DaemonEvent): string | undefined {
  switch (event.event) {
    case 'path':
      return `${event.peer}: ${event.kind}, ${event.address}, encrypted by ${event.encryption}, multiplexed by ${event.muxer}`
    case 'absent':
    case 'relay':
      return undefined
    case 'link':
      switch (event.state) {
        case 'up':
          return `${event.port}: open`
        case 'moved':
          return `${event.port}: now ${event.path ?? 'on another path'}, ${event.roundTripMs} ms there and back`
        case 'down':
          return `${event.port}: ${event.reason}; trying again`
        case 'dropped':
          return `${event.port}: up to ${event.bytes} bytes could not be delivered in time and are dropped`
      }
  }
}

/** Pairs each PEER/PORT with its local end. @throws FarportError ERR_USAGE */
function linksOf(targets: string[], flags: ConnectFlags): Link[] {
  const endpoints: Endpoint[] = [
    ...(flags.pty ?? []).map((path) => ({ type: 'pty', path }) as const),
    ...(flags.rfc2217 ?? []).map((text) => ({ type: 'rfc2217', ...hostPort(text) }) as const),
    ...(flags.raw ?? []).map((text) => ({ type: 'raw', ...hostPort(text) }) as const),
    ...(flags.stdio ? [{ type: 'stdio' } as const] : []),
  ]
  if (endpoints.length === 0)
    throw new FarportError(
      'ERR_USAGE',
      'say where the port should appear: --pty LINK, --rfc2217 HOST:PORT, --raw HOST:PORT or --stdio',
    )
  const kinds = new Set(endpoints.map((endpoint) => endpoint.type))
  if (kinds.size > 1)
    throw new FarportError(
      'ERR_USAGE',
      'one kind of local end at a time: use --pty, --rfc2217, --raw or --stdio, and a second farport for another kind',
    )
  if (endpoints.length !== targets.length)
    throw new FarportError(
      'ERR_USAGE',
      `${targets.length} PEER/PORT but ${endpoints.length} local ends: give one for each, in the same order`,
    )
  return targets.map((target, i) => {
    const [peer, port, ...rest] = target.split('/')
    if (!peer || !port || rest.length > 0)
      throw new FarportError('ERR_USAGE', `"${target}" is not PEER/PORT: write for example pi/gps`)
    return { peer, port, endpoint: endpoints[i] as Endpoint, resumeMs: flags.resume * 1000 }
  })
}

/** `HOST:PORT`, `[IPv6]:PORT` or `:PORT` on the loopback address. Port 0 takes any free one. */
function hostPort(text: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65535)
    throw new FarportError('ERR_USAGE', `"${text}" is not HOST:PORT: write for example 127.0.0.1:4000`)
  return { host: match[1] ?? (match[2] || '127.0.0.1'), port }
}
