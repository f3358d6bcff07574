import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { FarportError } from '../errors.ts'

interface Event {
  event: string
  [field: string]: unknown
}

/** A farport in a process of its own, followed through what it says under `--json`. Disposal ends it. */
interface Farport extends AsyncDisposable {
  readonly pid: number
  /** The first event of that name, also when it has already come. Rejects with what the process said when it ends before. */
  event(name: string): Promise<Event>
}

export function startFarport(args: string[]): Farport {
  const main = new URL('./main.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const seen = new Map<string, PromiseWithResolvers<Event>>()
  const ended = once(child, 'close')

  function slot(name: string): PromiseWithResolvers<Event> {
    const known = seen.get(name) ?? Promise.withResolvers<Event>()
    known.promise.catch(() => {})
    seen.set(name, known)
    return known
  }

  const lines = createInterface({ input: child.stdout })
  let failure: Event | undefined
  lines.on('line', (line) => {
    const event = JSON.parse(line) as Event
    if (event.event === 'error') failure = event
    slot(event.event).resolve(event)
  })
  void ended.then(() => {
    const error = new FarportError(
      'ERR_INTERNAL',
      `farport ${args[0]} ended: ${failure?.message ?? 'without a word'}`,
    )
    for (const { reject } of seen.values()) reject(error)
  })

  return {
    pid: child.pid as number,
    event: (name) => slot(name).promise,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await ended
    },
  }
}
