import { Command } from 'commander'
import { openTrustStore, type Revoked } from '../trust/trust-store.ts'
import { type CommonFlags, run } from './run.ts'

export const revokeCommand = new Command('revoke')
  .description('take trust back: cut a peer off within a second, and never let its key in again')
  .argument('<name...>', "peers' names in trusted_peers, or PeerIDs")
  .action((names: string[], flags: CommonFlags) =>
    run(flags, async ({ home, output, log }) => {
      await using trust = await openTrustStore(home, { log })
      const revoked = await trust.revoke(names)
      output.result({ revoked }, revoked.map(sentence).join(''))
    }),
  )

function sentence({ name, peerId, lineStays }: Revoked): string {
  const stays = lineStays
    ? 'Its line stays in trusted_peers: another line has the same name, and would come into force without it.\n'
    : ''
  return `revoked ${name === undefined ? peerId : `${name}, ${peerId}`}\n${stays}`
}
