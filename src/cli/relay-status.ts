import type { DaemonEvent } from '../daemon/daemon.ts'

/** How a relay of ours stands, as a line on the screen; nothing while that is not known yet. */
export function describeRelay({
  relay,
  state,
  reason,
}: DaemonEvent & { event: 'relay' }): string | undefined {
  switch (state) {
    case 'connecting':
      return undefined
    case 'reserved':
      return `relay ${relay}: we are reached through it`
    case 'waiting':
      return `relay ${relay}: ${reason ?? 'not reached'}; trying again`
    case 'refused':
      return `relay ${relay} refuses us: ${reason ?? 'it does not say why'}`
    default:
      return state satisfies never
  }
}
