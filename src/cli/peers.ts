import { Command } from 'commander'
import { hasExpired } from '../trust/grants.ts'
import { openTrustStore } from '../trust/trust-store.ts'
import { formatExpires, type TrustedPeer } from '../trust/trusted-peers.ts'
import { type CommonFlags, run } from './run.ts'
import { table } from './table.ts'

export const peersCommand = new Command('peers')
  .description('list the peers in trusted_peers, what they may do, and the lines that are not in force')
  .action((flags: CommonFlags) =>
    run(flags, async ({ home, output, log }) => {
      // What it would log about the lines is what this command prints.
      await using trust = await openTrustStore(home, { log: log.child({}, { level: 'silent' }) })
      const now = Date.now()
      const [peers, problems] = [trust.peers(), trust.problems()]
      const listed = peers.map((peer) => ({
        ...peer,
        ...(peer.expires !== undefined && { expires: new Date(peer.expires).toISOString() }),
        expired: hasExpired(peer, now),
      }))
      const refused = problems.map(({ line, sentence }) =>
        line === 0 ? `${sentence}\n` : `line ${line} of trusted_peers is refused: ${sentence}\n`,
      )
      const head = ['name', 'peer id', 'ports', 'may', 'expires', 'addr']
      const rows = peers.map((peer) => row(peer, hasExpired(peer, now)))
      const text = rows.length > 0 ? table(head, rows) : 'no peer is trusted\n'
      output.result({ peers: listed, problems, revoked: trust.revoked() }, text + refused.join(''))
    }),
  )

function row({ name, peerId, ports, may, expires, addrs }: TrustedPeer, expired: boolean): string[] {
  const until = expires === undefined ? '' : formatExpires(expires)
  return [
    name,
    peerId,
    ports.join(','),
    may.join(','),
    expired ? `${until} (expired)` : until,
    addrs.join(','),
  ]
}
