import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { FarportError } from '../errors.ts'
import type { SocketRole } from '../overlay/socket-connection.ts'
import { printable } from '../printable.ts'
import type { StunServerAddress } from '../stun/client.ts'
import { isDialable, toTell } from './path-address.ts'
import { MAX_REASON_LENGTH } from './path-message.ts'
import type { PathStream } from './path-stream.ts'
import { FreshPort, type MappedPort, rendezvous } from './punch.ts'

/** A private address may be nobody's here, and then no answer comes at all. */
const DIAL_TIMEOUT_MS = 3_000
/**
 * Who asks dials first; what is reachable at all mostly answers within this time. Then the other side dials, too, and the
 * STUN servers are asked.
 */
const HEAD_START_MS = 300
const ANSWER_TIMEOUT_MS = 8_000
/** From `go`; NATs that refuse the first packets have let some through by then. */
const OPEN_TIMEOUT_MS = 6_000
/** Where one side waits, the first packet gets through, or one that is sent again, or none. */
const CALL_TIMEOUT_MS = 4_000
/** A worse path is not worth aiming at. */
const MAX_ROUND_TRIP_MS = 2_000

const BOTH_VARY = "both sides' NATs use another port for each destination"

/** What a round does with a node. */
export interface PathMeans {
  /** Our own addresses: of our networks, and announced ones. */
  addresses: () => readonly string[]
  /** Servers that tell how the internet sees a port of ours; of one address, two ports are two servers. */
  stun: () => readonly StunServerAddress[]
  /** Connects with the peer at one of these addresses. */
  dialDirect: (addresses: readonly string[], signal: AbortSignal) => Promise<unknown>
  /** Makes a connection with the peer of a socket. The signal has no effect once it is there. */
  adopt: (socket: Socket, options: { role: SocketRole; signal: AbortSignal }) => Promise<unknown>
  /** Whether to dial an address that the peer tells us; isDialable unless given. */
  mayDial?: (address: string) => boolean
}

/** How a direct connection came to be. */
export type Way = 'dialed' | 'punched'

/**
 * One round, as the side that asks for it.
 * @throws FarportError ERR_PEER_UNREACHABLE when there is no direct way, ERR_PROTOCOL; the signal's reason
 */
export async function askForRound(path: PathStream, means: PathMeans, signal: AbortSignal): Promise<Way> {
  const { addresses, dialDirect, mayDial = isDialable } = means
  const sentAtMs = performance.now()
  path.send({ type: 'hello', addresses: toTell(addresses(), mayDial) })
  const hello = await path.expect(['hello'], within(ANSWER_TIMEOUT_MS, signal))
  const roundTripMs = Math.min(performance.now() - sentAtMs, MAX_ROUND_TRIP_MS)

  const found = new AbortController()
  const until = AbortSignal.any([signal, found.signal])
  const dialed = dial(hello.addresses.filter(mayDial), dialDirect, until)
  const headStart = Promise.race([
    dialed.then(
      () => true,
      () => false,
    ),
    sleep(HEAD_START_MS, false, { signal: until }),
  ])
  const punched = headStart.then(async (done) => {
    if (!done) await punchAsAsker(path, means, roundTripMs, until)
  })
  try {
    return await Promise.any([dialed.then((): Way => 'dialed'), punched.then((): Way => 'punched')])
  } catch (cause) {
    signal.throwIfAborted()
    const why = (cause as AggregateError).errors.map(({ message }) => message).join('; ')
    throw new FarportError('ERR_PEER_UNREACHABLE', `no direct way to the peer: ${why}`, { cause })
  } finally {
    found.abort(unreachable('another way was found'))
  }
}

async function punchAsAsker(
  path: PathStream,
  means: PathMeans,
  roundTripMs: number,
  signal: AbortSignal,
): Promise<void> {
  await using port = await FreshPort.open(means.stun(), signal)
  path.send({ type: 'offer', mapped: port.mapped, varies: port.varies })
  const reply = await path.expect(['answer', 'decline'], within(ANSWER_TIMEOUT_MS, signal))
  if (reply.type === 'decline') throw unreachable(printable(reply.reason))
  const socket = await meet(port, callable(reply, means), signal, {
    announce: () => path.send({ type: 'go' }),
    // The peer begins when it gets our word.
    instant: () => sleep(roundTripMs / 2, undefined, { signal }),
  })
  await means.adopt(socket, { role: 'dialer', signal })
}

