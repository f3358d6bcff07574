/**
 * One side of a test in a process of its own: a command and its arguments in JSON, until standard input ends. Writes
 * JSON lines: {"ready":true}, then whom it found.
 */
import { networkInterfaces } from 'node:os'
import { announceOnLan, findOnLan } from '../../src/lan/lan.ts'
import { LanLinks } from '../../src/lan/lan-links.ts'
import { encodeAnswer, readMessage } from '../../src/lan/lan-message.ts'
import { createLog } from '../../src/log.ts'

/** `lie` answers whoever asks, whatever the addresses are. */
export type LanPeerCommand = 'announce' | 'find' | 'lie'

export interface LanPeerArguments {
  nameplate: string
  peerId?: string
  addresses?: string[]
  /** Not to be heard outside of this machine. */
  loopback?: boolean
}

export const loopback = () =>
  Object.fromEntries(
    Object.entries(networkInterfaces()).filter(([, addresses]) =>
      addresses?.some(({ internal }) => internal),
    ),
  )

if (import.meta.main) await main(process.argv[2] as LanPeerCommand, JSON.parse(process.argv[3] ?? '{}'))

async function main(command: LanPeerCommand, args: LanPeerArguments): Promise<void> {
  const over = new AbortController()
  process.stdin.on('end', () => over.abort()).resume()
  const tell = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`)
  const { nameplate, peerId = '', addresses = [] } = args
  const options = { log: createLog('warn'), ...(args.loopback === true && { interfaces: loopback }) }
  switch (command) {
    case 'announce': {
      const announcement = await announceOnLan({ nameplate, peerId, addresses: () => addresses, ...options })
      over.signal.addEventListener('abort', () => announcement[Symbol.asyncDispose]())
      tell({ ready: true })
      break
    }
    case 'find':
      tell({ ready: true })
      for await (const peer of findOnLan(nameplate, { signal: over.signal, ...options })) tell(peer)
      break
    case 'lie': {
      const answer = encodeAnswer(nameplate, { peerId, addresses })
      const links = await LanLinks.open({
        ...options,
        onLink: (link) => {
          link.on(
            'packet',
            ({ bytes }) => readMessage(bytes, nameplate)?.type === 'question' && link.send(answer),
          )
        },
      })
      over.signal.addEventListener('abort', () => links[Symbol.asyncDispose]())
      tell({ ready: true })
    }
  }
}
