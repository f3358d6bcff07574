import { Command } from 'commander'
import { FarportError } from '../errors.ts'
import { describesTicketOrCode, parseCode } from '../trust/code.ts'
import type { Grant } from '../trust/grants.ts'
import { decodeTicket } from '../trust/ticket.ts'
import { type CommonFlags, run } from './run.ts'

interface PairFlags extends CommonFlags {
  at?: string
  relay?: string[]
}

/** A ticket has at most 522 characters; chat programs add line breaks. */
const MAX_INPUT = 4096

/** Lines that come closer together than this were pasted, not typed. */
const PASTE_PAUSE_MS = 200

export const pairCommand = new Command('pair')
  .description(
    'take up an invite of another machine: asks for the ticket or code, or reads it from standard input',
  )
  .option(
    '--at <multiaddr>',
    'where the other machine is, with its PeerID, when its code can not be found on this network',
  )
  .option(
    '--relay <addr...>',
    'relays to ask for a code, beside this network: names, or addresses with /p2p/PEERID',
  )
  .action((flags: PairFlags) =>
    run(flags, async ({ home, output, log, signal }) => {
      const text = process.stdin.isTTY ? await ask(output.error, signal) : await readAll()
      const { startDaemon } = await import('../daemon/daemon.ts')
      await using daemon = await startDaemon(
        { home, listen: [], shares: [], links: [], wait: true },
        { log, signal, report: () => {} },
      )
      const { peer, allows } = await daemon.pair(text, {
        ...(flags.at === undefined ? {} : { at: flags.at }),
        relays: flags.relay ?? [],
        signal,
      })
      const here = flags.home === undefined ? '' : ` --home ${quoted(home)}`
      output.result(
        {
          name: peer.name,
          peerId: peer.peerId,
          ports: allows.ports,
          may: allows.may,
          expires: allows.expires,
        },
        [`paired with ${peer.name}, ${peer.peerId}`, ...whatNext(peer.name, allows, here), ''].join('\n'),
      )
    }),
  )

/** What the other machine lets us do, and the command that does it. */
function whatNext(name: string, { ports, may }: Grant, here: string): string[] {
  if (ports.length === 0 && may.includes('relay'))
    return ['It lets us use it as our relay.', `Next: farport share DEVICE --relay ${name}${here}`]
  const port = ports.find((pattern) => !/[*?]/.test(pattern))
  return [
    ports.length === 0
      ? 'It lets us use none of its ports.'
      : `It lets us use ${ports.join(', ')}: ${may.join(', ')}.`,
    port === undefined
      ? `Next: farport ports ${name}${here}`
      : `Next: farport connect ${name}/${port} --pty /tmp/${port}${here}`,
  ]
}

/**
 * The secret, typed or pasted at a prompt until it is one: a slip costs no try of the invite before it is sent. Never an
 * argument, where `ps` would show it.
 */
async function ask(tell: (error: unknown) => void, signal: AbortSignal): Promise<string> {
  for (;;) {
    const text = await prompt('Ticket or code: ', signal)
    if (text === undefined) throw new FarportError('ERR_USAGE', 'there is no ticket or code')
    if (text.trim() === '') continue
    try {
      check(text)
      return text
    } catch (error) {
      tell(error)
    }
  }
}

/**
 * What a person enters at the terminal; undefined at its end, by Ctrl-D. The terminal stays as it is, so it is in order
 * however we end, and it echoes: whoever types four words must see a slip, and once they were used they open nothing.
 *
 * A chat program may have broken a ticket over several lines. What is pasted belongs together, and the shell must not get
 * the rest: it would run and remember it.
 */
function prompt(question: string, signal: AbortSignal): Promise<string | undefined> {
  const { stdin, stderr } = process
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  let text = ''
  let pause: NodeJS.Timeout | undefined
  const onData = (chunk: string) => {
    // Of a paste without end the rest is taken too, and thrown away.
    text = (text + chunk).slice(0, MAX_INPUT + 1)
    clearTimeout(pause)
    if (text.includes('\n') || text.length > MAX_INPUT)
      pause = setTimeout(() => resolve(text), PASTE_PAUSE_MS)
  }
  const onEnd = () => resolve(text === '' ? undefined : text)
  const onAbort = () => reject(signal.reason)
  stdin.setEncoding('utf8').on('data', onData).on('end', onEnd).on('error', reject).resume()
  signal.addEventListener('abort', onAbort)
  if (signal.aborted) onAbort()
  if (stdin.readableEnded) resolve(undefined)
  stderr.write(question)
  return promise.finally(() => {
    clearTimeout(pause)
    signal.removeEventListener('abort', onAbort)
    stdin.off('data', onData).off('end', onEnd).off('error', reject).pause()
    // Where the cursor still is behind the question, what is said next begins on a line of its own.
    if (!text.endsWith('\n')) stderr.write('\n')
  })
}

/** @throws FarportError ERR_USAGE for what can't be a ticket or a code */
function check(text: string): void {
  if (text.length > MAX_INPUT) throw tooLong()
  const { secret } =
    describesTicketOrCode(text) === 'ticket' ? decodeTicket(text, Date.now()) : parseCode(text)
  secret.fill(0)
}

async function readAll(): Promise<string> {
  let text = ''
  for await (const chunk of process.stdin.setEncoding('utf8')) {
    text += chunk
    if (text.length > MAX_INPUT) throw tooLong()
  }
  return text
}

function tooLong(): FarportError {
  return new FarportError('ERR_USAGE', 'that is too long for a ticket or a code')
}

/** For a POSIX shell. */
function quoted(path: string): string {
  return /^[\w./:@%+-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
