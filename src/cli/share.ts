import { basename } from 'node:path'
import { Command } from 'commander'
import { DEFAULT_LISTEN, type Share } from '../config/config.ts'
import { parseShareOptions } from '../config/share-options.ts'
import type { DaemonEvent } from '../daemon/daemon.ts'
import { FarportError } from '../errors.ts'
import { trustLine } from './id.ts'
import { listenOn } from './listen.ts'
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
  .argument(
    '<device...>',
    'DEVICE[=NAME][,OPTION=VALUE...]: a path, better a /dev/serial/by-id link; usb:VID:PID[:SERIAL]; rfc2217://HOST:PORT or tcp://HOST:PORT, a port of ' +
      'another serial server; or simulated:gps',
  )
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
  .addHelpText(
    'after',
    `
Options of a port:
  reset=esp32        run the reset of that board here when a client begins one; also esp32-usb, arduino-1200, off,
                     or a sequence such as dtr-rts+/100ms/dtr+rts-/50ms/dtr-
  pack.gap=2ms       what comes without so long a silence goes on in one piece, both ways
  pack.size=256      what the device sends goes on in pieces of at most so many bytes
  pack.until='\\n'    what the device sends goes on in pieces that end so

As in /dev/ttyUSB0=board,reset=esp32 or '/dev/ttyS1=plc,pack.gap=4ms'. A comma in a path is written twice.`,
  )
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

/** A device is called after its last part, a serial server after its host and port. */
function nameOf(device: string): string {
  const [, server] = /^(?:rfc2217|tcp):\/\/(.*)$/.exec(device) ?? []
  if (server === undefined) return basename(device.replace(/^simulated:/, ''))
  return server.replace(/[^A-Za-z0-9_.]+/g, '-').replace(/^-/, '')
}

/**
 * `DEVICE[=NAME][,OPTION=VALUE]...`; without NAME it is called after the device's last part. A comma that belongs to the
 * device or a value is written twice. Of several `=` the last before an option separates the name, so a device whose path
 * holds one needs a NAME; udev lets by-id names hold `=`, but no comma.
 */
function parseShare(text: string): Share {
  const [port = '', ...words] = fieldsOf(text)
  const at = port.lastIndexOf('=')
  const device = at === -1 ? port : port.slice(0, at)
  const name = at === -1 ? nameOf(device) : port.slice(at + 1)
  if (device === '')
    throw new FarportError(
      'ERR_USAGE',
      `"${text}" names no device: write DEVICE or DEVICE=NAME, then options, as in /dev/ttyUSB0=board,reset=esp32`,
    )
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(name))
    throw new FarportError(
      'ERR_USAGE',
      `"${name}" can't be a port's name: up to 64 letters, digits, - _ and . are allowed; write ${device}=NAME`,
    )
  const options = words.map((word) => {
    const [, option, value] = /^([^=]*)=(.*)$/s.exec(word) ?? []
    if (option === undefined || value === undefined)
      throw new FarportError(
        'ERR_USAGE',
        `"${word}" is no OPTION=VALUE: write for example reset=esp32, and a comma that belongs to the device twice`,
      )
    return [option, value] as const
  })
  return { name, device, ...parseShareOptions(options) }
}

/** What single commas separate; of two, one stays. */
function fieldsOf(text: string): string[] {
  return [...text.matchAll(/(?:^|,)((?:[^,]|,,)*)/g)].map(([, field = '']) => field.replaceAll(',,', ','))
}
