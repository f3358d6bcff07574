import { basename } from 'node:path'
import { deviceSearch, isSearched } from '../device/device-search.ts'
import type { DiscoveredPort } from '../device/discovery.ts'
import { remedyFor } from '../device/port-holder.ts'
import type { Finding } from './finding.ts'
import type { Machine } from './machine.ts'

export interface DevicesInQuestion {
  readonly machine: Machine
  readonly discovered: readonly DiscoveredPort[]
  /** What farport.yaml names, by path or by what is looked for: what keeps us from these has to be mended. */
  readonly configured: readonly string[]
  /** Who has a device open, as "minicom (process 4711)". */
  readonly holderOf: (path: string) => Promise<string | undefined>
  /** The process of the farport that runs for this home. */
  readonly farportPid?: number
}

/** Which serial ports there are, whether we may open them, and who else has those that are to be shared. */
export async function deviceFindings(devices: DevicesInQuestion): Promise<Finding[]> {
  const { discovered } = devices
  const searched = await Promise.all(devices.configured.map((name) => lookFor(name, discovered)))
  const configured = [...new Set(searched.flatMap(({ paths }) => paths))]
  const names = new Set(configured)
  const others = discovered.filter(({ path, byId, byPath }) =>
    [path, byId, byPath].every((name) => name === undefined || !names.has(name)),
  )
  const findings = await Promise.all([
    ...searched.flatMap(({ finding }) => finding ?? []),
    ...configured.map((path) => examineConfigured(path, devices)),
    ...others.map(({ path }) => examineOther(path, devices.machine)),
  ])
  if (findings.length > 0) return findings
  return [
    { about: 'port', verdict: 'ok', text: 'no serial ports here, as on a machine that uses those of others' },
  ]
}

/** What a name stands for now, where it stands for what is looked for. */
async function lookFor(
  name: string,
  discovered: readonly DiscoveredPort[],
): Promise<{ paths: readonly string[]; finding?: Finding }> {
  if (!isSearched(name)) return { paths: [name] }
  const found = await deviceSearch(name, async () => [...discovered])()
  if (found.length > 0) return { paths: found.map(({ path }) => path) }
  return {
    paths: [],
    finding: {
      about: 'port',
      verdict: 'note',
      text: `${name} finds no device now; farport waits for one`,
      remedy: 'plug it in, or look for its name in the list that `farport ports` prints',
    },
  }
}

async function examineConfigured(path: string, devices: DevicesInQuestion): Promise<Finding> {
  const { machine, holderOf, farportPid } = devices
  const device = await machine.device(path)
  if (device === undefined)
    return {
      about: 'port',
      verdict: 'note',
      text: `${path} is not there; farport waits for it`,
      remedy: 'plug it in, or look for its name in the list that `farport ports` prints',
    }
  const refusal = await whyNot(path, machine)
  if (refusal !== undefined) return { about: 'port', verdict: 'bad', ...refusal }
  const closedTo = missingDeviceAllow(device.major, path, machine.unit)
  if (closedTo !== undefined) return closedTo
  const holder = await holderOf(path)
  const isOurs = farportPid !== undefined && holder?.endsWith(`(process ${farportPid})`)
  if (holder === undefined || isOurs)
    return { about: 'port', verdict: 'ok', text: `${path} ${isOurs ? 'is open here' : 'may be opened'}` }
  return {
    about: 'port',
    verdict: 'bad',
    text: `${path} is held by ${holder}`,
    remedy: remedyFor(holder, path),
  }
}

async function examineOther(path: string, machine: Machine): Promise<Finding> {
  const refusal = await whyNot(path, machine)
  if (refusal !== undefined) return { about: 'port', verdict: 'note', ...refusal }
  return { about: 'port', verdict: 'ok', text: `${path} may be opened` }
}

async function whyNot(path: string, machine: Machine): Promise<Pick<Finding, 'text' | 'remedy'> | undefined> {
  const { user, inContainer } = machine
  const [code, device] = await Promise.all([machine.mayOpen(path), machine.device(path)])
  if (code === undefined || device === undefined) return undefined
  const { gid, mode, major } = device
  const refused = `${path} may not be opened by ${user?.name ?? 'us'}`
  // The kernel answers EACCES for modes and owners, EPERM for the device controller of a control group.
  if (code === 'EPERM') {
    const remedy = inContainer
      ? `start the container with --device ${path}, or for what is plugged in later with --device-cgroup-rule 'c ${major}:* rmw'`
      : systemdRemedy(major)
    return { text: `${refused}: the control group of this process does not let it (major ${major})`, remedy }
  }
  if (code !== 'EACCES') return { text: `${refused} (${code})` }
  if ((mode & 0o060) !== 0o060 || gid === 0)
    return {
      text: `${refused}: it is for root alone`,
      remedy: `add a udev rule: SUBSYSTEM=="tty", KERNEL=="${basename(path)}", GROUP="dialout", MODE="0660"`,
    }
  const group = groupOf(gid, machine.groups)
  const name = group?.name ?? String(gid)
  if (user?.gids.includes(gid))
    return { text: `${refused} (EACCES), though group ${name} may: something beside its modes refuses it` }
  if (inContainer)
    return {
      text: `${refused}: it is for group ${name}`,
      remedy: `start the container with --group-add ${gid}`,
    }
  if (user !== undefined && group?.members.includes(user.name))
    return {
      text: `${refused}: ${user.name} is in group ${name}, but this login began before`,
      remedy: 'log out and in again',
    }
  return {
    text: `${refused}: it is for group ${name}`,
    remedy: `type  sudo usermod -aG ${name} ${user?.name ?? 'USER'}  and log in again`,
  }
}

/** What the service may open is decided by its unit, whoever asks. */
function missingDeviceAllow(major: number, path: string, unit: string): Finding | undefined {
  if (!/^DevicePolicy=(closed|strict)$/m.test(unit)) return undefined
  const allowed = [...unit.matchAll(/^DeviceAllow=(\S*)/gm)].map(([, what = '']) => what)
  // An empty one takes back what stands before it.
  const inForce = allowed.slice(allowed.lastIndexOf('') + 1)
  // By name is what systemd looks up itself; only numbers can be compared here.
  const byName = inForce.some((what) => /^char-(\D.*)$/.test(what))
  if (byName || inForce.includes(`char-${major}`) || inForce.includes(path)) return undefined
  return {
    about: 'port',
    verdict: 'bad',
    text: `${path} is of major ${major}, which the service's unit does not let it open`,
    remedy: systemdRemedy(major),
  }
}

function systemdRemedy(major: number): string {
  return `type  sudo systemctl edit farport  and write under [Service]: DeviceAllow=char-${major} rw`
}

function groupOf(gid: number, groups: string): { name: string; members: string[] } | undefined {
  for (const line of groups.split('\n')) {
    const [name, , id, members = ''] = line.split(':')
    if (name !== undefined && id === String(gid)) return { name, members: members.split(',') }
  }
  return undefined
}
