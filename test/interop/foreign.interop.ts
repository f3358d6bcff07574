/** Other people's serial servers, shared over farport: what they give arrives, and they may be restarted. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { CFLAG } from '../../src/device/termios.ts'
import { receive, send } from '../support/exchange.ts'
import { freePort } from '../support/free-port.ts'
import { unlessThere } from '../support/needed-programs.ts'
import { type PtyPair, ptyPair } from '../support/pty-pair.ts'
import { missingPyserial, Pyserial } from '../support/pyserial.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { until } from '../support/until.ts'

/** Debian's python3-serial has it among its examples. */
const PYSERIAL_SERVER = '/usr/share/doc/python3-serial/examples/rfc2217_server.py'

/** It sets DTR and RTS when somebody connects and fails where there are none, as on a PTY: here it may believe in them. */
const WITHOUT_LINES = `
import runpy, serial, sys
class Port(serial.Serial):
    def _update_dtr_state(self): pass
    def _update_rts_state(self): pass
    cts = dsr = ri = cd = property(lambda self: False)
def port(url, do_not_open=False, **options):
    made = Port(None, **options)
    made.port = url
    return made
serial.serial_for_url = port
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
`

const noPyserial = missingPyserial()
const noServer =
  noPyserial ?? (existsSync(PYSERIAL_SERVER) ? undefined : 'python3-serial came without its examples')

interface Foreign {
  readonly name: string
  readonly skip: string | false
  /** The command that serves `device` on the port; `file` may be written. */
  command(port: number, device: string, file: string): Promise<readonly [string, ...string[]]>
  /** How much it carries at once without losing any, in bytes. */
  readonly bulkBytes: number
}

const servers: Foreign[] = [
  {
    name: 'ser2net',
    skip: unlessThere('ser2net'),
    async command(port, device, file) {
      const lines = [
        `accepter: telnet(rfc2217),tcp,127.0.0.1,${port}`,
        `connector: serialdev,${device},9600n81,local`,
      ]
      await writeFile(file, `connection: &device\n${lines.map((line) => `  ${line}\n`).join('')}`)
      return ['/usr/sbin/ser2net', '-n', '-d', '-c', file]
    },
    bulkBytes: 256 * 1024,
  },
  {
    name: 'sredird behind socat',
    skip: unlessThere('sredird', 'socat'),
    command: async (port, device, file) => [
      'socat',
      `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork,nodelay`,
      `EXEC:/usr/sbin/sredird 3 ${device} ${file} 20`,
    ],
    // It has no flow control towards the network: what comes faster than the device reads is lost.
    bulkBytes: 400,
  },
  {
    name: 'pyserial’s server',
    skip: noServer ?? false,
    command: async (port, device) => [
      '/usr/bin/python3',
      ...['-c', WITHOUT_LINES, PYSERIAL_SERVER, '-p', String(port), device],
    ],
    bulkBytes: 256 * 1024,
  },
]

for (const server of servers) {
  const options = { skip: server.skip || noPyserial || false, timeout: 30_000 }

  test(`${server.name}, shared: settings and bytes arrive, also after its restart`, options, async (t) => {
    await using homes = await TwoHomes.make()
    const device = homes.use(ptyPair())
    const port = await freePort()
    const start = async () =>
      await serving(port, await server.command(port, device.slavePath, homes.path('ser2net.yaml')))
    let running = await start()
    homes.use({ [Symbol.asyncDispose]: () => running[Symbol.asyncDispose]() })
    await homes.grant('ports=plc')
    await homes.share(`rfc2217://127.0.0.1:${port}=plc`)
    const client = await homes.connect('a/plc', '--rfc2217', '127.0.0.1:0')

    const opening = performance.now()
    // A server that has just been looked at may be busy with that for some seconds.
    const url = `rfc2217://${client.links[0]?.at}?timeout=15`
    await using program = await Pyserial.open(url, { baudrate: 19_200 })
    t.diagnostic(
      `pyserial opened it in ${Math.round(performance.now() - opening)} ms, Python's start included`,
    )
    await shows(device, 19_200)
    await program.set({ baudrate: 115_200 })
    await shows(device, 115_200)
    await program.set({ stopbits: 2 })
    await until('2 stop bits', () => (device.termios().cflag & CFLAG.CSTOPB) !== 0)
    await program.set({ dtr: false, rts: false })
    await program.set({ dtr: true })
    await program.tell({ call: 'reset_input_buffer' })
    await bytesPass(program, device, server.bulkBytes)

    await running[Symbol.asyncDispose]()
    device.setTermios((termios) => termios.setSpeed(9600))
    running = await start()
    const restarted = performance.now()
    await shows(device, 115_200)
    took(t, 'the settings were back', restarted)
    await bytesPass(program, device, server.bulkBytes)
  })
}

test('a raw TCP port, shared: bytes arrive, settings are taken, also after its restart', {
  skip: unlessThere('socat') || noPyserial || false,
  timeout: 30_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const device = homes.use(ptyPair())
  const port = await freePort()
  const listen = `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork,nodelay`
  const start = () => serving(port, ['socat', listen, `${device.slavePath},raw,echo=0`])
  let running = await start()
  homes.use({ [Symbol.asyncDispose]: () => running[Symbol.asyncDispose]() })
  await homes.grant('ports=*')
  await homes.share(`tcp://127.0.0.1:${port}`)
  const client = await homes.connect(`a/127.0.0.1-${port}`, '--rfc2217', '127.0.0.1:0')
  await using program = await Pyserial.open(`rfc2217://${client.links[0]?.at}`, { baudrate: 19_200 })
  await program.set({ parity: 'E', bytesize: 7, dtr: false, break_condition: false })
  await bytesPass(program, device, 256 * 1024)
  await running[Symbol.asyncDispose]()
  running = await start()
  await bytesPass(program, device, 64 * 1024)
})

/** A server on this port, with whatever it forks. Disposal ends them all. */
async function serving(port: number, [command, ...args]: readonly string[]): Promise<AsyncDisposable> {
  const child = spawn(command ?? '', args, { detached: true, stdio: 'ignore' })
  const closed = once(child, 'close')
  const listens = new RegExp(`:${port.toString(16).toUpperCase().padStart(4, '0')} \\S+ 0A `)
  const sockets = () => ['tcp', 'tcp6'].map((kind) => readFileSync(`/proc/net/${kind}`, 'latin1')).join('')
  // Asked by connecting, it would open its device, and be busy.
  await until(`${command} listens on port ${port}`, () => listens.test(sockets()))
  return {
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
      process.kill(-child.pid, 'SIGKILL')
      await closed
    },
  }
}

async function shows(device: PtyPair, baudRate: number): Promise<void> {
  await until(`${baudRate} baud on the device`, () => device.termios().ospeed === baudRate)
}

function took(t: TestContext, what: string, sinceMs: number): void {
  t.diagnostic(`${what} after ${Math.round(performance.now() - sinceMs)} ms`)
}

async function bytesPass(program: Pyserial, device: PtyPair, total: number): Promise<void> {
  const [{ sent, received }, toProgram, atDevice] = await Promise.all([
    program.tell({ exchange: total }),
    send(device.master, total),
    receive(device.master, total),
  ])
  assert.equal(atDevice, sent)
  assert.equal(received, toProgram)
}
