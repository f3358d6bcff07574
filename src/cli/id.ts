import { Command } from 'commander'
import { machineName } from '../config/machine-name.ts'
import type { RotationReport } from '../daemon/daemon.ts'
import { FarportError } from '../errors.ts'
import { loadIdentity } from '../trust/identity.ts'
import { type CommonFlags, run } from './run.ts'
import { table } from './table.ts'

interface IdFlags extends CommonFlags {
  addr?: string[]
}

interface RotateFlags extends CommonFlags {
  now?: true
}

/** Nobody is to come by: it is what makes this process the one that runs for the home. */
const NOBODY_LISTENS = ['/ip4/127.0.0.1/tcp/0']

const rotateCommand = new Command('rotate')
  .description(
    "give this machine a new key, which its peers accept in the old one's place without pairing again",
  )
  .option('--now', 'use the new key even if some peers have not accepted it; those must pair again')
  .configureHelp({ showGlobalOptions: true })
  .exitOverride()
  .action((_own: object, command: Command) => {
    const flags: RotateFlags = command.optsWithGlobals()
    return run(flags, async ({ home, output, log, signal }) => {
      // A key that nobody knows yet has no use for another.
      await loadIdentity(home, { create: false })
      const request = { now: flags.now === true }
      const { callDaemon } = await import('../daemon/control-client.ts')
      const answer = await callDaemon(home, 'rotate', request, { signal })
      const report = (answer ?? (await rotateAlone())) as RotationReport
      const restart = answer !== undefined
      output.result({ ...report, restart }, describe(report, restart))
      if (!report.switched) throw unfinished(report)

      async function rotateAlone(): Promise<RotationReport> {
        const { startDaemon } = await import('../daemon/daemon.ts')
        await using daemon = await startDaemon(
          { home, listen: NOBODY_LISTENS, shares: [], links: [], wait: true },
          { log, signal, report: () => {} },
        )
        return await daemon.rotate(request, signal)
      }
    })
  })

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
  .addCommand(rotateCommand)

function describe(
  { peers, switched, oldPeerId, newPeerId, oldKey }: RotationReport,
  restart: boolean,
): string {
  const rows = peers.map(({ name, outcome, reason }) => [name, outcome, reason ?? ''])
  const list = rows.length > 0 ? table(['peer', 'new key', ''], rows) : ''
  if (!switched) return `${list}nothing has changed: this machine is still ${oldPeerId}\n`
  const left = peers.filter(({ outcome }) => outcome !== 'accepted').map(({ name }) => name)
  return [
    `${list}this machine is now ${newPeerId}`,
    ...(restart ? ['Restart `farport share`: until then it runs with the old key.'] : []),
    'Whatever else runs here with the old key, such as `farport connect`, must be restarted too.',
    ...(left.length > 0 ? [`These must pair again: ${left.join(', ')}`] : []),
    ...(oldKey === undefined
      ? []
      : [
          `The old key is in ${oldKey}. Delete it when all is well; put back as identity.key before a peer has seen the new one, it undoes this.`,
        ]),
    '',
  ].join('\n')
}

function unfinished({ peers }: RotationReport): FarportError {
  const left = peers.filter(({ outcome }) => outcome !== 'accepted')
  const code = left.some(({ outcome }) => outcome === 'not reached')
    ? 'ERR_PEER_UNREACHABLE'
    : 'ERR_NOT_TRUSTED'
  return new FarportError(
    code,
    `the new key waits for ${left.map(({ name }) => name).join(', ')}. Type this again when they can be reached, and it goes on; with --now it does without them, and they pair again`,
  )
}

/** The line that makes another machine know this one. It grants nothing: whoever pastes it adds `ports=`. */
export function trustLine(peerId: string, addresses: readonly string[]): string {
  const name = machineName()
  const outside = addresses.filter((address) => !/^\/ip4\/127\.|^\/ip6\/::1\//.test(address))
  const usable = (outside.length > 0 ? outside : addresses).map((address) =>
    address.replace(/\/p2p\/[^/]+$/, ''),
  )
  return [name, peerId, ...(usable.length > 0 ? [`addr=${usable.join(',')}`] : [])].join('  ')
}
