import { resolveHome } from '../config/home.ts'
import { createLog, type Logger, type LogLevel } from '../log.ts'
import { EXIT, exitCodeOf } from './exit-code.ts'
import { createOutput, type Output } from './output.ts'

/** What every command takes. */
export interface CommonFlags {
  home?: string
  json?: true
  logLevel: LogLevel
}

export interface Context {
  home: string
  output: Output
  log: Logger
  /** Aborted by the first SIGINT, SIGTERM or SIGHUP. */
  signal: AbortSignal
  /** From now on SIGHUP calls this instead: for a service it means to read its configuration again. */
  onHangup: (listener: () => void) => void
}

/** No hand is as quick as this. */
const SAME_SIGNAL_MS = 200

/** Runs a command's body and turns how it ended into output and an exit code. */
export async function run(flags: CommonFlags, body: (context: Context) => Promise<void>): Promise<void> {
  const output = createOutput(flags.json === true)
  const stop = new AbortController()
  let interrupted: NodeJS.Signals | undefined
  let interruptedAt = 0
  let hangup: (() => void) | undefined
  const onSignal = (signal: NodeJS.Signals) => {
    if (signal === 'SIGHUP' && hangup !== undefined && interrupted === undefined) hangup()
    else if (interrupted === undefined) {
      interrupted = signal
      interruptedAt = performance.now()
      stop.abort()
    }
    // A later signal is for a person who has waited long enough. One at the same time is the same once more: a terminal
    // signals the whole group, and whoever started us passes it on.
    else if (performance.now() - interruptedAt > SAME_SIGNAL_MS) process.exit(EXIT.interrupted)
  }
  // `farport demo | head`: whoever read has gone, so it is time to end, and to end what was started.
  const onOutputGone = () => stop.abort()
  process.stdout.on('error', onOutputGone)
  const signals: NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP']
  for (const signal of signals) process.on(signal, onSignal)
  try {
    const home = resolveHome(flags.home)
    const log = createLog(flags.logLevel)
    await body({
      ...{ home, output, log, signal: stop.signal },
      onHangup: (listener) => {
        hangup = listener
      },
    })
    // SIGTERM is how a service is told to end; only a person's Ctrl-C counts as interrupted.
    process.exitCode = interrupted === 'SIGINT' ? EXIT.interrupted : EXIT.ok
  } catch (thrown) {
    const error = firstOf(thrown)
    if (interrupted === undefined && !stop.signal.aborted) {
      output.error(error)
      process.exitCode = exitCodeOf(error)
    } else process.exitCode = interrupted === 'SIGINT' ? EXIT.interrupted : EXIT.ok
  } finally {
    for (const signal of signals) process.off(signal, onSignal)
  }
}

/** What went wrong first: that something could not be closed either, after that, explains nothing. */
function firstOf(error: unknown): unknown {
  return error instanceof SuppressedError ? firstOf(error.suppressed) : error
}
