/**
 * Whose limits a connection counts against, from the multiaddr it comes from: an IPv4 address, or the 64 bits that one
 * IPv6 subscriber has at least.
 */
export function sourceOf(remoteAddress: string): string {
  const [, kind, host = ''] = remoteAddress.split('/')
  if (kind !== 'ip6') return host
  const [head = '', tail] = host.split('::')
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const behind = tail === '' ? 0 : tail.split(':').length
    while (groups.length + behind < 8) groups.push('0')
  }
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16))
    .join(':')
}
