import { Command } from 'commander'
import { callDaemon } from '../daemon/control-client.ts'
import type { Daemon } from '../daemon/daemon.ts'
import { printable } from '../printable.ts'
import { type CommonFlags, run } from './run.ts'
import { table } from './table.ts'

export const portsCommand = new Command('ports')
  .description("list this machine's serial ports, or the ports a peer lets us use")
  .argument('[peer]', "the peer's name in trusted_peers")
  .action((peer: string | undefined, flags: CommonFlags) =>
    run(flags, async ({ home, output, log, signal }) => {
      if (peer === undefined) {
        const { listPorts } = await import('../device/discovery.ts')
        const ports = await listPorts()
        const rows = ports.map((port) => [
          port.byId ?? port.path,
          port.path,
          port.driver ?? '',
          port.usb?.product ?? '',
        ])
        const text =
          rows.length > 0
            ? table(['share it as', 'path', 'driver', 'device'], rows)
            : 'no serial ports found\n'
        return output.result({ ports }, text)
      }
      const known = await callDaemon(home, 'ports', { peer }, { signal })
      const ports = (known ?? (await askAlone())) as Awaited<ReturnType<Daemon['portsOf']>>
      const rows = ports.map((port) => [port.name, stateOf(port), port.may.join(','), port.description.path])
      const text =
        rows.length > 0
          ? table(['port', 'state', 'you may', 'device'], rows)
          : `${peer} lets us use no ports\n`
      output.result({ peer, ports }, text)

      async function askAlone() {
        const { startDaemon } = await import('../daemon/daemon.ts')
        await using daemon = await startDaemon(
          { home, listen: [], shares: [], links: [], wait: false },
          { log, signal, report: () => {} },
        )
        return await daemon.portsOf(peer as string, signal)
      }
    }),
  )

function stateOf({ state, holder, watchers = 0 }: Awaited<ReturnType<Daemon['portsOf']>>[number]): string {
  const by = holder?.you ? 'in use by us' : holder?.name ? `in use by ${printable(holder.name)}` : 'in use'
  const use = state === 'held' ? by : state
  return watchers > 0 ? `${use}, ${watchers} watching` : use
}
