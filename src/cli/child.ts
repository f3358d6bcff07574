import { type ChildProcessByStdio, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { extname, join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { FarportError } from '../errors.ts'

interface Event {
  event: string
  [field: string]: unknown
}

/** A farport in a process of its own, followed through what it says under `--json`. Disposal ends it. */
interface Farport extends AsyncDisposable {
  readonly pid: number
  /** Its exit code, once it has ended; null when a signal ended it. */
  readonly ended: Promise<number | null>
  /** What a command that does not stay answered: its one object that is no event. */
  readonly result: Promise<object>
  /** The first event that fits, also when it has already come. Rejects with what the process said when it ends before. */
  event(name: string, fits?: (event: Event) => boolean): Promise<Event>
}

/** Next to this file, also where both have been bundled. */
const MAIN = join(import.meta.dirname, `main${extname(import.meta.filename)}`)

/** So many events are remembered for those who ask late. */
const MAX_EVENTS = 1_000

interface StartOptions {
  /** What it reads on standard input. */
  input?: string
  /** Starts the process, as `spawn` does: elsewhere, say. */
  launch?: (program: string, args: string[], options: SpawnOptions) => unknown
  /** Told each line of its log, which otherwise goes where ours goes. */
  onLog?: (line: string) => void
}

export function startFarport(args: string[], { input, launch = spawn, onLog }: StartOptions = {}): Farport {
  const child = launch(process.execPath, [MAIN, ...args], {
    stdio: ['pipe', 'pipe', onLog === undefined ? 'inherit' : 'pipe'],
  }) as ChildProcessByStdio<Writable, Readable, Readable | null>
  if (onLog !== undefined && child.stderr !== null) createInterface({ input: child.stderr }).on('line', onLog)
  child.stdin.on('error', () => {}).end(input)
  const seen: Event[] = []
  const waiting = new Set<{ fits: (event: Event) => boolean } & PromiseWithResolvers<Event>>()
  const ended = once(child, 'close') as Promise<[number | null]>
  const result = Promise.withResolvers<object>()
  result.promise.catch(() => {})
  let over: FarportError | undefined

  createInterface({ input: child.stdout }).on('line', (line) => {
    const event = JSON.parse(line) as Event
    if (event.event === undefined) result.resolve(event)
    if (seen.length < MAX_EVENTS) seen.push(event)
    for (const waiter of waiting) if (waiter.fits(event)) waiter.resolve(event)
  })
  void ended.then(() => {
    const failure = seen.find(({ event }) => event === 'error')
    over = new FarportError(
      'ERR_INTERNAL',
      `farport ${args[0]} ended: ${failure?.message ?? 'without a word'}`,
    )
    for (const { reject } of [...waiting, result]) reject(over)
  })

  return {
    pid: child.pid as number,
    result: result.promise,
    ended: ended.then(([code]) => code),
    async event(name, fits = () => true) {
      const wanted = (event: Event) => event.event === name && fits(event)
      const known = seen.find(wanted)
      if (known !== undefined) return known
      if (over !== undefined) throw over
      const waiter = { fits: wanted, ...Promise.withResolvers<Event>() }
      waiting.add(waiter)
      return await waiter.promise.finally(() => waiting.delete(waiter))
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await ended
    },
  }
}
