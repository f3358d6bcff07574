import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { callDaemon } from '../daemon/control-client.ts'
import { type DaemonStatus, summarize } from '../daemon/status.ts'
import { FarportError } from '../errors.ts'
import { type CommonFlags, run } from './run.ts'
import { table } from './table.ts'

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
        return output.result(status, draw(status))
      }
      while (!signal.aborted) {
        const status = await ask()
        if (output.json) output.event('status', status)
        else process.stdout.write(`${process.stdout.isTTY ? REDRAW : ''}${draw(status)}`)
        await sleep(REFRESH_MS, undefined, { signal }).catch(() => {})
      }
    }),
  )

function draw(status: DaemonStatus): string {
  const { peerId, pid, uptimeMs, ports, links, relays, peers } = status
  const blocks = [
    `${peerId}, process ${pid}, up ${duration(uptimeMs)}: ${summarize(status)}\n`,
    ports.length > 0 &&
      table(
        ['port', 'state', 'held by', 'watching', 'device'],
        ports.map(({ name, state, holder = '', watchers, device }) => [
          ...[name, state, holder, watchers > 0 ? `${watchers}` : '', device],
        ]),
      ),
    links.length > 0 &&
      table(
        ['link', 'state', 'path', 'at', ''],
        links.map(({ port, state, path = '', at, reason = '' }) => [port, state, path, at, reason]),
      ),
    peers.length > 0 &&
      table(
        ['peer', 'path', 'address'],
        peers.map(({ name, path, address }) => [name, path, address]),
      ),
    relays.length > 0 &&
      table(
        ['relay', 'state', ''],
        relays.map(({ address, state, reason = '' }) => [address, state, reason]),
      ),
  ]
  return blocks.filter((block) => block !== false).join('\n')
}

function duration(ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes} min`
  return minutes < 48 * 60
    ? `${Math.floor(minutes / 60)} h ${minutes % 60} min`
    : `${Math.floor(minutes / 1440)} days`
}
