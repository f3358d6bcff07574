/**
 * `node delay-line.ts <name> <milliseconds>`: a program that makes a TUN device and gives back each packet it is sent,
 * unchanged and in order, that much later. Says `ready` once the device is there; ends, and takes the device with it, when
 * its standard input does.
 *
 * The kernels that tests run on have no netem. It is a process of its own, so that a busy event loop delays no packet.
 */
import { PacketQueue } from './packet-queue.ts'
import { Tun, TunPoll } from './tun.ts'

/** What a line holds at most, as a router's queue does: 20 ms of 1500 bytes at 12 Gbit/s. What comes on top is lost. */
const MAX_PACKETS = 20_000
/** Packets read before those due are looked at again. */
const READ_AT_ONCE = 64

const [name = 'delay0', milliseconds = '20'] = process.argv.slice(2)
const delayMs = Number(milliseconds)

const tun = new Tun(name)
const poll = new TunPoll(tun)
const queue = new PacketQueue()
process.stdout.write('ready\n')

while (true) {
  queue.deliver(performance.now(), (packet) => tun.write(packet))
  const ready = poll.wait(queue.nextDueMs - performance.now())
  if (ready === undefined) process.exit()
  if (ready.length === 0) continue
  for (let n = 0; n < READ_AT_ONCE; n++) {
    const packet = tun.read()
    if (packet === undefined) break
    if (queue.packets < MAX_PACKETS) queue.add(performance.now() + delayMs, packet)
  }
}
