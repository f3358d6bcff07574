import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { Command, InvalidArgumentError } from 'commander'
import { CaptureError } from '../capture/format.ts'
import type { readCapture } from '../capture/formats.ts'
import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { type CommonFlags, run } from './run.ts'

interface ReplayFlags extends CommonFlags {
  speed: number
  pty?: string
  stdio?: true
}

export const replayCommand = new Command('replay')
  .description('say again what the device said in a capture, as fast as it did')
  .argument('<file>', 'a capture: hex, asciicast or pcapng')
  .option('--speed <x>', 'so many times as fast, or max: waiting for nothing', speed, 1)
  .option('--pty <link>', 'to a virtual serial port found there, each time a program opens it')
  .option('--stdio', 'to standard output, which is the default')
  .addHelpText(
    'after',
    '\nWith --pty it ends when a program that has got all of it closes the port. A damaged or cut capture is played as far as\nit goes, and ends with 1.',
  )
  .action(async (file: string, flags: ReplayFlags) => {
    await run(flags, async ({ output, log, signal }) => {
      if (flags.pty !== undefined && flags.stdio)
        throw new FarportError('ERR_USAGE', 'one place at a time: --pty LINK or --stdio')
      const pieces = () => readFrom(file)
      if (flags.pty === undefined) await toStandardOutput(pieces(), flags.speed, signal)
      else {
        const link = flags.pty
        const tell = (event: 'ready' | 'open' | 'close') =>
          output.event(
            event,
            { at: link },
            event === 'ready' ? `${link} is there for a program to open` : undefined,
          )
        await toPty(pieces, { link, speed: flags.speed, log, tell }, signal)
      }
    })
  })

function speed(text: string): number {
  const value = text === 'max' ? Number.POSITIVE_INFINITY : Number(text)
  if (!(value > 0)) throw new InvalidArgumentError('A number above 0, such as 10 or 0.5, or max.')
  return value
}

/** @throws FarportError ERR_USAGE for a file that can't be read, ERR_DAMAGED where it is no capture any more */
async function* readFrom(file: string): ReturnType<typeof readCapture> {
  const { readCapture } = await import('../capture/formats.ts')
  try {
    yield* readCapture(createReadStream(file))
  } catch (error) {
    if (error instanceof CaptureError)
      throw new FarportError('ERR_DAMAGED', `${file} could be played only so far: ${error.message}`, {
        cause: error,
      })
    const { code, message } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    throw new FarportError(
      'ERR_USAGE',
      code === 'ENOENT' ? `there is no ${file}` : `${file} can't be read: ${message}`,
      { cause: error },
    )
  }
}

async function toStandardOutput(
  pieces: ReturnType<typeof readCapture>,
  speed: number,
  signal: AbortSignal,
): Promise<void> {
  const { play } = await import('../capture/play.ts')
  const { stdout } = process
  const write = async (bytes: Uint8Array) => {
    if (!stdout.write(bytes)) await once(stdout, 'drain', { signal }).catch(() => {})
  }
  await play(pieces, { speed, signal, write })
}

interface ToPty {
  link: string
  speed: number
  log: Logger
  /** `open` and `close` are of a program. */
  tell: (event: 'ready' | 'open' | 'close') => void
}

/** A port that plays the capture from its beginning to each program, until one has got all of it. */
async function toPty(
  pieces: () => ReturnType<typeof readCapture>,
  { link, speed, log, tell }: ToPty,
  signal: AbortSignal,
): Promise<void> {
  const { play } = await import('../capture/play.ts')
  const { createPtyEndpoint } = await import('../endpoints/pty.ts')
  const { memorySource } = await import('../serial/memory-port.ts')
  const done = Promise.withResolvers<void>()
  const onAbort = () => done.resolve()
  signal.addEventListener('abort', onAbort)
  const description = { path: link, modemLines: false }
  const source = memorySource({
    description,
    // No more than a driver has: what waits here counts as played.
    receiveBufferBytes: 4096,
    attach: (port) => {
      const over = new AbortController()
      let cutShort = false
      let onRoom = () => {}
      const write = async (bytes: Uint8Array) => {
        for (let left = bytes.subarray(port.receive(bytes)); left.length > 0 && !over.signal.aborted; ) {
          await new Promise<void>((resolve) => {
            onRoom = resolve
          })
          if (over.signal.aborted) cutShort = true
          else left = left.subarray(port.receive(left))
        }
      }
      tell('open')
      // After the port has its attachment.
      const playing = Promise.resolve().then(() => play(pieces(), { speed, signal: over.signal, write }))
      playing.catch(() => {})
      return {
        onBytes: ({ length }) => length,
        onRoom: () => onRoom(),
        onOutputs: () => {},
        onBreak: () => {},
        onClose: () => {
          tell('close')
          over.abort()
          onRoom()
          playing.then((whole) => {
            if (whole && !cutShort) done.resolve()
          }, done.reject)
        },
      }
    },
  })
  await using _endpoint = await createPtyEndpoint({ link, modemLines: false, log }, (until) =>
    source.open({ signal: until }),
  )
  tell('ready')
  await done.promise
  signal.removeEventListener('abort', onAbort)
}
