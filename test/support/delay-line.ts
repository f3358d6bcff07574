/**
 * `node delay-line.ts <name> <milliseconds>`: a program that makes a TUN device and gives back each packet it is sent,
 * unchanged and in order, that much later. Says `ready` once the device is there; ends, and takes the device with it, when
 * its standard input does.
 *
 * The kernels that tests run on have no netem. It is a process of its own, so that a busy event loop delays no packet.
 */
import { constants, openSync } from 'node:fs'
import { createRequire } from 'node:module'

const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')

const TUNSETIFF = 0x400454ca
const IFF_TUN_NO_PI = 0x1001
const POLLIN = 1
const LONGEST_PACKET = 65_536
/** What a line holds at most, as a router's queue does: 20 ms of 1500 bytes at 12 Gbit/s. What comes on top is lost. */
const MAX_PACKETS = 20_000
/** Packets read before those due are looked at again. */
const READ_AT_ONCE = 64

const c = koffi.load(null)
const ioctl = c.func('ioctl', 'int', ['int', 'ulong', 'void *'])
const read = c.func('intptr_t read(int fd, void *bytes, size_t length)')
const write = c.func('intptr_t write(int fd, const void *bytes, size_t length)')
const ppoll = c.func('int ppoll(void *fds, unsigned long count, const void *timeout, const void *signals)')

const [name = 'delay0', milliseconds = '20'] = process.argv.slice(2)
const delayMs = Number(milliseconds)

const tun = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK)
// struct ifreq: the name in 16 bytes, the flags in a short.
const request = Buffer.alloc(40)
request.write(name, 'latin1')
request.writeUInt16LE(IFF_TUN_NO_PI, 16)
if (ioctl(tun, TUNSETIFF, request) < 0) throw new Error(`TUNSETIFF: errno ${koffi.errno()}`)
process.stdout.write('ready\n')

interface Packet {
  dueMs: number
  bytes: Buffer
}
let queue: Packet[] = []
/** Where the queue begins; what lies before it has left. */
let head = 0

const incoming = Buffer.alloc(LONGEST_PACKET)
// struct pollfd, twice: int fd, short events, short revents.
const polled = Buffer.alloc(16)
polled.writeInt32LE(tun, 0)
polled.writeInt16LE(POLLIN, 4)
polled.writeInt32LE(0, 8)
polled.writeInt16LE(POLLIN, 12)
const timeout = Buffer.alloc(16)

while (true) {
  for (let next = queue[head]; next !== undefined && next.dueMs <= performance.now(); next = queue[head]) {
    write(tun, next.bytes, next.bytes.length)
    head++
  }
  if (head > 1024) {
    queue = queue.slice(head)
    head = 0
  }
  const waitMs = Math.max(0, (queue[head]?.dueMs ?? Number.POSITIVE_INFINITY) - performance.now())
  // struct timespec: seconds, nanoseconds.
  const waitNs = BigInt(Math.ceil(Math.min(waitMs, 60_000) * 1e6))
  timeout.writeBigInt64LE(waitNs / 1_000_000_000n, 0)
  timeout.writeBigInt64LE(waitNs % 1_000_000_000n, 8)
  if (ppoll(polled, 2, timeout, null) < 0) continue
  if (polled.readInt16LE(14) !== 0) process.exit()
  if (polled.readInt16LE(6) === 0) continue
  for (let n = 0; n < READ_AT_ONCE; n++) {
    const length = Number(read(tun, incoming, LONGEST_PACKET))
    if (length <= 0) break
    if (queue.length - head >= MAX_PACKETS) continue
    queue.push({ dueMs: performance.now() + delayMs, bytes: Buffer.from(incoming.subarray(0, length)) })
  }
}
