import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { CFLAG, IFLAG, type Termios2 } from '../../src/device/termios.ts'
import { receive, send } from '../support/exchange.ts'
import { type PtyPair, ptyPair } from '../support/pty-pair.ts'
import { missingPyserial, Pyserial } from '../support/pyserial.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'
import { TwoHomes } from '../support/two-homes.ts'

const missing = missingPyserial()
if (missing !== undefined && process.env.CI) throw new Error(missing)
const options = { skip: missing ?? false, timeout: 120_000 }

/** A device on a PTY, shared by one farport and used through another by pyserial. */
async function path(...endpoint: string[]): Promise<{ homes: TwoHomes; device: PtyPair; at: string }> {
  const homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  await homes.grant('ports=echo')
  await homes.share(`${device.slavePath}=echo`)
  const client = await homes.connect(
    'a/echo',
    ...endpoint.map((word) => word.replace('LINK', homes.path('link'))),
  )
  return { homes, device, at: client.links[0]?.at ?? '' }
}

/** How long it takes until the device's line is as wanted. */
async function shows(
  t: TestContext,
  device: PtyPair,
  what: string,
  wanted: (termios: Termios2) => boolean,
): Promise<void> {
  const start = performance.now()
  while (!wanted(device.termios())) {
    if (performance.now() - start > 2_000) assert.fail(`after 2 s the device's termios does not show ${what}`)
    await delay(1)
  }
  t.diagnostic(
    `${what}: seen by the device ${Math.round(performance.now() - start)} ms after pyserial's call had returned`,
  )
}

const flags = (termios: Termios2, mask: number) => (termios.cflag & mask) >>> 0

async function settingsFollow(t: TestContext, program: Pyserial, device: PtyPair): Promise<void> {
  for (const baudrate of [9600, 115_200, 1_000_000, 123_456]) {
    await program.set({ baudrate })
    await shows(
      t,
      device,
      `${baudrate} baud`,
      (termios) => termios.ospeed === baudrate && termios.ispeed === baudrate,
    )
  }
  await program.set({ stopbits: 2 })
  await shows(t, device, '2 stop bits', (termios) => flags(termios, CFLAG.CSTOPB) !== 0)
  await program.set({ stopbits: 1 })
  await shows(t, device, '1 stop bit', (termios) => flags(termios, CFLAG.CSTOPB) === 0)
  await program.set({ rtscts: true })
  await shows(t, device, 'RTS/CTS', (termios) => flags(termios, CFLAG.CRTSCTS) !== 0)
  await program.set({ rtscts: false, xonxoff: true })
  await shows(
    t,
    device,
    'XON/XOFF',
    (termios) =>
      flags(termios, CFLAG.CRTSCTS) === 0 &&
      (termios.iflag & IFLAG.IXON) !== 0 &&
      (termios.iflag & IFLAG.IXOFF) !== 0,
  )
  await program.set({ xonxoff: false })
  await shows(t, device, 'no flow control', (termios) => (termios.iflag & (IFLAG.IXON | IFLAG.IXOFF)) === 0)
}

async function bytesPass(program: Pyserial, device: PtyPair): Promise<void> {
  const total = 8 * 1024 * 1024
  const [{ sent, received }, toProgram, atDevice] = await Promise.all([
    program.tell({ exchange: total }),
    send(device.master, total),
    receive(device.master, total),
  ])
  assert.equal(atDevice, sent)
  assert.equal(received, toProgram)
}

test('pyserial on the PTY: settings follow', options, async (t) => {
  const { homes, device, at } = await path('--pty', 'LINK')
  await using _ = homes
  await using program = await Pyserial.open(at, { baudrate: 19_200 })
  await shows(t, device, '19200 baud at open', (termios) => termios.ospeed === 19_200)
  await settingsFollow(t, program, device)
})

test('pyserial on the PTY: 8 MiB both ways', options, async () => {
  const { homes, device, at } = await path('--pty', 'LINK')
  await using _ = homes
  await using program = await Pyserial.open(at, { baudrate: 115_200 })
  await bytesPass(program, device)
})

test(
  'pyserial on the local RFC 2217 port, without ign_set_control: settings follow, parity and data bits too',
  options,
  async (t) => {
    const { homes, device, at } = await path('--rfc2217', '127.0.0.1:0')
    await using _ = homes
    const start = performance.now()
    await using program = await Pyserial.open(`rfc2217://${at}`, { baudrate: 19_200 })
    t.diagnostic(`opened in ${Math.round(performance.now() - start)} ms, Python's start included`)
    await shows(t, device, '19200 baud at open', (termios) => termios.ospeed === 19_200)
    await settingsFollow(t, program, device)
    // A PTY keeps eight bits and no parity whatever is asked, but the kind of parity shows in its termios.
    await program.set({ parity: 'O' })
    await shows(
      t,
      device,
      'odd parity',
      (termios) => flags(termios, CFLAG.PARODD | CFLAG.CMSPAR) === CFLAG.PARODD,
    )
    await program.set({ parity: 'M' })
    await shows(
      t,
      device,
      'mark parity',
      (termios) => flags(termios, CFLAG.PARODD | CFLAG.CMSPAR) === (CFLAG.PARODD | CFLAG.CMSPAR) >>> 0,
    )
    for (const parity of ['E', 'S', 'N']) await program.set({ parity })
    for (const bytesize of [5, 6, 7, 8]) await program.set({ bytesize })
    await program.set({ parity: 'E', bytesize: 7 })
    await program.set({ dtr: false, rts: false })
    await program.set({ dtr: true, rts: true })
    await program.set({ break_condition: true })
    await program.set({ break_condition: false })
    assert.equal(typeof (await program.tell({ get: ['cts'] })).cts, 'boolean')
  },
)

test('pyserial on the local RFC 2217 port: 8 MiB both ways', options, async () => {
  const { homes, device, at } = await path('--rfc2217', '127.0.0.1:0')
  await using _ = homes
  await using program = await Pyserial.open(`rfc2217://${at}`, { baudrate: 115_200 })
  await bytesPass(program, device)
})

test(
  'pyserial can open the RFC 2217 port again and again, and after the connection was lost',
  options,
  async () => {
    await using homes = await TwoHomes.make()
    await homes.grant('ports=echo')
    const agent = await homes.share('simulated:echo=echo')
    const proxy = homes.use(await TcpProxy.to(Number(/tcp\/(\d+)/.exec(agent.addresses[0] ?? '')?.[1])))
    await homes.reach([`/ip4/127.0.0.1/tcp/${proxy.port}`])
    const client = await homes.connect('a/echo', '--rfc2217', '127.0.0.1:0')
    for (let i = 0; i < 3; i++) {
      await using program = await Pyserial.open(`rfc2217://${client.links[0]?.at}`, { baudrate: 115_200 })
      const { sent, received } = await program.tell({ exchange: 10_000 })
      assert.equal(received, sent)
      assert.deepEqual(await program.tell({ get: ['cts', 'dsr'] }), { cts: true, dsr: true })
      proxy.cut()
    }
    assert.ok(proxy.connections > 1)
  },
)
