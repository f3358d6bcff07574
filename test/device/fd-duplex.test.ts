import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as round } from 'node:timers/promises'
import { FdDuplex } from '../../src/device/fd-duplex.ts'
import { IN, type Libc, loadLibc, TIOCPKT_EVENT } from '../../src/device/libc.ts'
import { overriding } from '../support/fake-driver.ts'
import { ptyPair } from '../support/pty-pair.ts'

const libc = loadLibc()
const TOO_MUCH = Buffer.alloc(1024 * 1024)
const limits = { timeout: 10_000 }

/** libc that counts its calls, to see whether anything spins. */
function counting(): { libc: Libc; reads: number; writes: number; polls: number } {
  const counts = { libc, reads: 0, writes: 0, polls: 0 }
  counts.libc = overriding(libc, {
    read(fd, into) {
      counts.reads++
      return libc.read(fd, into)
    },
    write(fd, bytes) {
      counts.writes++
      return libc.write(fd, bytes)
    },
    poll: (fd, onReady) =>
      libc.poll(fd, (ready) => {
        counts.polls++
        onReady(ready)
      }),
  })
  return counts
}

/** Collects exactly so many bytes, keeping every chunk until all are there. */
async function take(stream: Readable, lengthBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let missing = lengthBytes
  while (missing > 0) {
    const chunk: Buffer | null = stream.read()
    if (chunk === null) await once(stream, 'readable')
    else {
      chunks.push(chunk)
      missing -= chunk.length
    }
  }
  return Buffer.concat(chunks)
}

/** Many rounds of the event loop: time enough for whatever spins to show. */
async function rounds(count = 200): Promise<void> {
  for (let i = 0; i < count; i++) await round()
}

function openFds(): string[] {
  return readdirSync('/proc/self/fd')
}

test('4 MiB both ways at once arrive byte for byte', limits, async () => {
  await using pair = ptyPair()
  await using slave = new FdDuplex(libc, { fd: libc.open(pair.slavePath) })
  const there = randomBytes(4 * 1024 * 1024)
  const back = randomBytes(4 * 1024 * 1024)
  slave.write(there)
  pair.master.write(back)
  const [seen, read] = await Promise.all([take(pair.master, there.length), take(slave, back.length)])
  assert.equal(Buffer.compare(seen, there), 0)
  assert.equal(Buffer.compare(read, back), 0)
})

test('a blocked write leaves reads going and does not try again until there is room', limits, async () => {
  await using pair = ptyPair()
  const counts = counting()
  await using slave = new FdDuplex(counts.libc, { fd: libc.open(pair.slavePath) })
  let written = false
  slave.write(TOO_MUCH, () => {
    written = true
  })
  pair.master.write('first')
  assert.equal(String(await take(slave, 5)), 'first')
  const { writes } = counts
  for (let i = 0; i < 50; i++) {
    pair.master.write('x')
    await take(slave, 1)
  }
  await rounds()
  assert.equal(written, false)
  assert.equal(counts.writes, writes)
  await take(pair.master, TOO_MUCH.length)
  await rounds(10)
  assert.equal(written, true)
})

test('a reader that falls behind stops reads', limits, async () => {
  await using pair = ptyPair()
  const counts = counting()
  await using slave = new FdDuplex(counts.libc, {
    fd: libc.open(pair.slavePath),
    readableHighWaterMark: 8192,
  })
  pair.master.write(TOO_MUCH)
  await once(slave, 'readable')
  await rounds()
  const { reads } = counts
  await rounds()
  assert.equal(counts.reads, reads)
  assert.ok(slave.readableLength < 8192 + 64 * 1024, `${slave.readableLength} bytes are held`)
  assert.equal((await take(slave, TOO_MUCH.length)).length, TOO_MUCH.length)
})

test('discardUnsent completes every write so far, and only those', limits, async () => {
  await using pair = ptyPair()
  await using slave = new FdDuplex(libc, { fd: libc.open(pair.slavePath) })
  const completed: string[] = []
  slave.write(TOO_MUCH, () => completed.push('blocked'))
  slave.write('behind it', () => completed.push('behind'))
  const taken = slave.taken()
  slave.discardUnsent()
  await taken
  await round()
  assert.deepEqual(completed, ['blocked', 'behind'])
  slave.write('|after')
  let seen = Buffer.alloc(0)
  while (!seen.includes('|after')) {
    seen = Buffer.concat([seen, await take(pair.master, 1)])
    assert.ok(!seen.includes('behind'))
  }
  assert.ok(seen.length < TOO_MUCH.length)
})

test('onRead gets each read by itself, as packet mode needs', limits, async () => {
  const { fd, slavePath } = libc.openPtyMaster()
  libc.setPacketMode(fd, true)
  const control: number[] = []
  await using slave = new FdDuplex(libc, { fd: libc.open(slavePath) })
  await using master = new FdDuplex(libc, {
    fd,
    onRead(bytes) {
      control.push(bytes[0] ?? -1)
      return bytes.subarray(1)
    },
  })
  master.read(0)
  libc.flush(slave.fd ?? -1, 'rx')
  slave.write('hello')
  assert.equal(String(await take(master, 5)), 'hello')
  assert.deepEqual(control, [TIOCPKT_EVENT.FLUSHREAD, 0])
})

