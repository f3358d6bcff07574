import { format } from 'node:util'
import type { ComponentLogger, Logger as Libp2pLogger } from '@libp2p/interface'
import type { Logger } from '../log.ts'

/**
 * What libp2p tells about its inner life, as debug lines of ours (its trace as trace). It logs every frame, so below that
 * level there is nothing but an empty function.
 */
export function libp2pLog(log: Logger): ComponentLogger {
  const debug = log.isLevelEnabled('debug') ? log.debug.bind(log) : undefined
  const trace = log.isLevelEnabled('trace') ? log.trace.bind(log) : undefined

  const scope = (component: string): Libp2pLogger =>
    Object.assign(writer(component, debug), {
      enabled: debug !== undefined,
      error: writer(component, debug),
      trace: writer(component, trace),
      newScope: (name: string) => scope(`${component}:${name}`),
    })
  return { forComponent: scope }
}

type Write = (fields: { component: string }, text: string) => void

function writer(component: string, write: Write | undefined): (text: unknown, ...args: unknown[]) => void {
  if (write === undefined) return () => {}
  return (text, ...args) => write({ component }, format(knownVerbs(text), ...args.map(readable)))
}

/** libp2p has more verbs than printf: %p peer, %a address, %e error, %b %t %m %k %c bytes and keys. */
function knownVerbs(text: unknown): unknown {
  return typeof text === 'string' ? text.replace(/%[abcekmpt]/g, '%s') : text
}

function readable(arg: unknown): unknown {
  if (arg instanceof Error) return `${arg.name}: ${arg.message}`
  if (arg instanceof Uint8Array) return Buffer.from(arg).toString('hex')
  return typeof arg === 'object' && arg !== null && 'toString' in arg ? String(arg) : arg
}
