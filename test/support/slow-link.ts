import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { accessSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Namespaces } from './namespaces.ts'

/** The one address of each end of the line. */
export const SLOW_LINK_ADDRESSES = { near: '10.77.0.1', far: '10.77.0.2' } as const

const DEVICE = 'slow0'

export interface SlowLinkOptions {
  readonly bitsPerSecond: number
  readonly oneWayMs: number
}

/**
 * Room for 100 ms at the rate: what a home router's uplink has, when nobody has tuned it, is that or a multiple of it.
 * At least 32 KiB, since routers count in packets and none holds fewer than twenty.
 */
export function queueBytes(bitsPerSecond: number): number {
  return Math.max(32 * 1024, Math.round(bitsPerSecond / 80))
}

/** Why there can be no such line here; undefined where it can. */
export function whyNoSlowLink(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'network namespaces need root on Linux'
  try {
    accessSync('/dev/net/tun')
    execFileSync('unshare', ['--net', 'ip', 'link', 'set', 'lo', 'up'], { stdio: 'ignore' })
    return undefined
  } catch (error) {
    return `needs iproute2 and /dev/net/tun: ${(error as Error).message}`
  }
}

/**
 * Two hosts, `near` and `far`, and between them a line with a rate, a delay and a queue that overflows. Hosts use cubic,
 * as Linux does unless told otherwise, whatever the machine that this runs on has been told.
 */
export async function slowLink({ bitsPerSecond, oneWayMs }: SlowLinkOptions): Promise<Namespaces> {
  await using begun = new AsyncDisposableStack()
  const hosts = begun.use(new Namespaces())
  await hosts.add('near')
  await hosts.add('far')
  const program = fileURLToPath(new URL('link-shaper.ts', import.meta.url))
  const line = [DEVICE, bitsPerSecond, oneWayMs, queueBytes(bitsPerSecond)].map(String)
  const ends = ['near', 'far'].map((host) => String(hosts.pid(host)))
  const shaper = hosts.exec('near', [process.execPath, program, ...ends, ...line], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await Promise.race([
    once(shaper.stdout as NonNullable<typeof shaper.stdout>, 'data'),
    once(shaper, 'exit').then(() => Promise.reject(new Error('the line ended'))),
  ])
  const { near, far } = SLOW_LINK_ADDRESSES
  for (const [host, own, peer] of [
    ['near', near, far],
    ['far', far, near],
  ] as const) {
    // The queue that counts is the line's: what the kernel has in front of the device must never be the fuller one.
    await hosts.ip(host, [
      `addr add ${own} peer ${peer} dev ${DEVICE}`,
      `link set ${DEVICE} txqueuelen 10000 up`,
      // A host of its own may choose among all algorithms by its routes only.
      `route replace ${peer} dev ${DEVICE} src ${own} congctl cubic`,
    ])
  }
  begun.move()
  return hosts
}
