import type { Duplex } from 'node:stream'
import type { Path } from '../overlay/node.ts'
import type { TrustStore } from '../trust/trust-store.ts'
import type { Audit } from './audit-log.ts'

/** Makes a handler of streams one that serves only peers in trusted_peers. */
export type OnlyTrusted = (
  serve: (stream: Duplex, peerId: string, path: Path) => Promise<void>,
) => (stream: Duplex, path: Path) => void

/** Strangers who are let in to pair get no further than that. */
export function trustedCallers(trust: TrustStore, audit: Audit | undefined): OnlyTrusted {
  return (serve) => (stream, path) => {
    const { peerId, remoteAddress: address } = path
    if (trust.admits(peerId)) void serve(stream, peerId, path)
    else {
      audit?.record({ event: 'refuse', peerId, address, reason: 'it is not in trusted_peers' })
      stream.destroy()
    }
  }
}
