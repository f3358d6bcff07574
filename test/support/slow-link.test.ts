import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import type { Namespaces } from './namespaces.ts'
import { queueBytes, SLOW_LINK_ADDRESSES, slowLink, whyNoSlowLink } from './slow-link.ts'
import { until } from './until.ts'

const skip = whyNoSlowLink() ?? false

/** A TCP server that echoes what comes to port 7, and swallows it on port 9, of which it says how much and how fast. */
const SERVER = `
const { createServer } = require('node:net')
createServer({ noDelay: true }, (socket) => socket.pipe(socket)).listen(7)
createServer((socket) => {
  let bytes = 0, begun
  socket.on('data', (chunk) => { begun ??= performance.now(); bytes += chunk.length })
  socket.on('end', () => console.log(JSON.stringify({ bytes, ms: performance.now() - begun })))
}).listen(9, () => console.log('listening'))
`
const PING = `
const { connect } = require('node:net')
const socket = connect({ port: 7, host: '${SLOW_LINK_ADDRESSES.far}', noDelay: true })
const times = []
let sent
const next = () => { sent = performance.now(); socket.write('x') }
socket.on('connect', next).on('data', () => {
  times.push(performance.now() - sent)
  if (times.length < 40) return setTimeout(next, 5)
  console.log(JSON.stringify(times))
  process.exit()
})
`
const FILL = `
const { connect } = require('node:net')
const socket = connect(9, '${SLOW_LINK_ADDRESSES.far}')
socket.end(Buffer.alloc(Number(process.argv[1])))
`

/**
 * What a busy machine may add, also to the fastest. On a quiet one it is less than 2 ms, and bulk gets 95 % of the rate; here it
 * must not be faster than it should, and not another line altogether.
 */
const SPARE_MS = 20
/** A byte, TCP with timestamps, IPv4. */
const ONE_BYTE_PACKET_BITS = 53 * 8
const PACKET_BYTES = 1428
/** Sends so many packets at once, each with 28 bytes of headers. */
const BURST = `
const socket = require('node:dgram').createSocket('udp4')
let left = Number(process.argv[1])
for (let n = left; n > 0; n--) socket.send(Buffer.alloc(${PACKET_BYTES} - 28), 9, '${SLOW_LINK_ADDRESSES.far}', () => {
  if (--left === 0) socket.close()
})
`
/** How many come until nothing has come for half a second. */
const COUNT = `
let count = 0, quiet
require('node:dgram').createSocket('udp4').bind(9, () => console.log('listening')).on('message', () => {
  count++
  clearTimeout(quiet)
  quiet = setTimeout(() => { console.log(count); process.exit() }, 500)
})
`

async function serve(hosts: Namespaces): Promise<{ told: AsyncIterator<Buffer> }> {
  const server = hosts.exec('far', [process.execPath, '-e', SERVER], { stdio: ['ignore', 'pipe', 'inherit'] })
  const told = (server.stdout as NonNullable<typeof server.stdout>)[Symbol.asyncIterator]()
  await told.next()
  return { told }
}

for (const bitsPerSecond of [10_000_000, 1_000_000])
  test(`a line of ${bitsPerSecond / 1e6} Mbit/s takes 40 ms there and back, and bulk fills it`, {
    skip,
  }, async () => {
    await using hosts = await slowLink({ bitsPerSecond, oneWayMs: 20 })
    const { told } = await serve(hosts)
    const times: number[] = JSON.parse(await hosts.run('near', [process.execPath, '-e', PING]))
    // The fastest, since what a busy machine adds is not the line's.
    const fastest = Math.min(...times)
    const onTheWire = (2 * ONE_BYTE_PACKET_BITS * 1000) / bitsPerSecond
    const wayMs = fastest - onTheWire
    assert.ok(
      wayMs >= 39.9 && wayMs <= 40 + SPARE_MS,
      `a byte took ${fastest} ms, ${onTheWire} of them to be sent`,
    )

    const bytes = (bitsPerSecond / 8) * 3
    await hosts.run('near', [process.execPath, '-e', FILL, String(bytes)])
    const arrived = JSON.parse(String((await told.next()).value)) as { bytes: number; ms: number }
    assert.equal(arrived.bytes, bytes)
    const share = (bytes * 8) / (arrived.ms / 1000) / bitsPerSecond
    assert.ok(share >= 0.5 && share <= 1, `bulk got ${(share * 100).toFixed(1)} % of the rate`)
  })

test('of a burst, the line keeps what its queue holds and loses the rest', { skip }, async () => {
  await using hosts = await slowLink({ bitsPerSecond: 10_000_000, oneWayMs: 20 })
  const receiver = hosts.exec('far', [process.execPath, '-e', COUNT], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const told = (receiver.stdout as NonNullable<typeof receiver.stdout>)[Symbol.asyncIterator]()
  await told.next()
  const packets = 1000
  await hosts.run('near', [process.execPath, '-e', BURST, String(packets)])
  const arrived = Number(String((await told.next()).value))
  // While the burst is being sent some of it leaves already: about one packet in a millisecond.
  const held = Math.floor(queueBytes(10_000_000) / PACKET_BYTES)
  assert.ok(arrived >= held && arrived < packets, `${arrived} of ${packets} arrived, the queue holds ${held}`)
})

test('the line ends with the one who made it, even when it is killed', { skip }, async () => {
  const code = `
    import { slowLink } from '${new URL('slow-link.ts', import.meta.url)}'
    const hosts = await slowLink({ bitsPerSecond: 1e6, oneWayMs: 1 })
    console.log(JSON.stringify(hosts.holders))
    setInterval(() => {}, 1000)
  `
  const owner = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [text] = (await once(owner.stdout, 'data')) as [Buffer]
  const pids: number[] = JSON.parse(text.toString())
  owner.kill('SIGKILL')
  await until('the namespaces are gone', () => !pids.some((pid) => existsSync(`/proc/${pid}`)))
})
