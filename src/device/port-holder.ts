import { readdir, readFile, readlink, realpath } from 'node:fs/promises'
import { basename } from 'node:path'

const THIS_PROCESS = 'this process'

/**
 * Who has a device open, for a message to a person: "minicom (process 4711)". Undefined when /proc does not tell, as for
 * other users' processes.
 */
export async function portHolder(path: string): Promise<string | undefined> {
  try {
    const device = await realpath(path)
    const processes = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
    for (const pid of processes.filter((pid) => pid !== String(process.pid))) {
      if (await hasOpen(pid, device)) return await describeProcess(pid)
    }
    return (await countOpen(String(process.pid), device)) > 1 ? THIS_PROCESS : undefined
  } catch {
    return undefined
  }
}

/** What ends it, for that message: half a sentence that follows a colon. */
export function remedyFor(holder: string, path: string): string {
  const name = holder.split(' ', 1)[0] as string
  if (holder === THIS_PROCESS) return 'farport shares it, or has joined it to another port, already'
  if (name === 'ModemManager')
    return 'type  sudo systemctl mask --now ModemManager  , or leave this adapter out by ENV{ID_MM_DEVICE_IGNORE}="1"'
  if (name === 'brltty')
    return 'type  sudo apt remove brltty  , which takes many adapters for Braille displays'
  if (/getty|login/.test(name)) return `type  sudo systemctl disable --now serial-getty@${basename(path)}`
  return 'end that program'
}

async function hasOpen(pid: string, device: string): Promise<boolean> {
  return (await countOpen(pid, device)) > 0
}

async function countOpen(pid: string, device: string): Promise<number> {
  const fds = await readdir(`/proc/${pid}/fd`).catch(() => [])
  const targets = await Promise.all(fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
  return targets.filter((target) => target === device).length
}

/** "minicom (process 4711)" */
export async function describeProcess(pid: string | number): Promise<string> {
  const read = (file: string) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')
  const name = (await read('comm')).trim()
  // What a thread calls itself says nothing, as Node's first one.
  const told = name === 'MainThread' ? basename((await read('cmdline')).split('\0', 1)[0] as string) : name
  return told === '' ? `process ${pid}` : `${told} (process ${pid})`
}
