import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { PtyDevice } from '../../src/endpoints/pty-device.ts'

const skip = process.platform === 'linux' ? false : 'PTYs with packet mode are Linux'
const bytes = 70_000

test('a program is seen to leave though nobody reads what it wrote, and none of it is lost', {
  skip,
  timeout: 10_000,
}, async () => {
  await using device = new PtyDevice({ mode: 0o600 })
  assert.ok(bytes > device.stream.readableHighWaterMark)
  const states: string[] = []
  device.on('state', (state) => states.push(state))
  const program = spawn('sh', ['-c', `head -c ${bytes} /dev/zero > "$0"`, device.path], { timeout: 5_000 })
  await once(program, 'close')
  if (device.state !== 'idle') await once(device, 'state')
  assert.deepEqual(states, ['open', 'idle'])
  assert.equal(device.vacant, false)
  assert.deepEqual(device.stream.read(), Buffer.alloc(bytes))
  assert.equal(device.vacant, true)
})
