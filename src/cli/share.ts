import { basename } from 'node:path'
import { Command } from 'commander'
import type { Share } from '../config/config.ts'
import type { DaemonEvent } from '../daemon/daemon.ts'
import { FarportError } from '../errors.ts'
import { trustLine } from './id.ts'
import { DEFAULT_LISTEN, listenOn } from './listen.ts'
import { loopbackOption } from './loopback.ts'
import { describeRelay } from './relay-status.ts'
import { type CommonFlags, run } from './run.ts'
import { until } from './until.ts'

interface ShareFlags extends CommonFlags {
  listen?: string[]
  announce?: string[]
  relay?: string[]
  loopback?: number
}

export const shareCommand = new Command('share')
  .description('share serial ports with the peers in trusted_peers')
  .argument('<device...>', 'DEVICE or DEVICE=NAME: a path, better a /dev/serial/by-id link, or simulated:gps')
  .option('--listen <addr...>', `multiaddrs to listen on, or none (default: ${DEFAULT_LISTEN.join(' ')})`)
  .option(
    '--announce <addr...>',
    'further addresses under which this machine is reached, such as a forwarded port',
  )
  .option(
    '--relay <relay...>',
    'relays to be reached through: names in trusted_peers, or addresses that end with /p2p/PEERID',
  )
  .addOption(loopbackOption())
  .action((devices: string[], flags: ShareFlags) =>
    run(flags, async ({ home, output, log, signal }) => {
      const shares = devices.map(parseShare)
      const report = (event: DaemonEvent) => output.event(event.event, event, describe(event))
      const names = new Set<string>()
      for (const { name } of shares) {
        if (names.has(name))
          throw new FarportError(
            'ERR_USAGE',
            `two ports would be called ${name}: give one another name with DEVICE=NAME`,
          )
        names.add(name)
      }
      // Loaded here and not above: libp2p takes most of a second, which `--help` need not.
      const { startDaemon } = await import('../daemon/daemon.ts')
      await using daemon = await startDaemon(
        {
          home,
          listen: listenOn(flags.listen),
          ...(flags.announce && { announce: flags.announce }),
          relays: flags.relay ?? [],
          ...(flags.loopback !== undefined && { loopback: { afterMs: flags.loopback * 1000 } }),
          shares,
          links: [],
          wait: true,
        },
        { log, signal, report },
      )
      const ports = shares.map((share) => share.name)
      const line = trustLine(daemon.peerId, daemon.addresses)
      output.event(
        'ready',
        { peerId: daemon.peerId, addresses: daemon.addresses, ports },
        [
          `sharing ${ports.join(', ')}; Ctrl-C ends it`,
          'To use it elsewhere, add this line to trusted_peers there:',
          `  ${line}`,
          `and the line that \`farport id\` prints there to ${home}/trusted_peers here, with ports=${ports.join(',')}`,
        ].join('\n'),
      )
      await until(signal)
    }),
  )

function describe(event: DaemonEvent): string | undefined {
  switch (event.event) {
    case 'absent':
      return `${event.port}: ${event.device} is not there yet; plug it in`
    case 'relay':
      return describeRelay(event)
    default:
      return undefined
  }
}

/** `DEVICE=NAME`, or `DEVICE` called after its last part. By-id names hold no `=`, so the last one separates. */
function parseShare(text: string): Share {
  const at = text.lastIndexOf('=')
  const device = at === -1 ? text : text.slice(0, at)
  const name = at === -1 ? basename(device.replace(/^simulated:/, '')) : text.slice(at + 1)
  if (device === '')
    throw new FarportError('ERR_USAGE', `"${text}" names no device: write DEVICE or DEVICE=NAME`)
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(name))
    throw new FarportError(
      'ERR_USAGE',
      `"${name}" can't be a port's name: up to 64 letters, digits, - _ and . are allowed; write ${device}=NAME`,
    )
  return { name, device }
}
