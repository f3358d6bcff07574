import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import tab from '@bomb.sh/tab/commander'
import { Command } from 'commander'
import { configPath, resolveHome } from '../config/home.ts'
import { loadConfig } from '../config/load-config.ts'
import { listPorts } from '../device/discovery.ts'
import { parseTrustedPeers, TRUSTED_PEERS } from '../trust/trusted-peers.ts'

type Completion = ReturnType<typeof tab>

interface Suggestion {
  readonly value: string
  readonly about: string
}

/** What can stand in an argument of this name. */
const ARGUMENTS: Readonly<Record<string, (home: string | undefined) => Promise<Suggestion[]>>> = {
  peer: peers,
  name: peers,
  'peer/port': portsOfPeers,
  device: devices,
}

/**
 * What a shell can be offered for a program's commands. Names of peers and their ports are read from this home's files:
 * nobody is called, and what can't be read is not offered.
 * @param words those typed behind the program's name
 */
export async function completionOf(program: Command, words: readonly string[]): Promise<Completion> {
  const home = homeOf(words)
  // One of its own: the adapter adds two commands, whose names are taken already.
  const copy = new Command(program.name())
  const commands = program.createHelp().visibleCommands(program)
  for (const command of commands.filter((command) => command.name() !== 'help')) copy.addCommand(command)
  const completion = tab(copy, { completionCommandName: 'completion-script' })
  for (const ours of ['completion-script', 'complete']) completion.commands.delete(ours)
  for (const [name, command] of completion.commands) {
    // Only the command that is typed is worth reading files for.
    if (!words.includes(name.split(' ')[0] as string)) continue
    for (const argument of command.arguments.values()) {
      const suggestions = await ARGUMENTS[kindOf(name, argument.name)]?.(home).catch(() => [])
      if (suggestions !== undefined)
        argument.handler = (offer) => {
          for (const { value, about } of suggestions) offer(value, about)
        }
    }
  }
  return completion
}

/** Commands name their arguments for people; `share` means devices by a whole description. */
function kindOf(command: string, argument: string): string {
  if (command === 'share') return 'device'
  if (command === 'connect') return 'peer/port'
  return argument
}

function homeOf(words: readonly string[]): string | undefined {
  const at = words.indexOf('--home')
  const joined = words.find((word) => word.startsWith('--home='))?.slice('--home='.length)
  try {
    return resolveHome(at === -1 ? joined : words[at + 1])
  } catch {
    return undefined
  }
}

async function peers(home: string | undefined): Promise<Suggestion[]> {
  if (home === undefined) return []
  const { peers } = parseTrustedPeers(readFileSync(join(home, TRUSTED_PEERS), 'utf8'))
  return peers.map(({ name, peerId }) => ({ value: name, about: peerId }))
}

/** Only the peer knows what it shares; what farport.yaml uses of it is known here. */
async function portsOfPeers(home: string | undefined): Promise<Suggestion[]> {
  const known = await peers(home).catch(() => [])
  const links =
    home === undefined
      ? []
      : await loadConfig(configPath(home), home).then(
          ({ links }) => links,
          () => [],
        )
  return [
    ...links.map(({ peer, port }) => ({ value: `${peer}/${port}`, about: 'in farport.yaml' })),
    ...known.map(({ value, about }) => ({ value: `${value}/`, about })),
  ]
}

async function devices(): Promise<Suggestion[]> {
  const ports = await listPorts()
  return ports.map(({ path, byId, usb }) => ({ value: byId ?? path, about: usb?.product ?? path }))
}
