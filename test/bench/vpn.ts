import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { Namespaces } from '../support/namespaces.ts'
import { between, type Path } from './hosts.ts'
import { appears, type Rig } from './rig.ts'

const VETH = { near: '10.79.0.1', far: '10.79.0.2' } as const
const INSIDE = { near: '10.78.0.1', far: '10.78.0.2' } as const
const PORT = 51820

/**
 * A VPN between the path's two machines, or between two of its own on one cable when the path is this machine alone:
 * WireGuard in user space, which needs no module of the kernel, as farport needs none.
 */
export async function wireguard(
  rig: Rig,
  path: Path,
): Promise<{ inside: Path; nearPids: number[]; farPids: number[] }> {
  const { near, far, hosts } = path.hosts === undefined ? await cable(rig) : { ...path, hosts: path.hosts }
  const pids: Record<'near' | 'far', number[]> = { near: [], far: [] }
  const ends = (['near', 'far'] as const).map((name) => {
    const key = execFileSync('wg', ['genkey'], { encoding: 'utf8' })
    const keyFile = rig.path(`wg-${name}`)
    writeFileSync(keyFile, key, { mode: 0o600 })
    const publicKey = execFileSync('wg', ['pubkey'], { input: key, encoding: 'utf8' }).trim()
    // The control sockets of all namespaces are in one folder, by this name.
    const device = `fpb${hosts.pid(name)}`
    return { name, keyFile, publicKey, device, host: name === 'near' ? near : far }
  })
  for (const [i, { name, keyFile, device, host }] of ends.entries()) {
    const peer = ends[1 - i] as (typeof ends)[number]
    const program = rig.start('wireguard-go', ['-f', device], host)
    pids[name].push(program.pid as number)
    await appears(`/var/run/wireguard/${device}.sock`)
    const remote = ['peer', peer.publicKey, 'allowed-ips', `${INSIDE[peer.name]}/32`]
    const endpoint = ['endpoint', `${peer.host.address}:${PORT}`]
    await hosts.run(name, [
      'wg',
      'set',
      device,
      'private-key',
      keyFile,
      'listen-port',
      String(PORT),
      ...remote,
      ...endpoint,
    ])
    await hosts.ip(name, [
      `addr add ${INSIDE[name]}/32 dev ${device}`,
      `link set ${device} mtu 1420 up`,
      `route replace ${INSIDE[peer.name]} dev ${device} src ${INSIDE[name]} congctl cubic`,
    ])
  }
  return { inside: between(hosts, INSIDE), nearPids: pids.near, farPids: pids.far }
}

async function cable(rig: Rig): Promise<Path & { hosts: Namespaces }> {
  const hosts = rig.use(new Namespaces())
  await hosts.add('near')
  await hosts.add('far')
  await hosts.link(['near', 'eth0', `${VETH.near}/30`], ['far', 'eth0', `${VETH.far}/30`])
  return { ...between(hosts, VETH), hosts }
}
