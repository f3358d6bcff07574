/**
 * `node link-shaper.ts <pid> <pid> <name> <bits per second> <one-way milliseconds> <queue bytes>`: a line between the
 * network namespaces of two processes, as one slow hop of the internet is one. Each gets a TUN device of this name, and
 * what is sent to one comes out of the other, each way by itself:
 *
 *   queue (drop-tail, so many bytes) → sent at the rate → on its way for so long → arrives
 *
 * A packet that finds the queue full is lost, so TCP runs into a real bottleneck, with its queue and its losses. The rate
 * is that of IP packets, without what a real link adds below them. Says `ready`; ends when its standard input does.
 */
import { setPriority } from 'node:os'
import { PacketQueue } from './packet-queue.ts'
import { enterNetworkOf, Tun, TunPoll } from './tun.ts'

/** Packets read before those due are looked at again. */
const READ_AT_ONCE = 16

const [onePid, otherPid, name = 'slow0', bitsPerSecond, oneWayMs, queueBytes] = process.argv.slice(2)
const bytesPerMs = Number(bitsPerSecond) / 8000
const delayMs = Number(oneWayMs)
const maxQueueBytes = Number(queueBytes)

/** One way of the line. */
class Way {
  readonly #onTheWay = new PacketQueue()
  readonly #to: Tun
  /** When the last packet in the queue will have been sent. */
  #sentMs = 0

  constructor(to: Tun) {
    this.#to = to
  }

  get nextDueMs(): number {
    return this.#onTheWay.nextDueMs
  }

  take(packet: Buffer): void {
    const now = performance.now()
    const begins = Math.max(now, this.#sentMs)
    const queuedBytes = (begins - now) * bytesPerMs
    if (queuedBytes + packet.length > maxQueueBytes) return
    this.#sentMs = begins + packet.length / bytesPerMs
    this.#onTheWay.add(this.#sentMs + delayMs, packet)
  }

  deliver(): void {
    this.#onTheWay.deliver(performance.now(), (packet) => this.#to.write(packet))
  }
}

// Ahead of the programs that are measured: a line does not get slower because they are busy.
setPriority(-20)
enterNetworkOf(Number(onePid))
const one = new Tun(name)
enterNetworkOf(Number(otherPid))
const other = new Tun(name)
const poll = new TunPoll(one, other)
const ways = new Map([
  [one, new Way(other)],
  [other, new Way(one)],
])
process.stdout.write('ready\n')

while (true) {
  let nextDueMs = Number.POSITIVE_INFINITY
  for (const way of ways.values()) {
    way.deliver()
    nextDueMs = Math.min(nextDueMs, way.nextDueMs)
  }
  const ready = poll.wait(nextDueMs - performance.now())
  if (ready === undefined) process.exit()
  for (const tun of ready)
    for (let n = 0; n < READ_AT_ONCE; n++) {
      const packet = tun.read()
      if (packet === undefined) break
      ways.get(tun)?.take(packet)
    }
}
