import { symlink, unlink } from 'node:fs/promises'
import { type PtyPair, ptyPair } from './pty-pair.ts'

/** A device at a path that stays the same while it is unplugged and plugged in, as a by-id link of a USB adapter does. */
export class Pluggable implements AsyncDisposable {
  readonly path: string
  #pair: PtyPair | undefined

  constructor(path: string) {
    this.path = path
  }

  /** The device itself, while it is plugged in. */
  get device(): PtyPair {
    if (this.#pair === undefined) throw new Error(`${this.path} is not plugged in`)
    return this.#pair
  }

  async plug(): Promise<PtyPair> {
    this.#pair = ptyPair()
    await symlink(this.#pair.slavePath, this.path)
    return this.#pair
  }

  /** The name goes first, as udev takes it away: who looks for the device must not find a name that leads nowhere. */
  async unplug(): Promise<void> {
    if (this.#pair === undefined) return
    await unlink(this.path)
    const pair = this.#pair
    this.#pair = undefined
    await pair[Symbol.asyncDispose]()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.unplug()
  }
}
