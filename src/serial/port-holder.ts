import { readdir, readFile, readlink, realpath } from 'node:fs/promises'

/**
 * Who has a device open, for a message to a person: "minicom (process 4711)". Undefined when /proc does not tell, as for
 * other users' processes.
 */
export async function portHolder(path: string): Promise<string | undefined> {
  try {
    const device = await realpath(path)
    const processes = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
    for (const pid of processes.filter((pid) => pid !== String(process.pid))) {
      if (await hasOpen(pid, device)) return await describe(pid)
    }
    return (await countOpen(String(process.pid), device)) > 1 ? 'this process' : undefined
  } catch {
    return undefined
  }
}

async function hasOpen(pid: string, device: string): Promise<boolean> {
  return (await countOpen(pid, device)) > 0
}

async function countOpen(pid: string, device: string): Promise<number> {
  const fds = await readdir(`/proc/${pid}/fd`).catch(() => [])
  const targets = await Promise.all(fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
  return targets.filter((target) => target === device).length
}

async function describe(pid: string): Promise<string> {
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')
  return name === '' ? `process ${pid}` : `${name.trim()} (process ${pid})`
}
