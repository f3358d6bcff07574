import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { linuxPort } from '../../src/device/linux-port.ts'
import { exchange } from '../support/exchange.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'

test('the agent is killed and started again: the same program goes on with the same PTY, settings put back', async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=echo')
  const agent = await homes.share(`${device.slavePath}=echo`)
  const client = await homes.connect('a/echo', '--pty', homes.path('link'))
  const slave = readlinkSync(homes.path('link'))
  await using program = await linuxPort(homes.path('link')).open({ settings: { baudRate: 57_600 } })
  await exchange(program, device.master, 100_000)

  process.kill(agent.pid, 'SIGKILL')
  const [address] = agent.addresses
  const again = homes.start([
    'share',
    `${device.slavePath}=echo`,
    '--home',
    homes.agentHome,
    '--listen',
    (address ?? '').replace(/\/p2p\/.*$/, ''),
  ])
  await again.event('ready')
  let ups = 0
  await client.event('link', ({ state }) => state === 'up' && ++ups === 2)
  await exchange(program, device.master, 100_000)
  assert.equal(device.termios().ospeed, 57_600)
  assert.equal(readlinkSync(homes.path('link')), slave)
})

test('a client that was killed has its port back at once', async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=gps')
  await homes.share('simulated:gps?hz=10=gps')
  for (let i = 0; i < 2; i++) {
    const client = await homes.connect('a/gps', '--raw', '127.0.0.1:0')
    const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
    const [line] = (await once(createInterface({ input: socket }), 'line')) as [string]
    assert.match(line, /\$GP/)
    const closed = once(socket, 'close')
    socket.on('error', () => {})
    process.kill(client.pid, 'SIGKILL')
    await closed
  }
})

test("a peer's line is removed: its live channel is cut within a second, and it is not let in again", async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=gps')
  await homes.share('simulated:gps?hz=10=gps')
  const client = await homes.connect('a/gps', '--raw', '127.0.0.1:0')
  const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
  const lines = createInterface({ input: socket })
  let last = 0
  lines.on('line', () => {
    last = performance.now()
  })
  await once(lines, 'line')
  const start = performance.now()
  await homes.grant('')
  const { reason } = await client.event('link', ({ state }) => state === 'down')
  assert.match(String(reason), /may not use gps|trusted_peers/)
  assert.ok(last - start < 1_000, `bytes still came ${Math.round(last - start)} ms after`)
  socket.destroy()
})
