import { Command } from 'commander'
import { machineName } from '../config/machine-name.ts'
import { loadIdentity } from '../trust/identity.ts'
import { type CommonFlags, run } from './run.ts'

interface IdFlags extends CommonFlags {
  addr?: string[]
}

export const idCommand = new Command('id')
  .description("print this machine's line for another machine's trusted_peers; makes the key the first time")
  .option('--addr <multiaddr...>', 'addresses under which this machine can be reached, to go into the line')
  .action((flags: IdFlags) =>
    run(flags, async ({ home, output }) => {
      const { peerId } = await loadIdentity(home, { create: true })
      const addresses = flags.addr ?? []
      output.result({ peerId, home, line: trustLine(peerId, addresses) }, `${trustLine(peerId, addresses)}\n`)
      if (!output.json && process.stderr.isTTY)
        process.stderr.write(
          'Add it to trusted_peers on the other machine. If that machine shares ports, end the line with ports=NAME,NAME\n',
        )
    }),
  )

/** The line that makes another machine know this one. It grants nothing: whoever pastes it adds `ports=`. */
export function trustLine(peerId: string, addresses: readonly string[]): string {
  const name = machineName()
  const outside = addresses.filter((address) => !/^\/ip4\/127\.|^\/ip6\/::1\//.test(address))
  const usable = (outside.length > 0 ? outside : addresses).map((address) =>
    address.replace(/\/p2p\/[^/]+$/, ''),
  )
  return [name, peerId, ...(usable.length > 0 ? [`addr=${usable.join(',')}`] : [])].join('  ')
}