/**
 * One round, as the side that answers. It ends when the peer ends it, or when nothing more is to be done; then the stream
 * is still there, and the peer may want to hear of changes.
 * @throws as askForRound, also when no direct way was found
 */
export async function answerRound(path: PathStream, means: PathMeans, signal: AbortSignal): Promise<void> {
  const { addresses, dialDirect, mayDial = isDialable } = means
  const hello = await path.expect(['hello'], within(ANSWER_TIMEOUT_MS, signal))
  path.send({ type: 'hello', addresses: toTell(addresses(), mayDial) })

  const ended = new AbortController()
  const until = AbortSignal.any([signal, ended.signal])
  const dialed = sleep(HEAD_START_MS, undefined, { signal: until }).then(() =>
    dial(hello.addresses.filter(mayDial), dialDirect, until),
  )
  // Whether it worked shows at the peer, who then ends the round.
  const done = dialed.catch(() => {})
  const offer = await path.expect(['offer'], within(ANSWER_TIMEOUT_MS, signal)).catch((error) => {
    ended.abort()
    throw error
  })
  try {
    await punchAsAnswerer(path, offer, means, signal)
  } finally {
    await done
  }
}

async function punchAsAnswerer(
  path: PathStream,
  offer: MappedPort,
  means: PathMeans,
  signal: AbortSignal,
): Promise<void> {
  const decline = (reason: string): FarportError => {
    path.send({ type: 'decline', reason: reason.slice(0, MAX_REASON_LENGTH) })
    return unreachable(reason)
  }
  const theirs = callable(offer, means)
  await using port = await FreshPort.open(means.stun(), signal).catch((error: Error) => {
    signal.throwIfAborted()
    throw decline(`the peer: ${error.message}`)
  })
  if (rendezvous(port.varies, theirs.varies) === 'none') throw decline(BOTH_VARY)
  // The peer's half of the handshake is done before ours, and it may then end the round: nothing here hangs on the stream
  // any more once both have begun.
  const socket = await meet(port, theirs, signal, {
    announce: () => path.send({ type: 'answer', mapped: port.mapped, varies: port.varies }),
    instant: () => path.expect(['go'], within(ANSWER_TIMEOUT_MS, signal)),
  })
  await means.adopt(socket, { role: 'listener', signal })
}

/** The part that both sides do alike: say that we are ready, wait for the moment, go. */
async function meet(
  port: FreshPort,
  theirs: MappedPort,
  signal: AbortSignal,
  { announce, instant }: { announce: () => void; instant: () => Promise<unknown> },
): Promise<Socket> {
  switch (rendezvous(port.varies, theirs.varies)) {
    case 'none':
      throw unreachable(BOTH_VARY)
    case 'wait': {
      const { accepted } = await port.listen(theirs.mapped, within(CALL_TIMEOUT_MS, signal))
      announce()
      return await accepted.catch(nothingThrough(signal))
    }
    case 'call':
      announce()
      await instant()
      return await port.connect(theirs.mapped, within(CALL_TIMEOUT_MS, signal)).catch(nothingThrough(signal))
    case 'open':
      announce()
      await instant()
      return await port.connect(theirs.mapped, within(OPEN_TIMEOUT_MS, signal)).catch(nothingThrough(signal))
  }
}

function nothingThrough(signal: AbortSignal): (cause: unknown) => never {
  return (cause) => {
    signal.throwIfAborted()
    throw new FarportError('ERR_PEER_UNREACHABLE', 'the NATs in between let nothing through', { cause })
  }
}

/** What the peer says of its port, if it is one that we would dial. */
function callable(theirs: MappedPort, { mayDial = isDialable }: PathMeans): MappedPort {
  const { address, port } = theirs.mapped
  if (mayDial(`/ip4/${address}/tcp/${port}`)) return theirs
  throw unreachable(`the peer waits at ${address}:${port}, which we don't dial`)
}

async function dial(
  addresses: readonly string[],
  dialDirect: PathMeans['dialDirect'],
  signal: AbortSignal,
): Promise<void> {
  if (addresses.length === 0) throw unreachable('the peer has no address that could be dialed')
  await dialDirect(addresses, within(DIAL_TIMEOUT_MS, signal))
}

function within(ms: number, signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ms)])
}

function unreachable(message: string): FarportError {
  return new FarportError('ERR_PEER_UNREACHABLE', message)
}
