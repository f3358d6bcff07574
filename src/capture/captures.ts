import { isDeepStrictEqual } from 'node:util'
import type { Logger } from '../log.ts'
import { CaptureFile, type CaptureOptions, type CaptureStatus } from './capture-file.ts'
import type { Direction } from './format.ts'

/** The captures of all ports. */
export class Captures implements AsyncDisposable {
  readonly #log: Logger
  #files: ReadonlyMap<string, { options: CaptureOptions; file: CaptureFile }> = new Map()

  constructor(log: Logger) {
    this.#log = log
  }

  record(port: string, direction: Direction, bytes: Uint8Array): void {
    this.#files.get(port)?.file.record(direction, bytes)
  }

  /** Of a port that is captured. */
  status(port: string): { capture?: CaptureStatus } {
    const file = this.#files.get(port)?.file
    return file === undefined ? {} : { capture: file.status }
  }

  /** Captures these ports from now on, as they are told to; those told the same as before go on. */
  async become(wanted: ReadonlyMap<string, CaptureOptions>): Promise<void> {
    const before = this.#files
    const isKept = (port: string) => isDeepStrictEqual(before.get(port)?.options, wanted.get(port))
    // A file that another port takes over is closed first.
    const gone = [...before].filter(([port]) => !isKept(port))
    this.#files = new Map([...before].filter(([port]) => isKept(port)))
    await Promise.all(gone.map(([, { file }]) => file[Symbol.asyncDispose]()))
    this.#files = new Map(
      [...wanted].map(([port, options]) => [
        port,
        this.#files.get(port) ?? { options, file: new CaptureFile(port, options, this.#log) },
      ]),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.become(new Map())
  }
}
