import { type Logger, pino } from 'pino'

export type { Logger } from 'pino'

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'silent'

/** The root logger: JSON lines on standard error, so that standard output stays free for data. Never a worker thread. */
export function createLog(level: LogLevel): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    pino.destination({ dest: 2, sync: true }),
  )
}
