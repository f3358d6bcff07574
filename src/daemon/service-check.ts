import { configPath } from '../config/home.ts'
import { loadConfig } from '../config/load-config.ts'
import { isSearched } from '../device/device-search.ts'
import { FarportError } from '../errors.ts'
import { callDaemon } from './control-client.ts'
import type { Finding } from './finding.ts'
import { type DaemonStatus, summarize } from './status.ts'

const ANSWER_DEADLINE_MS = 5_000

/** What farport.yaml asks for, as far as this machine's devices go. Silent where there is no such file. */
export async function checkConfig(
  home: string,
  tell: (finding: Finding) => void,
): Promise<readonly string[]> {
  const path = configPath(home)
  try {
    const { shares, links } = await loadConfig(path, home)
    const text = `${path} is fine; ports: ${shares.length} to share, ${links.length} to use`
    tell({ about: 'config', verdict: 'ok', text })
    const ends = links.map(({ endpoint }) => (endpoint.type === 'serial' ? endpoint.device : ''))
    return [...shares.map(({ device }) => device), ...ends].filter(
      (device) => device.startsWith('/') || isSearched(device),
    )
  } catch (error) {
    if (!(error instanceof FarportError)) throw error
    if ((error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return []
    for (const text of error.message.split('\n')) tell({ about: 'config', verdict: 'bad', text })
    return []
  }
}

/** The farport that runs for this home, and how it is. */
export async function serviceFinding(
  home: string,
  signal: AbortSignal,
): Promise<{ finding: Finding; pid?: number }> {
  const about = 'service'
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_DEADLINE_MS)])
  try {
    const status = (await callDaemon(home, 'status', undefined, { signal: deadline })) as
      | DaemonStatus
      | undefined
    if (status === undefined)
      return { finding: { about, verdict: 'ok', text: `no farport runs for ${home}` } }
    const { pid, links, relays } = status
    const text = `a farport runs as process ${pid}: ${summarize(status)}`
    const ill =
      links.some(({ state }) => state === 'failed' || state === 'down') ||
      relays.some(({ state }) => state !== 'reserved')
    if (!ill) return { finding: { about, verdict: 'ok', text }, pid }
    return { finding: { about, verdict: 'note', text, remedy: '`farport status` tells what is down' }, pid }
  } catch (error) {
    signal.throwIfAborted()
    const text = deadline.aborted
      ? `the farport that runs for ${home} does not answer`
      : `the farport that runs for ${home} can't be asked: ${(error as Error).message}`
    const remedy = 'restart it, as by  sudo systemctl restart farport'
    return { finding: { about, verdict: 'bad', text, remedy } }
  }
}
