import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Command, InvalidArgumentError } from 'commander'
import { FarportError } from '../errors.ts'
import { portSource } from '../serial/source.ts'
import { startFarport } from './child.ts'
import { type CommonFlags, run } from './run.ts'

interface DemoFlags extends CommonFlags {
  seconds?: number
}

export const demoCommand = new Command('demo')
  .description(
    'everything at once on this machine: a simulated GPS, an agent, a client with another key, live NMEA',
  )
  .option('--seconds <n>', 'end after so many seconds (default: at Ctrl-C)', (text) => {
    const value = Number(text)
    if (!(value > 0)) throw new InvalidArgumentError('A number of seconds.')
    return value
  })
  .action((flags: DemoFlags) =>
    run(flags, async ({ output, signal }) => {
      await using stack = new AsyncDisposableStack()
      const dir = await mkdtemp(join(tmpdir(), 'farport-demo-'))
      stack.defer(() => rm(dir, { recursive: true, force: true }))
      const agentHome = join(dir, 'agent')
      const clientHome = join(dir, 'client')
      const agent = stack.use(
        startFarport([
          'share',
          'simulated:gps=gps',
          '--home',
          agentHome,
          '--listen',
          '/ip4/127.0.0.1/tcp/0',
          '--json',
        ]),
      )
      const shared = (await agent.event('ready')) as unknown as { peerId: string; addresses: [string] }
      output.event(
        'agent',
        { pid: agent.pid, peerId: shared.peerId, addresses: shared.addresses },
        `agent   ${shared.peerId} shares a simulated GPS as "gps"`,
      )

      const invite = stack.use(startFarport(['invite', 'gps', '--code', '--home', agentHome, '--json']))
      const { text } = (await invite.event('invite')) as unknown as { text: string }
      const [at] = shared.addresses
      const pair = stack.use(
        startFarport(['pair', '--home', clientHome, '--at', at, '--json'], { input: text }),
      )
      if ((await pair.ended) !== 0)
        throw new FarportError('ERR_INTERNAL', 'the client could not pair with the agent')
      const { name } = (await pair.result) as { name: string }
      output.event('paired', { name }, `paired  by the code ${text}, which is spent now`)

      const pty = join(dir, 'gps')
      const client = stack.use(
        startFarport(['connect', `${name}/gps`, '--home', clientHome, '--pty', pty, '--json']),
      )
      const path = (await client.event('path')) as unknown as {
        kind: string
        address: string
        encryption: string
        muxer: string
      }
      await client.event('ready')
      output.event(
        'client',
        {
          pid: client.pid,
          pty,
          path: path.kind,
          address: path.address,
          encryption: path.encryption,
          muxer: path.muxer,
        },
        [
          `client  has it as ${pty}`,
          `path    ${path.kind}, ${path.address}`,
          `        encrypted by ${path.encryption}, multiplexed by ${path.muxer}`,
          'What follows is read from the virtual serial port:',
        ].join('\n'),
      )

      await using port = await portSource(pty).open({ settings: { baudRate: 4800 } })
      const lines = createInterface({ input: port, crlfDelay: Infinity })
      const end = AbortSignal.any([
        signal,
        ...(flags.seconds === undefined ? [] : [AbortSignal.timeout(flags.seconds * 1000)]),
      ])
      let sentences = 0
      const stop = () => lines.close()
      end.addEventListener('abort', stop)
      for await (const sentence of lines) {
        if (!isNmea(sentence)) continue
        sentences++
        if (output.json) output.event('nmea', { sentence })
        else process.stdout.write(`${sentence}\n`)
      }
      end.removeEventListener('abort', stop)
      if (sentences === 0) throw new FarportError('ERR_INTERNAL', 'not one NMEA sentence came through')
      output.event('done', { sentences }, `${sentences} sentences came through, every checksum right`)
    }),
  )

/** Whether a line is a whole NMEA 0183 sentence: `$`, fields, `*`, and the XOR of what is between them in hexadecimal. */
function isNmea(line: string): boolean {
  const match = /^\$([^*]+)\*([0-9A-F]{2})$/.exec(line)
  if (match === null) return false
  let sum = 0
  for (const byte of Buffer.from(match[1] as string, 'latin1')) sum ^= byte
  return sum === Number.parseInt(match[2] as string, 16)
}
