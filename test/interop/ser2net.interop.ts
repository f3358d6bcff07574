import { test } from 'node:test'
import { CFLAG } from '../../src/device/termios.ts'
import { FarDevice } from '../support/far-device.ts'
import { unlessThere } from '../support/needed-programs.ts'
import { missingPyserial, Pyserial } from '../support/pyserial.ts'
import { startSer2net } from '../support/ser2net.ts'

const noPyserial = missingPyserial()
if (noPyserial !== undefined && process.env.CI) throw new Error(noPyserial)

test("ser2net as RFC 2217 client, and pyserial at ser2net: what pyserial sets passes both and is the device's", {
  skip: unlessThere('ser2net') || noPyserial || false,
  timeout: 60_000,
}, async () => {
  await using device = await FarDevice.behind('--rfc2217', '127.0.0.1:0')
  await using ser2net = await startSer2net(
    device.homes.path('ser2net.yaml'),
    `telnet(rfc2217),tcp,${device.at.replace(':', ',')}`,
  )
  device.echoes()
  await using program = await Pyserial.open(`rfc2217://${ser2net.at}`, { baudrate: 19_200 })
  await device.runsAt(19_200)
  await program.set({ baudrate: 230_400 })
  await device.runsAt(230_400)
  await program.set({ stopbits: 2 })
  await device.shows('2 stop bits', ({ cflag }) => (cflag & CFLAG.CSTOPB) !== 0)
  await program.set({ parity: 'O' })
  await device.shows('odd parity', ({ cflag }) => (cflag & CFLAG.PARODD) !== 0)
  await program.set({ dtr: false, rts: false })
  await program.set({ dtr: true, rts: true })
  const { sent, received } = await program.tell({ exchange: 100_000 })
  if (sent !== received) throw new Error('what comes back is not what was sent')
})
