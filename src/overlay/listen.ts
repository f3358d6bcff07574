import { multiaddr } from '@multiformats/multiaddr'
import { FarportError } from '../errors.ts'

const HOSTS = ['ip4', 'ip6', 'dns', 'dns4', 'dns6']

/** @throws FarportError ERR_USAGE when one is not of the form `/ip4/0.0.0.0/tcp/4001` */
export function checkListenAddresses(addresses: readonly string[]): void {
  for (const address of addresses) {
    const [host, port, ...more] = components(address)
    if (!HOSTS.includes(host ?? '') || port !== 'tcp' || more.length > 0)
      throw new FarportError('ERR_USAGE', `${address} is not an address: write it as /ip4/0.0.0.0/tcp/4001`)
  }
}

function components(address: string): string[] {
  try {
    return multiaddr(address)
      .getComponents()
      .map(({ name }) => name)
  } catch {
    return []
  }
}

/** Why a node could not start. libp2p puts the errors of all its listeners into one text. */
export function listenFailure(error: unknown, addresses: readonly string[]): unknown {
  const text = String(error)
  for (const address of addresses) {
    const [line = ''] = text.split(`${multiaddr(address)}: `)[1]?.split('\n') ?? []
    const [, code] = /\b(E[A-Z]{4,})\b/.exec(line) ?? []
    switch (code) {
      case undefined:
        break
      case 'EADDRINUSE':
        return new FarportError(
          'ERR_IN_USE',
          `address ${address} is in use by another program: stop that one, or listen on another port`,
          { cause: error },
        )
      case 'EADDRNOTAVAIL':
      case 'ENOTFOUND':
        return new FarportError('ERR_USAGE', `address ${address} is not one of this machine`, {
          cause: error,
        })
      case 'EACCES':
        return new FarportError(
          'ERR_USAGE',
          `address ${address} needs more rights: listen on a port above 1023`,
          {
            cause: error,
          },
        )
      default:
        return new FarportError('ERR_UNFIT', `address ${address} can't be listened on (${code})`, {
          cause: error,
        })
    }
  }
  return error
}
