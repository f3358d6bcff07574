import { Command, InvalidArgumentError } from 'commander'
import { DEFAULT_LISTEN } from '../config/config.ts'
import { type CommonFlags, run } from './run.ts'
import { until } from './until.ts'

interface RelayFlags extends CommonFlags {
  listen?: string[]
  announce?: string[]
  /** False for `--no-stun`. */
  stun: [number, number] | false
}

export const relayCommand = new Command('relay')
  .description(
    'be the meeting point of agents and clients that can not reach each other; sees ciphertext only',
  )
  .option('--listen <addr...>', `multiaddrs to listen on (default: ${DEFAULT_LISTEN.join(' ')})`)
  .option('--announce <addr...>', 'addresses under which this machine is reached, when it does not know them')
  .option('--stun <port,port>', 'where to answer STUN, over UDP and TCP', twoPorts, [3478, 3479])
  .option('--no-stun', 'do not answer STUN: peers behind NATs then find no direct path')
  .action((flags: RelayFlags) =>
    run(flags, async ({ home, output, log, signal }) => {
      const { startDaemon } = await import('../daemon/daemon.ts')
      await using daemon = await startDaemon(
        {
          home,
          listen: flags.listen ?? DEFAULT_LISTEN,
          ...(flags.announce && { announce: flags.announce }),
          relay: flags.stun === false ? {} : { stunPorts: flags.stun },
          shares: [],
          links: [],
          wait: true,
        },
        { log, signal, report: () => {} },
      )
      const { peerId, addresses } = daemon
      output.event(
        'ready',
        { peerId, addresses, ...(flags.stun !== false && { stunPorts: flags.stun }) },
        [
          'relaying; Ctrl-C ends it. It is reached at',
          ...addresses.map((address) => `  ${address}`),
          'To let a machine that shares ports use it, type here',
          '  farport invite --may relay',
          'there  farport pair,  and then  farport share DEVICE --relay NAME,  by the name that pair tells.',
          `Or add the line that \`farport id\` prints there to ${home}/trusted_peers here, with may=relay`,
        ].join('\n'),
      )
      await until(signal)
    }),
  )

function twoPorts(text: string): [number, number] {
  const [first = Number.NaN, second = Number.NaN, ...more] = text.split(',').map(Number)
  const arePorts = [first, second].every((port) => Number.isInteger(port) && port > 0 && port <= 0xffff)
  if (!arePorts || first === second || more.length > 0)
    throw new InvalidArgumentError('Two ports, as in 3478,3479.')
  return [first, second]
}
