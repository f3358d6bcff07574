import { test } from 'node:test'
import { travel } from '../support/journey.ts'
import { whyNoNatLab } from '../support/nat-lab.ts'

const skip =
  whyNoNatLab() ??
  (process.env.FARPORT_NAT === 'all' ? false : 'takes half a minute: FARPORT_NAT=all runs it')

test('one open PTY at 921600 baud, through all that can happen to a path: every byte, once', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { bytes } = await travel(Number(process.env.FARPORT_JOURNEY_CALM_MS ?? 1_000), (stage) => {
    t.diagnostic(`${stage.event} (was ${stage.path}): longest silence ${stage.longestSilenceMs} ms`)
  })
  t.diagnostic(`${bytes.up} bytes to the device, ${bytes.down} from it`)
})
