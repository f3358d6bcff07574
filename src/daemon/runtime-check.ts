import packageJson from '../../package.json' with { type: 'json' }
import { FdDuplex } from '../device/fd-duplex.ts'
import { loadLibc } from '../device/libc.ts'
import { makeRaw } from '../device/termios-settings.ts'
import type { Finding } from './finding.ts'
import type { Machine } from './machine.ts'

const ECHO_DEADLINE_MS = 2_000

/** Whether this is a Node that farport runs on. */
export function runtimeFinding({ node }: Pick<Machine, 'node'>): Finding {
  const text = `Node ${node.version} at ${node.path}`
  const major = Number.parseInt(node.version, 10)
  const bounds = packageJson.engines.node.match(/\d+/g)?.map(Number) ?? []
  const [from = 0, before = Number.POSITIVE_INFINITY] = bounds
  if (major >= from && major < before) return { about: 'node', verdict: 'ok', text }
  return {
    about: 'node',
    verdict: 'bad',
    text: `${text}, which farport is not made for`,
    remedy: `run it with Node ${packageJson.engines.node}, or install the package that brings its own`,
  }
}

/** Whether native code loads and works here: bytes through a PTY by our own reads and writes, and sodium. */
export async function nativeFindings(
  platform: NodeJS.Platform = process.platform,
  tries: Readonly<Record<string, () => Promise<unknown>>> = {
    ...(platform === 'linux' && { 'a virtual serial port': echoThroughPty }),
    // Loaded only now: where it can't be, the rest is still told.
    sodium: async () => (await import('../trust/noise.ts')).generateStaticKey(),
  },
): Promise<Finding[]> {
  return Promise.all(
    Object.entries(tries).map(async ([what, tryOut]): Promise<Finding> => {
      try {
        await tryOut()
        return { about: 'native', verdict: 'ok', text: `${what} works` }
      } catch (error) {
        return {
          about: 'native',
          verdict: 'bad',
          text: `${what} does not work: ${(error as Error).message.split('\n', 1)[0]}`,
          remedy: 'install farport anew for this processor and system, or see that /dev/ptmx may be opened',
        }
      }
    }),
  )
}

async function echoThroughPty(): Promise<void> {
  const libc = loadLibc()
  const { fd } = libc.openPtyMaster()
  const master = new FdDuplex(libc, { fd })
  master.on('error', () => {})
  try {
    const slaveFd = libc.openPtySlave(fd)
    const slave = new FdDuplex(libc, { fd: slaveFd })
    slave.on('error', () => {})
    try {
      const termios = libc.termios(slaveFd)
      makeRaw(termios)
      libc.setTermios(slaveFd, termios)
      const sent = 'farport'
      master.write(sent)
      const got = await readText(slave, sent.length)
      if (got !== sent) throw new Error(`“${sent}” came out as “${got}”`)
    } finally {
      slave.destroy()
    }
  } finally {
    master.destroy()
  }
}

async function readText(stream: FdDuplex, bytes: number): Promise<string> {
  const deadline = setTimeout(
    () => stream.destroy(new Error(`no byte came through within ${ECHO_DEADLINE_MS} ms`)),
    ECHO_DEADLINE_MS,
  )
  let text = ''
  try {
    for await (const chunk of stream) {
      text += String(chunk)
      if (text.length >= bytes) break
    }
  } finally {
    clearTimeout(deadline)
  }
  return text
}