test(
  'a master whose slave was closed reports it once, does not spin, and goes on when asked to',
  limits,
  async () => {
    await using pair = ptyPair({ hold: false })
    const counts = counting()
    await using master = new FdDuplex(counts.libc, { fd: pair.master.detach() ?? -1 })
    const codes: string[] = []
    master.on('hangup', (code) => codes.push(code))
    {
      await using slave = new FdDuplex(libc, { fd: libc.open(pair.slavePath) })
      slave.write('last words')
      assert.equal(String(await take(master, 10)), 'last words')
    }
    if (codes.length === 0) await once(master, 'hangup')
    const { reads } = counts
    await rounds()
    assert.deepEqual(codes, ['EIO'])
    assert.equal(counts.reads, reads)

    await using slave = new FdDuplex(libc, { fd: libc.open(pair.slavePath) })
    master.retry()
    slave.write('again')
    assert.equal(String(await take(master, 5)), 'again')
    await master[Symbol.asyncDispose]()
  },
)

for (const writing of [false, true]) {
  const title = writing ? ', nor with a write held up' : ''
  test(`a hang-up does not spin while nobody reads, and loses no byte${title}`, limits, async () => {
    await using pair = ptyPair({ hold: false })
    const counts = counting()
    await using master = new FdDuplex(counts.libc, {
      fd: pair.master.detach() ?? -1,
      readableHighWaterMark: 16,
    })
    master.on('error', () => {})
    const sent = randomBytes(3000)
    {
      await using slave = new FdDuplex(libc, { fd: libc.open(pair.slavePath) })
      master.read(0)
      if (writing) master.write(TOO_MUCH)
      for (let at = 0; at < sent.length; at += 100) {
        await new Promise((resolve) => slave.write(sent.subarray(at, at + 100), resolve))
        await round()
      }
      await slave.taken()
    }
    await rounds()
    const { reads, writes, polls } = counts
    await rounds()
    assert.deepEqual([counts.reads, counts.writes, counts.polls], [reads, writes, polls])
    assert.equal(Buffer.compare(await take(master, sent.length), sent), 0)
  })
}

for (const reading of [true, false]) {
  test(
    `a slave whose master is gone reports it ${reading ? 'while it reads' : 'though nobody reads'}`,
    limits,
    async () => {
      await using pair = ptyPair()
      await using slave = new FdDuplex(libc, { fd: libc.open(pair.slavePath) })
      if (reading) slave.resume()
      const hangup = once(slave, 'hangup')
      await pair.master[Symbol.asyncDispose]()
      await hangup
      assert.equal(slave.destroyed, false)
    },
  )
}

test('a write held up by a hang-up goes to the next descriptor', limits, async () => {
  await using first = ptyPair()
  await using second = ptyPair()
  await using slave = new FdDuplex(libc, { fd: libc.open(first.slavePath) })
  slave.resume()
  await Promise.all([once(slave, 'hangup'), first.master[Symbol.asyncDispose]()])
  const written = new Promise((resolve) => slave.write('kept', resolve))
  libc.close(slave.detach() ?? -1)
  slave.attach(libc.open(second.slavePath))
  await written
  assert.equal(String(await take(second.master, 4)), 'kept')
})

test('a read of nothing from a tty that is there is not the end', limits, async () => {
  await using pair = ptyPair()
  const hangups: string[] = []
  let empty = true
  const emptyFirst = overriding(libc, {
    // What a read gives after another program has set VMIN to 0.
    read(fd, into) {
      if (!empty) return libc.read(fd, into)
      empty = false
      return 0
    },
  })
  await using slave = new FdDuplex(emptyFirst, { fd: libc.open(pair.slavePath) })
  slave.on('hangup', (code) => hangups.push(code))
  pair.master.write('x')
  assert.equal(String(await take(slave, 1)), 'x')
  assert.equal(empty, false)
  assert.deepEqual(hangups, [])
})

test('reads inotify events', limits, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'farport-inotify-'))
  const fd = libc.inotify()
  libc.inotifyWatch(fd, directory, IN.CREATE)
  await using events = new FdDuplex(libc, { fd })
  writeFileSync(join(directory, 'device'), '')
  // struct inotify_event: int wd; u32 mask, cookie, len; char name[len].
  const event = await take(events, 16)
  assert.equal(event.readUInt32LE(4), IN.CREATE)
  assert.equal(event.subarray(16, 22).toString(), 'device')
  rmSync(directory, { recursive: true })
})

test('closing leaves no descriptor, whatever was going on', limits, async () => {
  const before = openFds()
  for (let i = 0; i < 20; i++) {
    await using pair = ptyPair()
    await using slave = new FdDuplex(libc, { fd: libc.open(pair.slavePath) })
    if (i % 2 === 0) slave.write(TOO_MUCH, () => {})
    if (i % 3 === 0) slave.once('data', () => slave.destroy())
    if (i % 4 === 0) await pair.master[Symbol.asyncDispose]()
    else pair.master.write('x')
    slave.on('error', () => {})
    if (i % 5 === 0) await round()
  }
  assert.deepEqual(openFds(), before)
})
