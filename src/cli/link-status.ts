import type { DaemonEvent } from '../daemon/daemon.ts'

/** What happened to a link, for a person. */
export function describeLink(event: Extract<DaemonEvent, { event: 'link' }>): string {
  switch (event.state) {
    case 'up':
      return `${event.port}: open`
    case 'moved':
      return `${event.port}: now ${event.path ?? 'on another path'}, ${event.roundTripMs} ms there and back`
    case 'down':
      return `${event.port}: ${event.reason}; trying again`
    case 'absent':
      return `${event.port}: its device has gone; waiting for it`
    case 'dropped':
      return `${event.port}: up to ${event.bytes} bytes could not be delivered in time and are dropped`
    case 'skipped':
      return `${event.port}: some of what the device sent is missing`
    default:
      return event satisfies never
  }
}
