import { Command } from 'commander'
import { configPath } from '../config/home.ts'
import { loadConfig } from '../config/load-config.ts'
import type { DaemonEvent } from '../daemon/daemon.ts'
import { serviceManager } from '../daemon/service-manager.ts'
import { type ReloadReport, summarize } from '../daemon/status.ts'
import { describeLink } from './link-status.ts'
import { describeRelay } from './relay-status.ts'
import { describeReload } from './reload.ts'
import { type CommonFlags, run } from './run.ts'
import { until } from './until.ts'

interface UpFlags extends CommonFlags {
  config?: string
}

/** How often systemd is told how things are. */
const STATUS_MS = 5_000

export const upCommand = new Command('up')
  .description('run what farport.yaml says: shared ports, links, a relay. SIGHUP reads it again')
  .option('--config <file>', 'the configuration (default: farport.yaml in the home)')
  .action((flags: UpFlags) =>
    run(flags, async ({ home, output, log, signal, onHangup }) => {
      const path = flags.config ?? configPath(home)
      const config = await loadConfig(path, home)
      const { startDaemon } = await import('../daemon/daemon.ts')
      using manager = serviceManager()
      const reload = async (): Promise<ReloadReport> => {
        const report = await daemon.become(await loadConfig(path, home))
        output.event('reloaded', report, describeReload(report))
        return report
      }
      await using daemon = await startDaemon(config, {
        ...{ log, signal, reload },
        report: (event) => output.event(event.event, event, describe(event)),
      })
      // What it says now stays in force when the file can't be.
      onHangup(() => void reload().catch((error: unknown) => output.error(error)))
      const status = await daemon.status()
      output.event('ready', status, summarize(status))
      manager?.ready()
      manager?.watch(() => daemon.isWell())
      const tell = async () => manager?.status(summarize(await daemon.status()))
      await tell()
      const telling = setInterval(() => void tell(), STATUS_MS)
      try {
        await until(signal)
      } finally {
        clearInterval(telling)
        manager?.stopping()
      }
    }),
  )

function describe(event: DaemonEvent): string | undefined {
  switch (event.event) {
    case 'path':
      return undefined
    case 'absent':
      return `${event.port}: ${event.device} is not there yet`
    case 'relay':
      return describeRelay(event)
    case 'link':
      return describeLink(event)
    default:
      return event satisfies never
  }
}
