import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { connect } from 'node:net'
import { FarportError } from '../errors.ts'
import type { Overlay } from '../overlay/node.ts'
import { PING_PROTOCOL, ping } from '../session/ping.ts'
import type { Finding } from './finding.ts'

const CONNECT_TIMEOUT_MS = 3_000
const ENTER_TIMEOUT_MS = 6_000

/** One relay, as this machine finds it. */
export interface RelayCheck {
  readonly peerId: string
  readonly addresses: readonly AddressCheck[]
  /** Whether it lets us in, once it is reached; `impostor` when another key answers at all of its addresses. */
  readonly entry: 'let in' | 'turned away' | 'impostor' | 'not reached'
  /** There and back, encrypted; from a relay whose owner has us in trusted_peers. */
  readonly roundTripMs?: number
}

interface AddressCheck {
  /** A multiaddr without the relay's PeerID. */
  readonly address: string
  readonly host: string
  /** How long TCP took to connect. */
  readonly connectMs?: number
  /** Why it did not. */
  readonly reason?: string
}

/** Tries each address of a relay by itself, and then whether the relay lets us in. Throws only the signal's reason. */
export async function checkRelay(
  peerId: string,
  addresses: readonly string[],
  { overlay, signal }: { overlay: Overlay; signal: AbortSignal },
): Promise<RelayCheck> {
  const checked = await Promise.all(addresses.map((address) => tryAddress(address, signal)))
  const reached = checked.flatMap(({ address, connectMs }) => (connectMs === undefined ? [] : [address]))
  if (reached.length === 0) return { peerId, addresses: checked, entry: 'not reached' }
  return { peerId, addresses: checked, ...(await enter(peerId, reached, overlay, signal)) }
}

async function enter(
  peerId: string,
  addresses: readonly string[],
  overlay: Overlay,
  signal: AbortSignal,
): Promise<Pick<RelayCheck, 'entry' | 'roundTripMs'>> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(ENTER_TIMEOUT_MS)])
  try {
    const { stream } = await overlay.open(peerId, PING_PROTOCOL, { addresses, signal: within })
    stream.on('error', () => {})
    try {
      // The first round trip on a stream agrees on the protocol, too.
      await ping(stream, within)
      return { entry: 'let in', roundTripMs: await ping(stream, within) }
    } finally {
      stream.destroy()
    }
  } catch (error) {
    signal.throwIfAborted()
    const failure = error as Error
    if (overlay.paths(peerId).length > 0) return { entry: 'let in' }
    if (failure instanceof FarportError && failure.code === 'ERR_NOT_TRUSTED') return { entry: 'turned away' }
    return { entry: failure.message.includes('another key') ? 'impostor' : 'not reached' }
  }
}

async function tryAddress(address: string, signal: AbortSignal): Promise<AddressCheck> {
  const [, kind = '', host = '', , port] = address.split('/')
  const within = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_TIMEOUT_MS)])
  try {
    const { address: ip } = await lookup(host, {
      family: kind.endsWith('4') ? 4 : kind.endsWith('6') ? 6 : 0,
    })
    const startedAt = performance.now()
    const socket = connect({ host: ip, port: Number(port) })
    try {
      await once(socket, 'connect', { signal: within })
      return { address, host, connectMs: performance.now() - startedAt }
    } finally {
      socket.on('error', () => {}).destroy()
    }
  } catch (error) {
    signal.throwIfAborted()
    const { code = '' } = error as NodeJS.ErrnoException
    return { address, host, reason: within.aborted ? 'no answer' : (WORDS[code] ?? code) }
  }
}

const WORDS: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was reset',
  EHOSTUNREACH: 'no route to that host',
  ENETUNREACH: 'no route to that network',
  EADDRNOTAVAIL: 'this machine has no address of that kind',
  ETIMEDOUT: 'no answer',
  ENOTFOUND: 'that name does not exist',
  EAI_AGAIN: 'that name can not be looked up right now',
}

const REMEDIES: Record<string, string> = {
  'connection refused': 'start `farport relay` there, or correct the port',
  'no answer': 'open that TCP port in the firewalls there and here',
  'that name does not exist': 'correct the name',
}

/** What to say about it, to people. */
export function relayFindings(name: string, { addresses, entry, roundTripMs }: RelayCheck): Finding[] {
  const works = addresses.some(({ connectMs }) => connectMs !== undefined)
  const tried = addresses.map(({ address, connectMs, reason = '' }): Finding => {
    if (connectMs !== undefined)
      return { about: 'relay', verdict: 'ok', text: `${name}: ${address} answers in ${ms(connectMs)}` }
    const remedy = REMEDIES[reason]
    return {
      about: 'relay',
      // One address that works is enough.
      verdict: works ? 'note' : 'bad',
      text: `${name}: ${address}: ${reason}`,
      ...(remedy !== undefined && { remedy }),
    }
  })
  return [...tried, ...entryFindings(name, entry, roundTripMs, works)]
}

function entryFindings(
  name: string,
  entry: RelayCheck['entry'],
  roundTripMs: number | undefined,
  works: boolean,
): Finding[] {
  switch (entry) {
    case 'let in': {
      const how = roundTripMs === undefined ? '' : `, ${ms(roundTripMs)} there and back`
      return [{ about: 'relay', verdict: 'ok', text: `${name}: lets us in${how}` }]
    }
    case 'turned away':
      return [
        {
          about: 'relay',
          verdict: 'bad',
          text: `${name}: does not know this machine's key`,
          remedy:
            'to share ports through it, `farport invite --may relay` there and `farport pair` here; to use ports, the machine that shares them must trust this one and be at the relay',
        },
      ]
    case 'impostor':
      return [
        {
          about: 'relay',
          verdict: 'bad',
          text: `${name}: another key answers there than the relay's`,
          remedy: 'take the address that `farport relay` prints now, with its /p2p/PEERID',
        },
      ]
    case 'not reached':
      if (!works) return []
      return [
        {
          about: 'relay',
          verdict: 'bad',
          text: `${name}: what answers there is no farport, or something in between breaks the connection`,
          remedy: 'look for a proxy or a firewall that takes the port for another protocol',
        },
      ]
    default:
      return entry satisfies never
  }
}

function ms(value: number): string {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
}
