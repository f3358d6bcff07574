/**
 * Agents of a fleet, many in one process: whole nodes with their reservations and their vouching, only without serial
 * ports. Started by relay.ts with an IPC channel: gets one Fleet, tells a Standing whenever it has changed.
 */
import { once } from 'node:events'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { createLog } from '../../src/log.ts'
import { createOverlay } from '../../src/overlay/node.ts'
import { RELAY_PROTOCOL } from '../../src/relay/vouch-message.ts'
import { Vouching } from '../../src/relay/vouching.ts'

export interface Fleet {
  /** The private keys, in hex. */
  readonly seeds: readonly string[]
  /** With its PeerID. */
  readonly relay: string
  /** Who may call each of them. */
  readonly callers: readonly string[]
  /** The protocol under which they echo. */
  readonly echo: string
  /** Where the first of them listens, too. */
  readonly listen: readonly string[]
}

/** How many agents hold a reservation, and how many of these are there to be called as well. */
export interface Standing {
  readonly reserved: number
  readonly callable: number
}

const log = createLog('silent')
const reserved = new Set<string>()
const heard = new Set<string>()

let telling = false

/** Ten times a second at most: a thousand agents change much. */
function tell(): void {
  if (telling) return
  telling = true
  setTimeout(tellNow, 100)
}

function tellNow(): void {
  telling = false
  const callable = [...heard].filter((peerId) => reserved.has(peerId)).length
  process.send?.({ reserved: reserved.size, callable } satisfies Standing)
}

async function start(
  seed: string,
  { relay, callers, echo }: Fleet,
  listen: readonly string[],
): Promise<void> {
  const relayId = relay.slice(relay.lastIndexOf('/') + 1)
  const agent = await createOverlay({
    seed: Buffer.from(seed, 'hex'),
    listen,
    relays: [relay],
    admits: (peerId) => callers.includes(peerId),
    log,
  })
  await agent.handle(echo, (stream) => void stream.pipe(stream))
  const vouching = new Vouching({
    open: async (signal) => {
      while (!reserved.has(agent.peerId)) await once(agent, 'relay', { signal })
      const { stream } = await agent.open(relayId, RELAY_PROTOCOL, { addresses: [relay], signal })
      stream.on('close', () => {
        heard.delete(agent.peerId)
        tell()
      })
      return stream
    },
    callers: () => ({ peerIds: callers, doors: [] }),
    onWelcome: () => {
      heard.add(agent.peerId)
      tell()
    },
    log,
  })
  agent.on('relay', ({ state }) => {
    if (state === 'reserved') {
      reserved.add(agent.peerId)
      vouching.hurry()
    } else reserved.delete(agent.peerId)
    tell()
  })
}

process.once('SIGTERM', () => process.exit())
const [fleet] = (await once(process, 'message')) as [Fleet]
for (const [i, seed] of fleet.seeds.entries()) {
  await start(seed, fleet, i === 0 ? fleet.listen : [])
  // Those that are there have to get on.
  await nextTurn()
}
