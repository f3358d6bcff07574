/** Plugs two FTDI adapters that a cable joins into this machine. Needs root and vhci_hcd; they stay until this program ends. */
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Socket } from 'node:net'
import { FtdiChip } from './ftdi-chip.ts'
import { serveUsbIp } from './usb-ip.ts'

const ATTACH = '/sys/devices/platform/vhci_hcd.0/attach'
const AF_UNIX = 1
const SOCK_STREAM = 1
const FULL_SPEED = 2

const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
const socketpair = koffi.load(null).func('int socketpair(int, int, int, void *)')

/** The kernel keeps one end of a socket pair, the chip answers at the other. */
async function plug(chip: FtdiChip, port: number): Promise<void> {
  const fds = Buffer.alloc(8)
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) !== 0) throw new Error('no socket pair')
  writeFileSync(ATTACH, `${port} ${fds.readInt32LE(4)} ${port + 1} ${FULL_SPEED}`)
  await serveUsbIp(new Socket({ fd: fds.readInt32LE(0) }), chip)
}

const a = new FtdiChip('A')
const b = new FtdiChip('B')
a.peer = b
b.peer = a
await Promise.all([plug(a, 0), plug(b, 1)])
