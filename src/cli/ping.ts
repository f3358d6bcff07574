import { setTimeout as sleep } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import { callDaemon } from '../daemon/control-client.ts'
import type { Daemon } from '../daemon/daemon.ts'
import { EXIT } from './exit-code.ts'
import { type CommonFlags, run } from './run.ts'

interface PingFlags extends CommonFlags {
  count: number
}

/** Between two of them: the time that going direct is given to happen. */
const INTERVAL_MS = 1_000

export const pingCommand = new Command('ping')
  .description('how a peer is reached: directly or through a relay, and how long there and back')
  .argument('<peer>', "the peer's name in trusted_peers")
  .option('--count <n>', 'how many times', count, 5)
  .addHelpText(
    'after',
    '\nEnds with 0 when the last answer came directly, 1 when through a relay, 6 when none came.',
  )
  .action(async (name: string, flags: PingFlags) => {
    let relayed = false
    await run(flags, async ({ home, output, log, signal }) => {
      await using stack = new AsyncDisposableStack()
      let alone: Daemon | undefined
      const ping = async () => {
        const answer = alone ? undefined : await callDaemon(home, 'ping', { peer: name }, { signal })
        if (answer !== undefined) return answer as Awaited<ReturnType<Daemon['ping']>>
        if (alone === undefined) {
          const { startDaemon } = await import('../daemon/daemon.ts')
          const config = { home, listen: [], shares: [], links: [], wait: false }
          alone = stack.use(await startDaemon(config, { log, signal, report: () => {} }))
        }
        return await alone.ping(name, signal)
      }
      for (let seq = 1; seq <= flags.count; seq++) {
        if (seq > 1) await sleep(INTERVAL_MS, undefined, { signal })
        const { path, roundTripMs } = await ping()
        relayed = path.kind === 'relayed'
        const ms = Number(roundTripMs.toFixed(1))
        const { kind, remoteAddress: address, encryption } = path
        output.result(
          { event: 'pong', peer: name, seq, kind, address, encryption, roundTripMs: ms },
          `${name}: ${ms} ms, ${kind}, ${address}\n`,
        )
      }
    })
    if (process.exitCode === EXIT.ok && relayed) process.exitCode = EXIT.failed
  })

function count(text: string): number {
  const value = Number(text)
  if (!(Number.isInteger(value) && value >= 1 && value <= 1_000_000))
    throw new InvalidArgumentError('A whole number, 1 or more.')
  return value
}
