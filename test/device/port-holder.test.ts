import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeProcess, remedyFor } from '../../src/device/port-holder.ts'

test('for programs that take ports unasked the remedy is a command', () => {
  const table: [holder: string, remedy: RegExp][] = [
    ['ModemManager (process 9)', /sudo systemctl mask --now ModemManager/],
    ['brltty (process 9)', /sudo apt remove brltty/],
    ['agetty (process 9)', /sudo systemctl disable --now serial-getty@ttyUSB0$/],
    ['login (process 9)', /serial-getty@ttyUSB0$/],
    ['minicom (process 9)', /^end that program$/],
    ['process 9', /^end that program$/],
    ['this process', /^farport shares it/],
  ]
  for (const [holder, remedy] of table) assert.match(remedyFor(holder, '/dev/ttyUSB0'), remedy, holder)
})

test('a process is told by its name, or its number where it has none', async () => {
  assert.equal(await describeProcess(process.pid), `node (process ${process.pid})`)
  assert.equal(await describeProcess(2 ** 30), `process ${2 ** 30}`)
})
