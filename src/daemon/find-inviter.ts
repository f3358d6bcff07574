import { setTimeout as sleep } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import { findOnLan } from '../lan/lan.ts'
import type { Logger } from '../log.ts'
import { byPeer } from './relaying.ts'

/** A relay is asked again, since the invite may reach it a moment after the code reaches us; it answers only so often. */
const ASK_AGAIN_MS = [0, 3_000, 6_000]

interface Found {
  readonly peerId: string
  readonly addresses: readonly string[]
}

interface FindOptions {
  /** Addresses of relays to ask, each with its PeerID. */
  relays: readonly string[]
  /** Who has an open invite under the nameplate, as one relay says. */
  askRelay: (
    relay: { peerId: string; addresses: readonly string[] },
    signal: AbortSignal,
  ) => Promise<string[]>
  signal: AbortSignal
  log: Logger
}

/**
 * Yields who may have an invite open under a nameplate, from the LAN and from relays, as they answer, until the signal is
 * aborted. Nothing of it is proven. A peer may come several times, with other addresses.
 */
export async function* findInviter(
  nameplate: string,
  { relays, askRelay, signal, log }: FindOptions,
): AsyncGenerator<Found, void, undefined> {
  const found: Found[] = []
  let arrived = Promise.withResolvers<void>()
  const add = (peer: Found) => {
    found.push(peer)
    arrived.resolve()
  }
  const stop = new AbortController()
  const until = AbortSignal.any([signal, stop.signal])
  const wake = () => arrived.resolve()
  until.addEventListener('abort', wake)

  const lan = async () => {
    for await (const peer of findOnLan(nameplate, { signal: until, log })) add(peer)
  }
  const relay = async (peerId: string, addresses: readonly string[]) => {
    const known = new Set<string>()
    for (const pauseMs of ASK_AGAIN_MS) {
      await sleep(pauseMs, undefined, { signal: until })
      const inviters = await askRelay({ peerId, addresses }, until).catch((error: unknown) => {
        if (!(error instanceof FarportError)) throw error
        log.debug({ err: error, relay: peerId }, 'the relay tells of no invite')
        return []
      })
      for (const inviter of inviters) {
        if (known.has(inviter)) continue
        known.add(inviter)
        add({
          peerId: inviter,
          addresses: addresses.map((address) => `${address}/p2p/${peerId}/p2p-circuit`),
        })
      }
    }
  }
  const searches = [lan(), ...[...byPeer(relays)].map(([peerId, addresses]) => relay(peerId, addresses))]
  const failed = (err: unknown) => {
    if (!until.aborted) log.error({ err }, 'looking for the inviter failed')
  }
  const done = Promise.all(searches.map((search) => search.catch(failed)))
  try {
    while (!until.aborted) {
      const peer = found.shift()
      if (peer !== undefined) yield peer
      else {
        await arrived.promise
        if (found.length === 0) arrived = Promise.withResolvers()
        if (until.aborted) return
      }
    }
  } finally {
    stop.abort()
    until.removeEventListener('abort', wake)
    await done
  }
}
