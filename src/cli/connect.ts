import { resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { Endpoint, Link } from '../config/config.ts'
import { callDaemon } from '../daemon/control-client.ts'
import type { DaemonEvent } from '../daemon/daemon.ts'
import { FarportError } from '../errors.ts'
import { type LineFormat, parseLineFormat } from '../serial/line-format.ts'
import { describeLink } from './link-status.ts'
import { loopbackOption } from './loopback.ts'
import { type CommonFlags, run } from './run.ts'
import { until } from './until.ts'

interface ConnectFlags extends CommonFlags {
  pty?: string[]
  rfc2217?: string[]
  raw?: string[]
  stdio?: true
  serial?: string[]
  lines: boolean
  line?: string[]
  mode?: number
  owner?: string
  group?: string
  resume: number
  wait?: true
  watch?: true
  steal?: true
  reset?: 'on' | 'off'
  replay?: number
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
  .option('--serial <device...>', 'a serial port of this machine, joined to the remote one back to back')
  .option('--no-lines', 'with --serial: leave DTR and RTS of both ports as they are opened')
  .option(
    '--line <line...>',
    'how the remote line is to be: 7E1, or with its speed 9600-7E1. One for all ports, or one for each',
  )
  .option('--mode <mode>', 'with --pty: who may open it, in octal (default: 660)', fileMode)
  .option('--owner <user>', 'with --pty: the user it belongs to; only root can give it to another')
  .option('--group <group>', 'with --pty: the group that may open it, such as dialout')
  .option(
    '--resume <seconds>',
    'how long to keep bytes on their way when the connection is lost',
    seconds,
    30,
  )
  .option('--wait', 'keep trying when the port is in use or not there, or is taken over, instead of ending')
  .addOption(
    new Option(
      '--watch',
      'see what the device sends, beside whoever uses it; nothing is sent to it',
    ).conflicts('steal'),
  )
  .addOption(
    new Option(
      '--replay <kib>',
      'with --watch: at most so much of what the device sent before (default: all that is kept there)',
    ).argParser(kibibytes),
  )
  .addOption(
    new Option(
      '--reset <how>',
      'on: let the agent run the reset that its port is shared with (default); off: lines change step by step',
    ).choices(['on', 'off']),
  )
  .option('--steal', 'take the port from whoever uses it, where we may')
  .addOption(loopbackOption())
  .addHelpText(
    'after',
    '\nSeveral ports in one process: as many PEER/PORT as local ends, in the same order.\n' +
      '  farport connect pi/gps pi/plc --pty /tmp/gps --pty /tmp/plc',
  )
  .action((targets: string[], flags: ConnectFlags) =>
    run(flags, async ({ home, output, log, signal }) => {
      const links = linksOf(targets, flags)
      const stdio = flags.stdio === true
      // With --stdio standard output is the port's, so events have to go without a place under --json.
      const report = (event: DaemonEvent) => {
        if (!stdio) output.event(event.event, event, describe(event))
      }
      const ready = (at: { port: string; at: string }[]) =>
        output.event('ready', { links: at }, at.map((link) => `${link.port} is at ${link.at}`).join('\n'))
      // Standard input and output are this process's own.
      if (!stdio && flags.loopback === undefined) {
        const onEvent = (told: unknown) => {
          const event = told as DaemonEvent | { event: 'ready'; links: { port: string; at: string }[] }
          if (event.event === 'ready') ready(event.links)
          else report(event)
        }
        if ((await callDaemon(home, 'connect', { links }, { signal, onEvent })) !== undefined) return
      }
      const { startDaemon } = await import('../daemon/daemon.ts')
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
      if (!stdio) ready(daemon.links().map(({ port, at }) => ({ port, at })))
      await Promise.race([until(signal), daemon.ended])
    }),
  )

function seconds(text: string): number {
  const value = Number(text)
  if (!(value >= 0 && value <= 600)) throw new InvalidArgumentError('Seconds, 0 to 600.')
  return value
}

function kibibytes(text: string): number {
  const value = Number(text)
  if (!(Number.isInteger(value) && value >= 0 && value <= 1024))
    throw new InvalidArgumentError('KiB, 0 to 1024.')
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
      return describeLink(event)
  }
}

/** Pairs each PEER/PORT with its local end. @throws FarportError ERR_USAGE */
function linksOf(targets: string[], flags: ConnectFlags): Link[] {
  const { mode, owner, group } = flags
  const access = {
    ...(mode !== undefined && { mode }),
    ...(owner !== undefined && { owner }),
    ...(group !== undefined && { group }),
  }
  const endpoints: Endpoint[] = [
    // Whole, because the farport that makes it may run in another directory.
    ...(flags.pty ?? []).map((path) => ({ type: 'pty', path: resolve(path), access }) as const),
    ...(flags.rfc2217 ?? []).map((text) => ({ type: 'rfc2217', ...hostPort(text) }) as const),
    ...(flags.raw ?? []).map((text) => ({ type: 'raw', ...hostPort(text) }) as const),
    ...(flags.stdio ? [{ type: 'stdio' } as const] : []),
    ...(flags.serial ?? []).map((device) => ({ type: 'serial', device, modemLines: flags.lines }) as const),
  ]
  if (endpoints.length === 0)
    throw new FarportError(
      'ERR_USAGE',
      'say where the port should appear: --pty LINK, --rfc2217 HOST:PORT, --raw HOST:PORT, --stdio or --serial DEVICE',
    )
  const kinds = new Set(endpoints.map((endpoint) => endpoint.type))
  if (kinds.size > 1)
    throw new FarportError(
      'ERR_USAGE',
      'one kind of local end at a time: use --pty, --rfc2217, --raw, --stdio or --serial, and a second farport for another kind',
    )
  if (flags.replay !== undefined && !flags.watch)
    throw new FarportError(
      'ERR_USAGE',
      '--replay goes with --watch: who uses the port gets what comes from now on',
    )
  if (endpoints.length !== targets.length)
    throw new FarportError(
      'ERR_USAGE',
      `${targets.length} PEER/PORT but ${endpoints.length} local ends: give one for each, in the same order`,
    )
  if (Object.keys(access).length > 0 && !kinds.has('pty'))
    throw new FarportError('ERR_USAGE', '--mode, --owner and --group go with --pty')
  if (!flags.lines && !kinds.has('serial'))
    throw new FarportError('ERR_USAGE', '--no-lines goes with --serial')
  const lines = linesOf(targets.length, flags)
  return targets.map((target, i) => {
    const [peer, port, ...rest] = target.split('/')
    if (!peer || !port || rest.length > 0)
      throw new FarportError('ERR_USAGE', `"${target}" is not PEER/PORT: write for example pi/gps`)
    return {
      peer,
      port,
      endpoint: endpoints[i] as Endpoint,
      resumeMs: flags.resume * 1000,
      mode: flags.watch ? 'watch' : flags.steal ? 'steal' : 'use',
      ...(flags.replay !== undefined && { replayBytes: flags.replay * 1024 }),
      ...(flags.reset === 'off' && { reset: false }),
      wait: flags.wait === true,
      ...(lines[i] !== undefined && { line: lines[i] }),
    }
  })
}

/** The line of each port, if any. */
function linesOf(ports: number, { line = [], watch }: ConnectFlags): LineFormat[] {
  const lines = line.map(parseLineFormat)
  if (lines.length > 0 && watch)
    throw new FarportError(
      'ERR_USAGE',
      '--line goes with using a port: who only watches changes nothing of it',
    )
  if (lines.length > 1 && lines.length !== ports)
    throw new FarportError(
      'ERR_USAGE',
      `${lines.length} lines for ${ports} PEER/PORT: give one for all, or one for each in the same order`,
    )
  const [first, ...others] = lines
  if (first === undefined) return []
  return others.length > 0 ? lines : new Array<LineFormat>(ports).fill(first)
}

function fileMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) throw new InvalidArgumentError('Three octal digits, such as 660.')
  return Number.parseInt(text, 8)
}

/** `HOST:PORT`, `[IPv6]:PORT` or `:PORT` on the loopback address. Port 0 takes any free one. */
function hostPort(text: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65535)
    throw new FarportError('ERR_USAGE', `"${text}" is not HOST:PORT: write for example 127.0.0.1:4000`)
  return { host: match[1] ?? (match[2] || '127.0.0.1'), port }
}
