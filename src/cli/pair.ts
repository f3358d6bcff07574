import { createInterface } from 'node:readline/promises'
import { Command } from 'commander'
import { FarportError } from '../errors.ts'
import { type CommonFlags, run } from './run.ts'

interface PairFlags extends CommonFlags {
  at?: string
}

/** A ticket has at most 522 characters; chat programs add line breaks. */
const MAX_INPUT = 4096

export const pairCommand = new Command('pair')
  .description(
    'take up an invite of another machine: asks for the ticket or code, or reads it from standard input',
  )
  .option(
    '--at <multiaddr>',
    'where the other machine is, with its PeerID, when its code can not be found on this network',
  )
  .action((flags: PairFlags) =>
    run(flags, async ({ home, output, log, signal }) => {
      const text = await ask(signal)
      const { startDaemon } = await import('../daemon/daemon.ts')
      await using daemon = await startDaemon(
        { home, listen: [], shares: [], links: [], wait: true },
        { log, signal, report: () => {} },
      )
      const { peer, allows } = await daemon.pair(text, {
        ...(flags.at === undefined ? {} : { at: flags.at }),
        signal,
      })
      const ports = allows.ports.join(', ')
      const next = allows.ports.find((port) => !/[*?]/.test(port))
      output.result(
        {
          name: peer.name,
          peerId: peer.peerId,
          ports: allows.ports,
          may: allows.may,
          expires: allows.expires,
        },
        [
          `paired with ${peer.name}, ${peer.peerId}`,
          ports === ''
            ? 'It lets us use none of its ports.'
            : `It lets us use ${ports}: ${allows.may.join(', ')}.`,
          next === undefined
            ? `Next: farport ports ${peer.name}`
            : `Next: farport connect ${peer.name}/${next} --pty /tmp/${next}`,
          '',
        ].join('\n'),
      )
    }),
  )

/** The secret: typed or pasted at a prompt, or all of standard input. Never an argument, where `ps` would show it. */
async function ask(signal: AbortSignal): Promise<string> {
  if (process.stdin.isTTY) {
    const prompt = createInterface({ input: process.stdin, output: process.stderr })
    try {
      return await prompt.question('Ticket or code: ', { signal })
    } finally {
      prompt.close()
    }
  }
  let text = ''
  for await (const chunk of process.stdin.setEncoding('utf8')) {
    text += chunk
    if (text.length > MAX_INPUT)
      throw new FarportError('ERR_USAGE', 'that is too long for a ticket or a code')
  }
  return text
}
