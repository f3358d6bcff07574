import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Termios2 } from '../../src/device/termios.ts'
import { type PtyPair, ptyPair } from './pty-pair.ts'
import { TwoHomes } from './two-homes.ts'
import { until } from './until.ts'

const DEADLINE_MS = 10_000

/** A device on a PTY that one farport shares as `device`, and another uses: what programs there do to it is seen here. */
export class FarDevice implements AsyncDisposable {
  readonly homes: TwoHomes
  /** Where the local programs find it: the PTY's link, or HOST:PORT. */
  readonly at: string
  readonly #pty: PtyPair
  #heard = ''

  private constructor(homes: TwoHomes, pty: PtyPair, at: string) {
    this.homes = homes
    this.at = at
    this.#pty = pty
    pty.master.on('data', (bytes: Buffer) => {
      this.#heard += bytes.toString('latin1')
      pty.master.emit('heard')
    })
  }

  /** `endpoint` is what `farport connect` is told; LINK in it stands for a link in a folder of this device's own. */
  static async behind(...endpoint: string[]): Promise<FarDevice> {
    // So that nothing stays behind when one of the two does not start.
    await using begun = new AsyncDisposableStack()
    const homes = begun.use(await TwoHomes.make())
    const pty = homes.use(ptyPair())
    await homes.grant('ports=device')
    await homes.share(`${pty.slavePath}=device`)
    const words = endpoint.map((word) => word.replace('LINK', homes.path('link')))
    const client = await homes.connect('a/device', ...words)
    begun.move()
    return new FarDevice(homes, pty, client.links[0]?.at ?? '')
  }

  says(text: string): void {
    this.#pty.master.write(text)
  }

  /** Sends back whatever comes, from now on. */
  echoes(): void {
    this.#pty.master.pipe(this.#pty.master)
  }

  /** Waits until this has come from the program, and forgets what came before it. */
  async hears(text: string): Promise<void> {
    const deadline = AbortSignal.timeout(DEADLINE_MS)
    for (;;) {
      const found = this.#heard.indexOf(text)
      if (found !== -1) {
        this.#heard = this.#heard.slice(found + text.length)
        return
      }
      await once(this.#pty.master, 'heard', { signal: deadline }).catch(() =>
        assert.fail(`the device hears ${JSON.stringify(this.#heard)} and not ${JSON.stringify(text)}`),
      )
    }
  }

  /** Waits until the device's line is as wanted. */
  shows(what: string, wanted: (termios: Termios2) => boolean): Promise<void> {
    return until(`the device shows ${what}`, () => wanted(this.#pty.termios()))
  }

  runsAt(baudRate: number): Promise<void> {
    return this.shows(`${baudRate} baud`, ({ ospeed, ispeed }) => ospeed === baudRate && ispeed === baudRate)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.homes[Symbol.asyncDispose]()
  }
}
