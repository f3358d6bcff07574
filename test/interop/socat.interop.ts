import { test } from 'node:test'
import { CFLAG } from '../../src/device/termios.ts'
import { FarDevice } from '../support/far-device.ts'
import { unlessThere } from '../support/needed-programs.ts'
import { PeerProgram } from '../support/peer-program.ts'

const options = { skip: unlessThere('socat'), timeout: 60_000 }

async function talks(device: FarDevice, socat: PeerProgram, turn: number): Promise<void> {
  socat.types(`question ${turn}`)
  await device.hears(`question ${turn}`)
  device.says(`answer ${turn}`)
  await socat.says(`answer ${turn}`)
}

test(
  'socat on the PTY: bytes both ways, its speed and stop bits at the device, left and entered again',
  options,
  async () => {
    await using device = await FarDevice.behind('--pty', 'LINK')
    for (const [turn, baudRate] of [57_600, 1200].entries()) {
      await using socat = new PeerProgram('socat', ['-', `${device.at},rawer,b${baudRate},cstopb=1`])
      await device.runsAt(baudRate)
      await device.shows('2 stop bits', ({ cflag }) => (cflag & CFLAG.CSTOPB) !== 0)
      await talks(device, socat, turn)
    }
  },
)

test('socat on the raw TCP port: bytes both ways, left and entered again', options, async () => {
  await using device = await FarDevice.behind('--raw', '127.0.0.1:0')
  for (const turn of [0, 1]) {
    await using socat = new PeerProgram('socat', ['-', `TCP:${device.at}`])
    await talks(device, socat, turn)
  }
})
