import { FarportError } from '../errors.ts'

/** What a command says: data on standard output, everything else on standard error, one object a line under `--json`. */
export interface Output {
  readonly json: boolean
  /** The command's result. Under `--json` the object, else the text. */
  result(data: object, text: string): void
  /** Something that happened in a command that stays. Under `--json` an NDJSON line on standard output. */
  event(name: string, fields: object, text?: string): void
  error(error: unknown): void
}

export function createOutput(json: boolean): Output {
  const out = (data: object) => process.stdout.write(`${JSON.stringify(data)}\n`)
  return {
    json,
    result(data, text) {
      if (json) out(data)
      else process.stdout.write(text)
    },
    event(name, fields, text) {
      if (json) out({ event: name, ...fields })
      else if (text !== undefined) process.stderr.write(`${text}\n`)
    },
    error(error) {
      const known = error instanceof FarportError
      // An error that is not ours is a bug: its name may help whoever reports it, its stack belongs in the debug log.
      const message = known
        ? error.message
        : `unexpected: ${error instanceof Error ? error.message : String(error)}`
      if (json) out({ event: 'error', code: known ? error.code : 'ERR_INTERNAL', message })
      else process.stderr.write(`farport: ${message}\n`)
    },
  }
}
