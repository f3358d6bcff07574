import { Command } from 'commander'
import type { Daemon, InviteEvent, InviteRequest } from '../daemon/daemon.ts'
import { FarportError } from '../errors.ts'
import { RIGHTS, type Right } from '../trust/grants.ts'
import type { InviteEnd } from '../trust/invites.ts'
import { inviteSentence } from '../trust/pairing-sentences.ts'
import { drawQr } from '../trust/qr.ts'
import { listenOn } from './listen.ts'
import { type CommonFlags, run } from './run.ts'

/** A farport that was started on the line before this one is there by then. */
const STARTING_MS = 4_000

interface InviteFlags extends CommonFlags {
  code?: true
  qr?: true
  may: string
  expires?: string
  listen?: string[]
  relay?: string[]
}

export const inviteCommand = new Command('invite')
  .description('let another machine use ports of this one: prints a ticket to paste, or a code to say')
  .argument(
    '[port...]',
    'ports it may use, by name; * and ? match. Default: those that `farport share` shares',
  )
  .option(
    '--code',
    'four short words to say, for a machine on the same network or at the same relay; default is a ticket to paste',
  )
  .option('--qr', 'draw the ticket as a QR code too')
  .option(
    '--may <rights>',
    'what it may do with them: watch (see what the device sends), use (also send), configure, lines, steal (take a port ' +
      'from whoever uses it); or relay, to use this machine as its relay',
    'use,configure,lines',
  )
  .option('--expires <date>', 'the last day, YYYY-MM-DD (default: until it is revoked)')
  .option('--listen <addr...>', 'where to listen when no `farport share` runs in this home')
  .option('--relay <relay...>', 'relays to be reached through when no `farport share` runs in this home')
  .action((ports: string[], flags: InviteFlags) =>
    run(flags, async ({ home, output, log, signal }) => {
      const request: InviteRequest = {
        form: flags.code ? 'code' : 'ticket',
        ports,
        may: rightsOf(flags.may),
        ...(flags.expires === undefined ? {} : { expires: endOf(flags.expires) }),
      }
      const report = (event: InviteEvent) => output.event(event.event, event, describe(event, flags))
      const { callDaemon } = await import('../daemon/control-client.ts')
      const call = {
        signal,
        patienceMs: STARTING_MS,
        onEvent: (event: unknown) => report(event as InviteEvent),
      }
      const answer = await callDaemon(home, 'invite', request, call)
      const how = answer ?? (await inviteAlone(request, report))

      async function inviteAlone(alone: InviteRequest, tell: (event: InviteEvent) => void) {
        if (ports.length === 0 && alone.may.some((right) => right !== 'relay'))
          throw new FarportError(
            'ERR_USAGE',
            'name the ports it may use: no `farport share` runs in this home to ask',
          )
        const { startDaemon } = await import('../daemon/daemon.ts')
        await using daemon: Daemon = await startDaemon(
          {
            home,
            listen: listenOn(flags.listen),
            relays: flags.relay ?? [],
            shares: [],
            links: [],
            wait: true,
          },
          { log, signal, report: () => {} },
        )
        return await daemon.invite(alone, tell, signal)
      }
      if (how !== 'used')
        throw new FarportError('ERR_NOT_TRUSTED', inviteSentence({ type: 'ended', how: how as InviteEnd }))
    }),
  )

function describe(event: InviteEvent, { qr }: InviteFlags): string | undefined {
  switch (event.event) {
    case 'invite': {
      const minutes = Math.round((event.until - Date.now()) / 60_000)
      const use =
        event.ports.length > 0
          ? `It may use ${event.ports.join(', ')}: ${event.may.join(', ')}`
          : 'It may use this relay'
      const what = `${use}. Good for one machine and ${minutes} minutes.`
      const how =
        event.form === 'code'
          ? 'On the other machine, type `farport pair` and then'
          : 'On the other machine, type `farport pair` and paste'
      const drawing =
        qr && event.form === 'ticket'
          ? drawQr(event.text, {
              columns: process.stderr.columns ?? 80,
              rows: (process.stderr.rows ?? 24) - 1,
            })
          : undefined
      return [what, how, '', `  ${event.text}`, '', ...(drawing === undefined ? [] : [drawing])].join('\n')
    }
    case 'attempt':
      return inviteSentence({ type: 'failed', reason: event.reason, triesLeft: event.triesLeft })
    case 'paired':
      return inviteSentence({ type: 'paired', peer: event.peer })
    case 'ended':
      // Any other end is the command's failure, and told as that.
      return event.how === 'used' ? inviteSentence({ type: 'ended', how: event.how }) : undefined
  }
}

function rightsOf(text: string): Right[] {
  return text.split(',').map((word) => {
    const right = RIGHTS.find((known) => known === word.trim())
    if (right === undefined)
      throw new FarportError('ERR_USAGE', `"${word}" is no right: ${RIGHTS.join(', ')} are`)
    return right
  })
}

/** The end of that day, UTC, as in trusted_peers. */
function endOf(day: string): number {
  const start = /^\d{4}-\d{2}-\d{2}$/.test(day) ? Date.parse(`${day}T00:00:00Z`) : Number.NaN
  const end = start + 24 * 60 * 60 * 1000
  if (!(end > Date.now()))
    throw new FarportError('ERR_USAGE', `"${day}" is no day to come: write for example 2027-06-30`)
  return end
}
