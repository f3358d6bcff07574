import { Inviter } from '../../src/trust/inviter.ts'
import { Invites } from '../../src/trust/invites.ts'
import { Joiner, type JoinerOptions } from '../../src/trust/joiner.ts'
import { inviteIdOf, type PairingEvent } from '../../src/trust/pairing.ts'
import type { PairingSide } from '../../src/trust/pairing-side.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import type { TrustedPeer } from '../../src/trust/trusted-peers.ts'

const idOf = (n: number) => formatPeerId(new Uint8Array(32).fill(n))
export const ANNA = idOf(1)
export const WORKSHOP = idOf(2)
export const MALLORY = idOf(3)

export const INVITE_ID = inviteIdOf('417')
export const SECRET = Buffer.from('apple-brave-crane')
export const WRONG = Buffer.from('apple-brave-crowd')

/** What the workshop says of itself, and allows. */
export const WORKSHOP_TERMS = {
  name: 'workshop',
  ports: ['gps', 'plc-*'],
  may: ['watch', 'use', 'configure'] as const,
  expires: Date.UTC(2030, 0, 1),
  addrs: [`/dns4/relay.example.org/tcp/4001/p2p/${MALLORY}/p2p-circuit`],
}
export const ANNA_TERMS = { name: 'anna', ports: [], may: [], addrs: [] }

/** An inviter's machine with one invite open; its clock stands still unless told. */
export class Workshop implements Disposable {
  nowMs = 0
  readonly recorded: TrustedPeer[] = []
  readonly told: unknown[][] = []
  /** May be made to fail. */
  record = async (peer: TrustedPeer): Promise<TrustedPeer> => {
    this.recorded.push(peer)
    return peer
  }
  readonly invites = new Invites({
    self: WORKSHOP,
    record: (peer) => this.record(peer),
    clock: () => this.nowMs,
  })

  constructor() {
    this.invites.on('failed', (_id, reason, triesLeft) => this.told.push(['failed', reason, triesLeft]))
    for (const event of ['refused', 'paired', 'unrecorded', 'ended'] as const)
      this.invites.on(event, (...args: unknown[]) => this.told.push([event, ...args.slice(1)]))
    this.open()
  }

  open(): void {
    this.invites.open({ id: INVITE_ID, secret: SECRET, terms: WORKSHOP_TERMS })
  }

  /** A side for one stream; by default time passes, so that nobody is too often there. */
  inviter(joiner = ANNA, waitMs = 61_000): Inviter {
    this.nowMs += waitMs
    return new Inviter({
      self: WORKSHOP,
      joiner,
      begin: (id) => this.invites.begin(id, { peerId: joiner }),
    })
  }

  [Symbol.dispose](): void {
    this.invites[Symbol.dispose]()
  }
}

export function joinerOf(options: Partial<JoinerOptions> = {}): Joiner {
  return new Joiner({
    self: ANNA,
    inviter: WORKSHOP,
    inviteId: INVITE_ID,
    secret: SECRET,
    terms: ANNA_TERMS,
    ...options,
  })
}

export interface Outcome {
  /** The last event of each. */
  joiner: PairingEvent | undefined
  inviter: PairingEvent | undefined
  /** What each put on the wire, in order, with the two bytes of its length. */
  frames: Uint8Array[]
}

/** What becomes of a frame: other bytes, or the end of the stream. */
type Wire = (frame: Uint8Array, index: number) => Uint8Array | 'cut'

/** Lets the two talk to the end. What stops for want of bytes runs into the timeout. */
export async function pair(
  joiner: Joiner,
  inviter: Inviter,
  wire: Wire = (frame) => frame,
): Promise<Outcome> {
  const outcome: Outcome = { joiner: undefined, inviter: undefined, frames: [] }
  const todo: (() => Promise<void>)[] = []
  let cut = false

  async function take(from: 'joiner' | 'inviter', events: PairingEvent[]): Promise<void> {
    const [to, toSide] = from === 'joiner' ? (['inviter', inviter] as const) : (['joiner', joiner] as const)
    for (const event of events) {
      if (event.type === 'send') {
        const sent = wire(event.bytes, outcome.frames.length)
        outcome.frames.push(event.bytes)
        if (sent === 'cut') cut = true
        else if (!cut) todo.push(() => take(to, toSide.push(sent)))
      } else if (event.type === 'commit') todo.push(async () => take('inviter', await inviter.commit()))
      else outcome[from] = event
    }
  }

  await take('joiner', joiner.start())
  for (let next = todo.shift(); next !== undefined; next = todo.shift()) await next()
  const end = (side: PairingSide) => side.end(cut ? 'closed' : 'timeout')
  outcome.joiner = end(joiner).at(-1) ?? outcome.joiner
  outcome.inviter = end(inviter).at(-1) ?? outcome.inviter
  return outcome
}

/** Why a side failed, or that it did not. */
export function verdict(event: PairingEvent | undefined): string | undefined {
  return event?.type === 'failed' ? event.reason : event?.type
}

export function framed(...body: number[]): Uint8Array {
  return Uint8Array.of(body.length >> 8, body.length & 255, ...body)
}
