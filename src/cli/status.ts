import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { callDaemon } from '../daemon/control-client.ts'
import type { DaemonStatus } from '../daemon/status.ts'
import { FarportError } from '../errors.ts'
import { type CommonFlags, run } from './run.ts'
import { drawStatus } from './status-text.ts'

interface StatusFlags extends CommonFlags {
  watch?: true
  quiet?: true
}

const REFRESH_MS = 1_000
/** Cursor to the top left, and all below it erased. */
const REDRAW = '\u001b[H\u001b[J'

export const statusCommand = new Command('status')
  .description('how the farport that runs here is: ports, links, relays, who is connected and how')
  .option('--watch', 'again every second, until Ctrl-C')
  .option('--quiet', 'say nothing: exit code 0 when one runs and nothing is down, 1 otherwise')
  .action((flags: StatusFlags) =>
    run(flags, async ({ home, output, signal }) => {
      const ask = async () => {
        const status = (await callDaemon(home, 'status', undefined, { signal })) as DaemonStatus | undefined
        if (status !== undefined) return status
        throw new FarportError('ERR_HOME', `no farport runs for ${home}: start one with \`farport up\``)
      }
      if (flags.quiet) {
        const { links, relays } = await ask()
        const ill = links.some(({ state }) => state === 'failed' || state === 'down')
        if (ill || relays.some(({ state }) => state !== 'reserved'))
          throw new FarportError('ERR_HOME', 'something is down: `farport status` tells what')
        return
      }
      if (!flags.watch) {
        const status = await ask()
        return output.result(status, drawStatus(status))
      }
      let before: DaemonStatus | undefined
      while (!signal.aborted) {
        const status = await ask()
        if (output.json) output.event('status', status)
        else process.stdout.write(`${process.stdout.isTTY ? REDRAW : ''}${drawStatus(status, before)}`)
        before = status
        await sleep(REFRESH_MS, undefined, { signal }).catch(() => {})
      }
    }),
  )
