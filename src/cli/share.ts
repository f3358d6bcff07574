import { basename } from 'node:path'
import { Command, Option } from 'commander'
import { DEFAULT_LISTEN, type Share } from '../config/config.ts'
import type { PortOptions } from '../config/file-schema.ts'
import { shareOf } from '../config/load-config.ts'
import { FAMILY_DEVICE, isFamilyName, isPortName } from '../config/port-name.ts'
import { parseShareOptions, shareOptions } from '../config/share-options.ts'
import type { DaemonEvent } from '../daemon/daemon.ts'
import { isSearched } from '../device/device-search.ts'
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

/** What ports may be told, in the words of farport.yaml; as flags for all ports. */
const OPTIONS = shareOptions().map(({ name, text, parts }) => {
  const [first] = parts
  const option = new Option(
    `--${name} <${first === undefined ? 'value' : 'parts'}>`,
    first === undefined ? text : `${text} (as ${first}=...)`,
  )
  return { name, option: option.helpGroup('Of all ports that do not say otherwise:') }
})

export const shareCommand = new Command('share')
  .description('share serial ports with the peers in trusted_peers')
  .argument(
    '<device...>',
    'DEVICE[=NAME][,OPTION=VALUE...]: a path, better a /dev/serial/by-id link; usb:VID:PID[:SERIAL]; either with a *, where it is looked for; rfc2217://HOST:PORT or tcp://HOST:PORT, a port of ' +
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
What is said here of all ports can be said of one, behind its name: /dev/ttyUSB0=board,reset=esp32,line=115200-8N1 or
/dev/ttyS1=plc,pack.gap=4ms,on-open.dtr=off. A comma in a path or a value is written twice. A name with a * is for all
devices that are found: 'usb:0403:*=ftdi-*'.
`,
  )
  .action((devices: string[], flags: ShareFlags, command: Command) =>
    run(flags, async ({ home, output, log, signal }) => {
      const forAll = parseShareOptions(
        OPTIONS.flatMap(({ name, option }) => {
          const value = command.getOptionValue(option.attributeName())
          return typeof value === 'string' ? [[name, value] as const] : []
        }),
        (name) => `--${name}`,
      )
      const shares = devices.map((device) => parseShare(device, forAll, home))
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

for (const { option } of OPTIONS) shareCommand.addOption(option)

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
function parseShare(text: string, forAll: PortOptions, home: string): Share {
  const [port = '', ...words] = fieldsOf(text)
  const at = port.lastIndexOf('=')
  const device = at === -1 ? port : port.slice(0, at)
  const name = at === -1 ? nameOf(device) : port.slice(at + 1)
  if (device === '')
    throw new FarportError(
      'ERR_USAGE',
      `"${text}" names no device: write DEVICE or DEVICE=NAME, then options, as in /dev/ttyUSB0=board,reset=esp32`,
    )
  if (isFamilyName(name) && !isSearched(device))
    throw new FarportError('ERR_USAGE', `${device} ${FAMILY_DEVICE}`)
  if (!isPortName(name))
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
  return shareOf(name, { device, ...forAll, ...parseShareOptions(options, (option) => `${option}=`) }, home)
}

/** What single commas separate; of two, one stays. */
function fieldsOf(text: string): string[] {
  return [...text.matchAll(/(?:^|,)((?:[^,]|,,)*)/g)].map(([, field = '']) => field.replaceAll(',,', ','))
}
