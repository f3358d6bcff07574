import { nameOf } from './draft.ts'

/** An address of another machine, HOST and PORT, with the brackets of an IPv6 address taken off. */
export interface Address {
  readonly host: string
  readonly port: string
}

/**
 * What stands in a link where farport wants PEER/PORT and the input only knows an address: a name that says what is to be
 * put there.
 */
export function farPort({ host, port }: Address): string {
  return `peer-at-${nameOf(host).slice(0, 48)}/port-${nameOf(port).slice(0, 48)}`
}

/** `host:port`, `[::1]:port`; undefined for what is neither. */
export function parseAddress(text: string): Address | undefined {
  const [, ipv6, host, port] = /^(?:\[([^\]]+)\]|([^:]*)):([A-Za-z0-9-]{1,32})$/.exec(text) ?? []
  return port === undefined ? undefined : { host: ipv6 ?? host ?? '', port }
}

/** Where a local program finds it: the same port number, on this machine only. */
export function localAddress(port: string): string | undefined {
  return /^\d{1,5}$/.test(port) && Number(port) <= 0xffff ? `127.0.0.1:${Number(port)}` : undefined
}
