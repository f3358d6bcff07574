import { Command } from 'commander'
import { callDaemon } from '../daemon/control-client.ts'
import type { ReloadReport } from '../daemon/status.ts'
import { FarportError } from '../errors.ts'
import { type CommonFlags, run } from './run.ts'

export const reloadCommand = new Command('reload')
  .description(
    'have the farport that runs here read farport.yaml again; what did not change goes on undisturbed',
  )
  .action((flags: CommonFlags) =>
    run(flags, async ({ home, output, signal }) => {
      const report = (await callDaemon(home, 'reload', undefined, { signal })) as ReloadReport | undefined
      if (report === undefined)
        throw new FarportError('ERR_USAGE', `no farport runs for ${home}: start one with \`farport up\``)
      output.result(report, `${describeReload(report)}\n`)
    }),
  )

export function describeReload({ ports, links, nextStart }: ReloadReport): string {
  const changes = [changed(ports, 'ports'), changed(links, 'links')]
  if (nextStart.length > 0) changes.push(`${nextStart.join(', ')}: from the next start on`)
  return changes.join('; ')
}

function changed({ added, removed, kept }: ReloadReport['ports'], what: string): string {
  return added + removed === 0
    ? `${what}: as before`
    : `${what}: ${added} new or changed, ${removed} gone, ${kept} as before`
}
