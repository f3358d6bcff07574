import { FarportError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Right } from '../trust/grants.ts'
import type { Hello } from './hello.ts'
import type { Listing } from './listing.ts'
import type { Caller, PortEvent } from './port-event.ts'
import type { PortSession } from './port-session.ts'

interface LeaseOptions {
  mayTakeOver: (peerId: string) => boolean
  nameOf: (peerId: string) => string | undefined
  tell: (event: PortEvent) => void
  log: Logger
}

type State =
  | { name: 'free' }
  /** The device is being opened for a peer, or taken from its last holder. */
  | { name: 'changing'; peerId: string }
  | { name: 'held'; session: PortSession }

/** What a peer has that is about to hold a port. Disposing of it leaves things as they were, unless hold() was called. */
interface Claim extends Disposable {
  /** Makes the peer go that holds the port. */
  evict(): Promise<void>
  hold(session: PortSession): void
}

/** Who holds a port: one peer at a time. It knows no devices. */
export class Lease {
  readonly #port: string
  readonly #options: LeaseOptions
  #state: State = { name: 'free' }
  /** The last channel that lost the port to another peer, which may ask what became of it. */
  #lost: { channelId: string; error: FarportError } | undefined
  /** Peers that were told of the present holder: each asks again and again. */
  readonly #toldBusy = new Set<string>()

  constructor(port: string, options: LeaseOptions) {
    this.#port = port
    this.#options = options
  }

  /** The PeerID of who holds the port, or is about to. */
  get holder(): string | undefined {
    return this.#state.name === 'changing' ? this.#state.peerId : this.session?.caller.peerId
  }

  get session(): PortSession | undefined {
    return this.#state.name === 'held' ? this.#state.session : undefined
  }

  /** Who holds the port, as a peer may know it; undefined where that peer can have it as it is. */
  holderFor(asking: string, may: readonly Right[]): Listing['holder'] {
    const { holder } = this
    if (holder === undefined || this.session?.isGhostOf(asking)) return undefined
    const name = this.#options.nameOf(holder)
    const told = name !== undefined && (holder === asking || may.includes('steal'))
    return { you: holder === asking, ...(told && { name }) }
  }

  /**
   * For a peer that wants to hold the port. Until the claim is disposed of, no other gets one.
   * @throws FarportError ERR_PORT_BUSY; ERR_NOT_GRANTED where it wants to take the port over and may not
   */
  async claim(caller: Caller, { steal = false }: Hello): Promise<Claim> {
    await this.#untilLeft(caller.peerId)
    const loser = this.#loserTo(caller.peerId, steal)
    const changing: State = { name: 'changing', peerId: caller.peerId }
    this.#state = changing
    return {
      evict: async () => {
        if (loser !== undefined && loser.state !== 'gone') await this.#takeFrom(loser, caller)
      },
      hold: (session) => {
        this.#state = { name: 'held', session }
        this.#toldBusy.clear()
      },
      [Symbol.dispose]: () => {
        if (this.#state !== changing) return
        const stays = loser !== undefined && loser.state !== 'gone'
        this.#state = stays ? { name: 'held', session: loser } : { name: 'free' }
      },
    }
  }

  /** The session is gone. */
  release(session: PortSession): void {
    if (this.session === session) this.#state = { name: 'free' }
  }

  /** Ends the holder's session. Its client is told as if another had taken the port, and so does not come back at once. */
  letGo(why: string): void {
    const { session } = this
    if (session === undefined) return
    const error = new FarportError('ERR_PORT_BUSY', `${this.#port} was let go: ${why}`)
    this.#lost = { channelId: session.channelId, error }
    void session.end(error)
  }

  /** Why a channel that held the port does so no longer, where that is known. */
  whyLost(channelId: string): FarportError | undefined {
    return this.#lost?.channelId === channelId ? this.#lost.error : undefined
  }

  /** Whether a refusal because the port is in use is news: who waits for a port asks every few seconds. */
  isFirstBusy(peerId: string): boolean {
    const first = !this.#toldBusy.has(peerId)
    this.#toldBusy.add(peerId)
    return first
  }

  /** Waits for a holder that need not be asked. */
  async #untilLeft(peerId: string): Promise<void> {
    const { session } = this
    switch (session?.state) {
      case 'away':
        if (session.isGhostOf(peerId))
          await session.end(new FarportError('ERR_CHANNEL_LOST', 'the same peer opened the port anew'))
        break
      // Who comes right behind a holder that has closed the port waits while that one's last bytes leave.
      case 'leaving':
        await session.hurryOut()
        break
      case 'here':
      case 'gone':
      case undefined:
    }
  }

  /** Whom the port is to be taken from, if anybody. */
  #loserTo(peerId: string, steal: boolean): PortSession | undefined {
    const held = `${this.#port} is in use by ${this.holder === peerId ? 'another program of the same peer' : 'another peer'}`
    switch (this.#state.name) {
      case 'free':
        return undefined
      case 'held':
        if (steal && this.#options.mayTakeOver(peerId)) return this.#state.session
        if (steal)
          throw new FarportError(
            'ERR_NOT_GRANTED',
            `${held}, and this peer may not take it over: its owner can grant it with may=…,steal`,
          )
        break
      case 'changing':
    }
    throw new FarportError('ERR_PORT_BUSY', `${held}: try again when it is free`)
  }

  async #takeFrom(loser: PortSession, { peerId, path }: Caller): Promise<void> {
    const from = loser.caller.peerId
    const error = new FarportError(
      'ERR_PORT_BUSY',
      `${this.#port} was taken over by ${this.#name(peerId, from)}`,
    )
    this.#lost = { channelId: loser.channelId, error }
    await Promise.all([loser.end(error), loser.hurryOut()])
    this.#options.log.info({ peer: peerId, from, port: this.#port }, 'the port was taken over')
    this.#options.tell({ event: 'steal', peerId, ...(path && { path }), port: this.#port, from })
  }

  /** What a peer is called, for another that loses the port to it. */
  #name(peerId: string, told: string): string {
    if (told === peerId) return 'another program of the same peer'
    return this.#options.nameOf(peerId) ?? 'another peer'
  }
}
