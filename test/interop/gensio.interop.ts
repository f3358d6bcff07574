import { test } from 'node:test'
import { CFLAG, IFLAG, LFLAG } from '../../src/device/termios.ts'
import { FarDevice } from '../support/far-device.ts'
import { unlessThere } from '../support/needed-programs.ts'
import { Terminal } from '../support/terminal.ts'
import { until } from '../support/until.ts'

/** gensiot's escape character, as a person types it. */
const ESCAPE = '\x1c'

test('gensiot as RFC 2217 client: bytes both ways, what is set in it at the device, left and entered again', {
  skip: unlessThere('gensiot'),
  timeout: 90_000,
}, async () => {
  await using device = await FarDevice.behind('--rfc2217', '127.0.0.1:0')
  await using terminal = await Terminal.open(device.homes.dir, {})
  for (const [turn, baudRate] of [115_200, 12_345].entries()) {
    terminal.run(`gensiot 'telnet(rfc2217),tcp,${device.at.replace(':', ',')}'`)
    // What is typed before it has made the terminal raw is thrown away then.
    await until('gensiot takes keys', () => (terminal.modes.lflag & LFLAG.ICANON) === 0)
    terminal.type(`question ${turn}\r`)
    await device.hears(`question ${turn}\r`)
    device.says(`answer ${turn}\r\n`)
    await terminal.reads(new RegExp(`answer ${turn}`))
    terminal.type(`${ESCAPE}s${baudRate}\n`)
    await device.runsAt(baudRate)
    terminal.type(`${ESCAPE}2`)
    await device.shows('2 stop bits', ({ cflag }) => (cflag & CFLAG.CSTOPB) !== 0)
    terminal.type(`${ESCAPE}o`)
    await device.shows('odd parity', ({ cflag }) => (cflag & CFLAG.PARODD) !== 0)
    terminal.type(`${ESCAPE}r`)
    await device.shows('RTS/CTS', ({ cflag }) => (cflag & CFLAG.CRTSCTS) !== 0)
    terminal.type(`${ESCAPE}x`)
    await device.shows('XON/XOFF', ({ iflag }) => (iflag & IFLAG.IXON) !== 0)
    terminal.type(`${ESCAPE}f`)
    await device.shows(
      'no flow control',
      ({ cflag, iflag }) => ((cflag & CFLAG.CRTSCTS) | (iflag & IFLAG.IXON)) === 0,
    )
    terminal.type(`${ESCAPE}1`)
    await device.shows('1 stop bit', ({ cflag }) => (cflag & CFLAG.CSTOPB) === 0)
    terminal.type(`${ESCAPE}n`)
    await device.shows('no parity', ({ cflag }) => (cflag & CFLAG.PARODD) === 0)
    terminal.type(`${ESCAPE}q`)
    await terminal.status()
  }
})
