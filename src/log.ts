import { type Logger, pino } from 'pino'
import { FarportError } from './errors.ts'

export type { Logger } from 'pino'

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'silent'

/** Every field that could hold a secret, should one ever be logged by mistake. */
const SECRETS = [
  'seed',
  '*.seed',
  'secret',
  '*.secret',
  'psk',
  '*.psk',
  'words',
  '*.words',
  'ticket',
  '*.ticket',
]

/**
 * The root logger, on standard error, so that standard output stays free for data: JSON lines for machines, plain lines for
 * a person at a terminal. Never a worker thread.
 */
export function createLog(level: LogLevel): Logger {
  const options: pino.LoggerOptions = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: serializeError },
    redact: { paths: SECRETS, censor: '[secret]' },
  }
  if (!process.stderr.isTTY) return pino(options, pino.destination({ dest: 2, sync: true }))
  return pino(options, { write: (line: string) => void process.stderr.write(plainLine(line)) })
}

/** What happened, in one line; the stack only for errors that are not ours, since those are bugs. */
function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { name, message } = error
  const cause = error.cause instanceof Error ? { cause: error.cause.message } : {}
  if (error instanceof FarportError) return { code: error.code, message, ...cause }
  const code = 'code' in error && typeof error.code === 'string' ? { code: error.code } : {}
  return name === 'AbortError' || 'code' in code
    ? { name, message, ...code }
    : { name, message, stack: error.stack }
}

function plainLine(json: string): string {
  const { level, time, msg, err, ...fields } = JSON.parse(json) as Record<string, unknown>
  const rest = Object.entries(fields).map(
    ([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  const reason = typeof err === 'object' && err !== null && 'message' in err ? `: ${err.message}` : ''
  return `farport ${String(time).slice(11, 19)} ${level}: ${msg}${reason}${rest.join('')}\n`
}
