import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { linuxPort } from '../../src/device/linux-port.ts'
import { unlessThere } from '../support/needed-programs.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { Terminal } from '../support/terminal.ts'
import { until } from '../support/until.ts'

/** PTYs get lock files only where they are asked for. */
const LOCKS = { lockFolder: '/var/lock' }

/** Programs in front of the very device that farport shares. */
async function deviceAndTerminal() {
  const stack = new AsyncDisposableStack()
  const home = await mkdtemp(join(tmpdir(), 'farport-locks-'))
  stack.defer(() => rm(home, { recursive: true }))
  const pty = stack.use(ptyPair())
  const terminal = stack.use(await Terminal.open(home, { HOME: home }))
  const lock = `/var/lock/LCK..${pty.slavePath.replace('/dev/', '').replaceAll('/', '_')}`
  return { pty, terminal, lock, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

test('minicom and farport respect each other’s lock files', {
  skip: unlessThere('minicom'),
  timeout: 90_000,
}, async () => {
  await using there = await deviceAndTerminal()
  const { pty, terminal, lock } = there
  const minicom = `minicom -b 9600 -D ${pty.slavePath}`
  terminal.run(minicom)
  await terminal.reads(/CTRL-A Z/)
  const pid = Number.parseInt(await readFile(lock, 'latin1'), 10)
  await assert.rejects(linuxPort(pty.slavePath, LOCKS).open({}), {
    code: 'ERR_PORT_BUSY',
    message: `${pty.slavePath} is in use by minicom (process ${pid}), says ${lock}: end that program.`,
  })
  terminal.type('\x01q')
  await terminal.reads(/Leave without reset\?/)
  terminal.type('\r')
  await terminal.status()
  await until('minicom has taken its lock away', () => !existsSync(lock))

  await using port = await linuxPort(pty.slavePath, LOCKS).open({})
  assert.equal(await readFile(lock, 'latin1'), `${String(process.pid).padStart(10)}\n`)
  terminal.run(minicom)
  await terminal.reads(/Device \S+ is locked/)
  await terminal.status()
  await port[Symbol.asyncDispose]()
  assert.ok(!existsSync(lock))
})

test('picocom does not get a port that farport has, and farport names picocom', {
  skip: unlessThere('picocom'),
  timeout: 90_000,
}, async () => {
  await using there = await deviceAndTerminal()
  const { pty, terminal } = there
  const picocom = `picocom -q -b 9600 ${pty.slavePath}; true`
  {
    await using _port = await linuxPort(pty.slavePath).open({})
    terminal.run(picocom)
    await terminal.reads(/cannot (lock|open)/)
    await terminal.status()
  }
  terminal.run(`picocom -b 9600 ${pty.slavePath}`)
  await terminal.reads(/Terminal ready/)
  await assert.rejects(linuxPort(pty.slavePath).open({}), {
    code: 'ERR_PORT_BUSY',
    message: /is in use by picocom \(process \d+\): end that program\.$/,
  })
  terminal.type('\x01\x18')
  await terminal.status()
})
