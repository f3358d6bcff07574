import { mkdirSync } from 'node:fs'
import { test } from 'node:test'
import { LFLAG } from '../../src/device/termios.ts'
import { FarDevice } from '../support/far-device.ts'
import { unlessThere } from '../support/needed-programs.ts'
import { Terminal } from '../support/terminal.ts'
import { until } from '../support/until.ts'

/** The programs people sit in front of, in a terminal of their own and on farport's PTY. */

interface TerminalProgram {
  readonly name: string
  /** What is typed at the shell. */
  command(link: string, baudRate: number): string
  /** To be read once it has the port. */
  readonly open: RegExp
  /** The keys that leave it. */
  leave(terminal: Terminal): Promise<void>
  /** Changes the speed from within, to 57600, where the program can. */
  change?(terminal: Terminal): Promise<void>
}

const CTRL_A = '\x01'
const CTRL_T = '\x14'

const programs: readonly TerminalProgram[] = [
  {
    name: 'tio',
    command: (link, baudRate) => `tio -b ${baudRate} ${link}`,
    open: /Connected/,
    async leave(terminal) {
      terminal.type(`${CTRL_T}q`)
    },
  },
  {
    name: 'picocom',
    command: (link, baudRate) => `picocom -b ${baudRate} ${link}`,
    open: /Terminal ready/,
    async leave(terminal) {
      terminal.type(`${CTRL_A}\x18`)
    },
    async change(terminal) {
      terminal.type(`${CTRL_A}\x02`)
      await terminal.reads(/\*\*\* baud: $/)
      terminal.type('57600\r')
    },
  },
  {
    name: 'minicom',
    command: (link, baudRate) => `minicom -o -b ${baudRate} -D ${link}`,
    open: /CTRL-A Z/,
    async leave(terminal) {
      terminal.type(`${CTRL_A}q`)
      await terminal.reads(/Leave without reset\?/)
      terminal.type('\r')
    },
  },
  {
    name: 'screen',
    command: (link, baudRate) => `screen -c /dev/null ${link} ${baudRate}`,
    // It clears the window.
    open: /\[H/,
    async leave(terminal) {
      terminal.type(`${CTRL_A}k`)
      await terminal.reads(/Really kill this window/)
      terminal.type('y')
    },
  },
]

for (const program of programs) {
  test(`${program.name} on the PTY: bytes both ways, its speed at the device, left and entered again`, {
    skip: unlessThere(program.name),
    timeout: 90_000,
  }, async () => {
    await using device = await FarDevice.behind('--pty', 'LINK')
    const home = device.homes.path('person')
    mkdirSync(home, { mode: 0o700 })
    await using terminal = await Terminal.open(home, { HOME: home, SCREENDIR: home })
    for (const [turn, baudRate] of [19_200, 9600].entries()) {
      terminal.run(program.command(device.at, baudRate))
      await terminal.reads(program.open)
      await device.runsAt(baudRate)
      // What is typed before it has made the terminal raw is thrown away then.
      await until('it takes keys', () => (terminal.modes.lflag & LFLAG.ICANON) === 0)
      terminal.type(`question ${turn}\r`)
      await device.hears(`question ${turn}\r`)
      device.says(`answer ${turn}\r\n`)
      await terminal.reads(new RegExp(`answer ${turn}`))
      if (program.change !== undefined) {
        await program.change(terminal)
        await device.runsAt(57_600)
      }
      await program.leave(terminal)
      await terminal.status()
    }
  })
}
