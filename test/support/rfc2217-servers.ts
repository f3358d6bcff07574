import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { loadIdentity } from '../../src/trust/identity.ts'
import { freePort } from './free-port.ts'
import { listening } from './listening.ts'
import { PeerProgram } from './peer-program.ts'
import { startSer2net } from './ser2net.ts'
import { TwoHomes } from './two-homes.ts'

/** An RFC 2217 server in front of a tty. */
interface Rfc2217Server extends AsyncDisposable {
  /** HOST:PORT for one program. */
  readonly at: string
  /** HOST:PORT for another program that only looks, where there may be one. */
  readonly alsoAt?: string
}

export interface Rfc2217ServerKind {
  readonly name: string
  start(tty: string): Promise<Rfc2217Server>
}

/** farport: agent, client and a watching client, three processes with all that lies between them. The others: one each. */
export const SERVERS: readonly Rfc2217ServerKind[] = [
  { name: 'farport', start: farport },
  { name: 'ser2net', start: ser2net },
  { name: 'sredird', start: sredird },
]

async function farport(tty: string): Promise<Rfc2217Server> {
  await using begun = new AsyncDisposableStack()
  const homes = begun.use(await TwoHomes.make())
  const watcherHome = homes.path('W')
  const { peerId } = await loadIdentity(watcherHome, { create: true })
  await homes.grant(`ports=device\nwatcher ${peerId} ports=device may=watch`)
  const agent = await homes.share(`${tty}=device`)
  const user = await homes.connect('a/device', '--rfc2217', '127.0.0.1:0')
  const addresses = agent.addresses.map((address) => address.replace(/\/p2p\/.*$/, ''))
  await writeFile(join(watcherHome, 'trusted_peers'), `a ${homes.agentId} addr=${addresses.join(',')}\n`, {
    mode: 0o600,
  })
  const watcher = homes.start([
    ...['connect', 'a/device', '--watch', '--rfc2217', '127.0.0.1:0', '--home', watcherHome],
  ])
  const { links } = (await watcher.event('ready')) as unknown as { links: { at: string }[] }
  return {
    at: user.links[0]?.at ?? '',
    alsoAt: links[0]?.at ?? '',
    [Symbol.asyncDispose]: disposalOf(begun),
  }
}

/** As Debian's manual shows it, with room for a second program. */
async function ser2net(tty: string): Promise<Rfc2217Server> {
  await using begun = new AsyncDisposableStack()
  const homes = begun.use(await TwoHomes.make())
  const program = begun.use(
    await startSer2net(homes.path('ser2net.yaml'), `serialdev,${tty},9600n81,local`, [
      'options:',
      '  max-connections: 2',
    ]),
  )
  return {
    at: program.at,
    alsoAt: program.at,
    [Symbol.asyncDispose]: disposalOf(begun),
  }
}

/** It serves standard input and output; socat makes a listener of that. */
async function sredird(tty: string): Promise<Rfc2217Server> {
  await using begun = new AsyncDisposableStack()
  const homes = begun.use(await TwoHomes.make())
  const port = await freePort()
  begun.use(
    new PeerProgram('socat', [
      `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork,nodelay`,
      `EXEC:/usr/sbin/sredird 2 ${tty} ${homes.path('lock')} 20`,
    ]),
  )
  await listening(port)
  return {
    at: `127.0.0.1:${port}`,
    [Symbol.asyncDispose]: disposalOf(begun),
  }
}

/** The caller's from now on. */
function disposalOf(begun: AsyncDisposableStack): () => Promise<void> {
  const started = begun.move()
  return () => started.disposeAsync()
}
