import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Share } from '../../src/config/config.ts'
import { SharedPorts } from '../../src/daemon/shared-ports.ts'
import { createLog } from '../../src/log.ts'
import { parseReset } from '../../src/serial/line-sequence.ts'

const log = createLog('silent')

test('what a port was told reaches what shares it', async () => {
  const reset = parseReset('esp32')
  assert.ok(reset)
  const shares: Share[] = [
    {
      name: 'told',
      device: 'simulated:echo',
      line: { baudRate: 19_200, dataBits: 7, parity: 'even', stopBits: 1 },
      flow: 'rtscts',
      onOpen: { dtr: true },
      onClose: { rts: false },
      openString: 'hi',
      closeString: 'bye',
      banner: 'welcome',
      idleTimeoutMs: 100,
      watchers: 4,
      replayBytes: 5,
      reset,
      pack: { gapMs: 2 },
    },
  ]
  const [port] = (await SharedPorts.start(shares, { log })).ports
  const { source, ...told } = port ?? {}
  assert.equal(source?.description.path, 'simulated:echo')
  assert.deepEqual(told, {
    name: 'told',
    banner: 'welcome',
    idleTimeoutMs: 100,
    watchers: 4,
    replayBytes: 5,
    reset,
    pack: { gapMs: 2 },
    habits: {
      settings: {
        baudRate: 19_200,
        dataBits: 7,
        parity: 'even',
        stopBits: 1,
        outputFlow: 'rtscts',
        inputFlow: 'rtscts',
      },
      openLines: { dtr: true },
      closeLines: { rts: false },
      openString: 'hi',
      closeString: 'bye',
    },
  })
})
