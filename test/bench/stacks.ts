import { closeSync, constants, openSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { startFarport } from '../../src/cli/child.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { LOOPBACK, type Path } from './hosts.ts'
import { appears, freePort, type Rig } from './rig.ts'
import { wireguard } from './vpn.ts'

/** A path from an application's tty to an echoing device. */
export interface Stack {
  readonly name: string
  /** Too slow for as many round trips, or as many bytes, as the others. */
  readonly slow?: true
  /** Programs without which it can't be. */
  readonly needs: readonly string[]
  /** It has network namespaces of its own. */
  readonly needsRoot?: true
  /** Answers the application's tty. */
  start(rig: Rig): Promise<string>
  /** The same for several devices, from one machine to another; absent where only one machine will do. */
  readonly carry?: Carry
}

/** `label` is part of the names of files, for a rig with several stacks. */
export type Carry = (rig: Rig, path: Path, devices: readonly string[], label: string) => Promise<Carried>

export interface Carried {
  /** The applications' ttys, in the order of the devices. */
  readonly ttys: readonly string[]
  /** All processes of the stack, on each side; their descendants are the stack's, too. */
  readonly nearPids: readonly number[]
  readonly farPids: readonly number[]
}

const SER2NET = ['ser2net', 'socat']
const SSH = [...SER2NET, 'ssh', '/usr/sbin/sshd']

const direct: Carry = farport
const ssh: Carry = (...to) => ser2net({ chardelay: false, ssh: true }, ...to)
const plain: Carry = (...to) => ser2net({ chardelay: false, ssh: false }, ...to)
const shipped: Carry = (...to) => ser2net({ chardelay: true, ssh: true }, ...to)
const vpn: Carry = async (rig, path, devices, label) => {
  const { inside, nearPids, farPids } = await wireguard(rig, path)
  const carried = await plain(rig, inside, devices, label)
  return {
    ttys: carried.ttys,
    nearPids: [...nearPids, ...carried.nearPids],
    farPids: [...farPids, ...carried.farPids],
  }
}

export const STACKS = {
  farport: { name: 'farport', needs: [], start: alone('farport', direct), carry: direct },
  relayed: { name: 'farport over its relay', needs: [], start: farportRelayed },
  ssh: { name: 'ser2net + ssh -L + socat', needs: SSH, start: alone('ssh', ssh), carry: ssh },
  tcp: { name: 'ser2net + socat, in plain', needs: SER2NET, start: alone('tcp', plain), carry: plain },
  vpn: {
    name: 'ser2net + WireGuard + socat',
    needs: [...SER2NET, 'wireguard-go', 'wg'],
    needsRoot: true,
    start: alone('vpn', vpn),
    carry: vpn,
  },
  shipped: {
    name: 'ser2net as shipped + ssh -L + socat',
    slow: true,
    needs: SSH,
    start: alone('shipped', shipped),
  },
} as const satisfies Record<string, Stack>

export type StackName = keyof typeof STACKS

/** One echoing device, on this machine. */
function alone(label: string, carry: Carry): (rig: Rig) => Promise<string> {
  return async (rig) => {
    const { ttys } = await carry(rig, LOOPBACK, [await rig.device(label)], label)
    return ttys[0] as string
  }
}

async function farport(
  rig: Rig,
  { near, far }: Path,
  devices: readonly string[],
  label: string,
): Promise<Carried> {
  const homes = rig.use(await TwoHomes.make())
  await homes.grant('ports=*')
  const shared = devices.map((device, i) => `${device}=p${i}`)
  const listen = `/ip4/${far.address}/tcp/0`
  const agent = homes.use(
    startFarport(['share', ...shared, '--home', homes.agentHome, '--listen', listen, '--json'], far),
  )
  const { addresses } = (await agent.event('ready')) as unknown as { addresses: string[] }
  await homes.reach(addresses)
  const ttys = devices.map((_, i) => rig.path(`${label}-app${i}`))
  const links = devices.map((_, i) => `a/p${i}`)
  const ends = ttys.flatMap((tty) => ['--pty', tty])
  const client = homes.use(
    startFarport(['connect', ...links, ...ends, '--home', homes.clientHome, '--json'], near),
  )
  await client.event('ready')
  return { ttys, nearPids: [client.pid], farPids: [agent.pid] }
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
  options: { readonly chardelay: boolean; readonly ssh: boolean },
  rig: Rig,
  { near, far }: Path,
  devices: readonly string[],
  label: string,
): Promise<Carried> {
  // Behind ssh nobody else is to reach it.
  const address = options.ssh ? '127.0.0.1' : far.address
  const served: number[] = []
  for (const _ of devices) served.push(await freePort())
  const config = rig.path(`${label}.yaml`)
  const connections = devices.map(
    (device, i) => `connection: &c${i}
  accepter: tcp(nodelay),${address},${served[i]}
  connector: serialdev,${device},115200n81,local
  options:
    chardelay: ${options.chardelay}
    kickolduser: true
`,
  )
  writeFileSync(config, connections.join(''))
  const server = rig.start('ser2net', ['-n', '-c', config], far)
  for (const port of served) await far.listens(port)
  const nearPids: number[] = []
  const farPids = [server.pid as number]
  let at = served.map((port) => `${address}:${port}`)
  if (options.ssh) {
    const sshd = await rig.sshd(far)
    farPids.push(sshd.pid)
    const ports: number[] = []
    for (const _ of devices) ports.push(await freePort())
    const forwards = served.flatMap((port, i) => ['-L', `127.0.0.1:${ports[i]}:127.0.0.1:${port}`])
    const client = rig.start('ssh', [...rig.sshArgs(sshd.port), '-N', ...forwards, far.address], near)
    nearPids.push(client.pid as number)
    for (const port of ports) await near.listens(port)
    at = ports.map((port) => `127.0.0.1:${port}`)
  }
  const ttys: string[] = []
  for (const [i, address] of at.entries()) {
    const pty = rig.path(`${label}-app${i}`)
    const socat = rig.start('socat', [`PTY,link=${pty},rawer`, `TCP:${address},nodelay`], near)
    nearPids.push(socat.pid as number)
    ttys.push(await appears(pty))
    // socat ends when the last program closes its PTY, so one has to stay.
    const hold = openSync(pty, constants.O_RDWR | constants.O_NOCTTY)
    rig.defer(() => closeSync(hold))
  }
  return { ttys, nearPids, farPids }
}
