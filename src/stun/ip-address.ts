import { isIPv4, isIPv6 } from 'node:net'

/**
 * An IP address as 4 or 16 bytes. An IPv4 address that an IPv6 socket shows as `::ffff:192.0.2.1` is IPv4 here; a zone
 * (`%eth0`) is left out.
 * @throws RangeError where the text is no address.
 */
export function ipBytes(text: string): Buffer {
  if (isIPv4(text)) return Buffer.from(text.split('.').map(Number))
  if (!isIPv6(text)) throw new RangeError(`no IP address: ${text}`)
  // A URL writes every IPv6 address in groups of hexadecimal digits alone (RFC 5952), however it was written before.
  const [head = '', tail] = new URL(`http://[${text.replace(/%.*/, '')}]`).hostname.slice(1, -1).split('::')
  const before = groups(head)
  const after = groups(tail ?? '')
  const all = [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after]
  const bytes = Buffer.alloc(16)
  all.forEach((group, k) => {
    bytes.writeUInt16BE(group, 2 * k)
  })
  return isMappedIPv4(bytes) ? bytes.subarray(12) : bytes
}

function groups(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16))
}

function isMappedIPv4(bytes: Buffer): boolean {
  return bytes.readUIntBE(0, 6) === 0 && bytes.readUIntBE(6, 6) === 0xffff
}

/** The text of 4 or 16 bytes, IPv6 as RFC 5952 has it. */
export function ipText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.')
  const hex = Buffer.from(bytes)
    .toString('hex')
    .replace(/(?<=.)(?=(.{4})+$)/g, ':')
  return new URL(`http://[${hex}]`).hostname.slice(1, -1)
}
