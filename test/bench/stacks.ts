import { closeSync, constants, openSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { loadIdentity } from '../../src/trust/identity.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { appears, freePort, listening, type Rig } from './rig.ts'

/** A path from an application's tty to an echoing device. */
export interface Stack {
  readonly name: string
  /** Too slow for as many round trips, or as many bytes, as the others. */
  readonly slow?: true
  /** Answers the application's tty. */
  start(rig: Rig): Promise<string>
}

export const STACKS = {
  farport: { name: 'farport', start: farportDirect },
  relayed: { name: 'farport over its relay', start: farportRelayed },
  ssh: {
    name: 'ser2net + ssh -L + socat',
    start: (rig) => ser2net(rig, 'ssh', { chardelay: false, ssh: true }),
  },
  tcp: {
    name: 'ser2net + socat, in plain',
    start: (rig) => ser2net(rig, 'tcp', { chardelay: false, ssh: false }),
  },
  shipped: {
    name: 'ser2net as shipped + ssh -L + socat',
    slow: true,
    start: (rig) => ser2net(rig, 'shipped', { chardelay: true, ssh: true }),
  },
} as const satisfies Record<string, Stack>

async function farportDirect(rig: Rig): Promise<string> {
  const tty = await rig.device('farport')
  const homes = rig.use(await TwoHomes.make())
  await homes.grant('ports=echo')
  await homes.share(`${tty}=echo`)
  const pty = rig.path('farport-app')
  await homes.connect('a/echo', '--pty', pty)
  return pty
}

async function farportRelayed(rig: Rig): Promise<string> {
  const tty = await rig.device('relayed')
  const homes = rig.use(await TwoHomes.make())
  const relayHome = homes.path('R')
  const { peerId } = await loadIdentity(relayHome, { create: true })
  await writeFile(`${relayHome}/trusted_peers`, `agent ${homes.agentId} may=relay\n`, { mode: 0o600 })
  const port = await freePort()
  const at = `/ip4/127.0.0.1/tcp/${port}`
  await homes.start(['relay', '--home', relayHome, '--listen', at, '--no-stun']).event('ready')
  const relay = `${at}/p2p/${peerId}`
  await homes.grant('ports=echo')
  const share = ['share', `${tty}=echo`, '--listen', 'none', '--relay', relay]
  const agent = homes.start([...share, '--home', homes.agentHome])
  await agent.event('relay', ({ state }) => state === 'reserved')
  const line = `a ${homes.agentId} addr=${relay}/p2p-circuit\n`
  await writeFile(`${homes.clientHome}/trusted_peers`, line, { mode: 0o600 })
  const pty = rig.path('relayed-app')
  await homes.connect('a/echo', '--pty', pty)
  return pty
}

async function ser2net(
  rig: Rig,
  name: string,
  { chardelay, ssh }: { chardelay: boolean; ssh: boolean },
): Promise<string> {
  const tty = await rig.device(name)
  const serverPort = await freePort()
  const config = rig.path(`${name}.yaml`)
  writeFileSync(
    config,
    `connection: &c
  accepter: tcp(nodelay),127.0.0.1,${serverPort}
  connector: serialdev,${tty},115200n81,local
  options:
    chardelay: ${chardelay}
    kickolduser: true
`,
  )
  rig.start('ser2net', ['-n', '-c', config])
  await listening(serverPort)
  const port = ssh ? await tunnelTo(rig, serverPort) : serverPort
  const pty = rig.path(`${name}-app`)
  rig.start('socat', [`PTY,link=${pty},rawer`, `TCP:127.0.0.1:${port},nodelay`])
  const app = await appears(pty)
  // socat ends when the last program closes its PTY, so one has to stay.
  const hold = openSync(app, constants.O_RDWR | constants.O_NOCTTY)
  rig.defer(() => closeSync(hold))
  return app
}

async function tunnelTo(rig: Rig, serverPort: number): Promise<number> {
  const sshPort = await rig.sshd()
  const port = await freePort()
  const forward = `127.0.0.1:${port}:127.0.0.1:${serverPort}`
  rig.start('ssh', [...rig.sshArgs(sshPort), '-N', '-L', forward, '127.0.0.1'])
  await listening(port)
  return port
}
