import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync, readlinkSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import { linuxPort } from '../../src/device/linux-port.ts'
import { listenTcp } from '../../src/endpoints/tcp.ts'
import type { MemoryPort } from '../../src/serial/memory-port.ts'
import { nullModemSources } from '../../src/serial/null-modem.ts'
import type { InputLines, PortSource } from '../../src/serial/port.ts'
import { formatSettings } from '../../src/serial/settings.ts'
import { foreignPort } from '../../src/session/foreign-port.ts'
import { farport } from '../support/cli.ts'
import { exchange } from '../support/exchange.ts'
import { Pluggable } from '../support/pluggable.ts'
import { SessionPair } from '../support/session-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { until } from '../support/until.ts'

const LISTEN = 'listen: [/ip4/127.0.0.1/tcp/0]'
/** What a process that waits may use of a processor. Looking for a device four times a second takes far less. */
const MAX_WAITING_CPU = 0.15
const WAITED_MS = 1_500
/** Of /proc/PID/stat, in every Linux there is. */
const TICKS_PER_SECOND = 100

interface Status {
  ports: { state: string; holder?: string }[]
  links: { state: string; reason?: string }[]
}

async function status(home: string): Promise<Status> {
  const { stdout, code, stderr } = await farport(['status', '--json', '--home', home])
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout) as Status
}

/** `farport up` on both machines: the device as a port of one, and a PTY of the other. */
async function farportsUp(homes: TwoHomes, device: string) {
  await homes.grant('ports=*')
  await writeFile(join(homes.agentHome, 'farport.yaml'), `${LISTEN}\nports: {echo: ${device}}\n`)
  const agent = homes.start(['up', '--home', homes.agentHome])
  await homes.reach(((await agent.event('ready')) as unknown as { addresses: string[] }).addresses)
  const link = homes.path('link')
  await writeFile(join(homes.clientHome, 'farport.yaml'), `links: [{port: a/echo, pty: ${link}}]\n`)
  const client = homes.start(['up', '--home', homes.clientHome])
  await client.event('ready')
  return { agent, client, link }
}

/** Seconds of processor that a process has used. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

test('the device is unplugged while a program has the port: it goes on when the device is back', {
  timeout: 60_000,
  skip: process.platform !== 'linux' && 'needs PTYs of Linux',
}, async () => {
  await using homes = await TwoHomes.make()
  const pluggable = homes.use(new Pluggable(homes.path('device')))
  await pluggable.plug()
  const { agent, client, link } = await farportsUp(homes, pluggable.path)
  const slave = readlinkSync(link)
  await using program = await linuxPort(link).open({ settings: { baudRate: 57_600, stopBits: 2 } })
  await exchange(program, pluggable.device.master, 50_000)
  await client.event('link', ({ state }) => state === 'up')

  await pluggable.unplug()
  await client.event('link', ({ state }) => state === 'absent')
  const [there, here] = [await status(homes.agentHome), await status(homes.clientHome)]
  assert.deepEqual([there.ports[0]?.state, there.ports[0]?.holder], ['waiting', 'client'])
  assert.deepEqual([here.links[0]?.state, here.links[0]?.reason], ['waiting', 'its device is not there'])
  assert.match(
    (await farport(['status', '--home', homes.clientHome])).stdout,
    /waiting.*its device is not there/,
  )

  // Asked for while there is no device, and written to it.
  await program.configure({ baudRate: 19_200 })
  program.write('held')
  const before = [agent.pid, client.pid].map(cpuSeconds)
  await delay(WAITED_MS)
  for (const [i, pid] of [agent.pid, client.pid].entries()) {
    const share = (cpuSeconds(pid) - (before[i] ?? 0)) / (WAITED_MS / 1000)
    assert.ok(share < MAX_WAITING_CPU, `process ${pid} uses ${share} of a processor while it waits`)
  }

  const { master, termios } = await pluggable.plug()
  let ups = 0
  await client.event('link', ({ state }) => state === 'up' && ++ups === 2)
  assert.equal(String((await once(master, 'data'))[0]), 'held')
  master.pause()
  await until('the settings are on the new device', () => termios().ospeed === 19_200)
  await exchange(program, master, 50_000)
  assert.equal(readlinkSync(link), slave)
  assert.equal((await status(homes.agentHome)).ports[0]?.state, 'open')
  assert.equal((await status(homes.clientHome)).links[0]?.state, 'up')
})

test('a program that comes before the device waits for it, and the link says for what', {
  timeout: 60_000,
  skip: process.platform !== 'linux' && 'needs PTYs of Linux',
}, async () => {
  await using homes = await TwoHomes.make()
  const pluggable = homes.use(new Pluggable(homes.path('device')))
  const { client, link } = await farportsUp(homes, pluggable.path)
  {
    await using _early = await linuxPort(link).open({})
    await client.event('link', ({ state, reason }) => state === 'down' && /is not there/.test(String(reason)))
    const [here] = (await status(homes.clientHome)).links
    assert.equal(here?.state, 'down')
    assert.match(here?.reason ?? '', /device is not there/)
  }
  while ((await status(homes.clientHome)).links[0]?.state !== 'idle');

  await using program = await linuxPort(link).open({})
  const { master } = await pluggable.plug()
  await client.event('link', ({ state }) => state === 'up')
  await exchange(program, master, 10_000)
})

test('a program on a local RFC 2217 port sees the lines fall and rise, keeps its masks, and stays connected', {
  timeout: 30_000,
}, async () => {
  const log = pino({ level: 'silent' })
  const { a, b } = nullModemSources('test')
  let near: MemoryPort | undefined
  const source: PortSource = {
    ...a,
    open: async (options) => {
      near = (await a.open(options)) as MemoryPort
      return near
    },
  }
  await using pair = new SessionPair({ port: source })
  await using far = (await b.open({})) as MemoryPort
  await using local = await listenTcp({ host: '127.0.0.1', port: 0, mode: 'rfc2217', log }, (signal) =>
    pair.open('port', { signal }),
  )
  const port = Number(local.address.split(':')[1])
  await using program = await foreignPort({ host: '127.0.0.1', port }, { log }).open({})
  let states = 0
  program.on('state', () => states++)
  await until('all is high', () => program.lines.dsr && program.lines.dcd && program.lines.cts)
  const seen: InputLines[] = []
  program.on('lines', (lines) => seen.push(lines))
  await program.configure({ baudRate: 1200 })

  near?.unplug()
  await until('all is low', () => Object.values(program.lines).every((on) => !on))
  assert.deepEqual(pair.events.at(-1), { state: 'absent' })
  assert.equal(formatSettings(await program.configure({ parity: 'even' })), '1200 8E1')
  await program.setLines({ rts: false })

  near?.plug()
  await until('all is high again', () => program.lines.dsr && program.lines.dcd && program.lines.cts)
  assert.equal(pair.events.at(-1)?.state, 'up')
  await until('what was asked for meanwhile is so', () => !far.lines.cts && near?.settings.parity === 'even')
  await exchange(program, far, 20_000)
  assert.equal(states, 0, 'the program has lost its connection')
  assert.ok(seen.length >= 2)
})
