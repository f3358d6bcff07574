import assert from 'node:assert/strict'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

test('share and invite in one paste: the invite waits for the farport that is only starting', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const share = ['share', 'simulated:gps=gps', '--listen', '/ip4/127.0.0.1/tcp/0']
  homes.start([...share, '--home', homes.agentHome])
  const invite = homes.start(['invite', '--home', homes.agentHome])
  const { ports, text } = (await invite.event('invite')) as unknown as { ports: string[]; text: string }
  // Which it can only have from the other.
  assert.deepEqual(ports, ['gps'])
  const paired = await farport(['pair', '--home', homes.clientHome], { input: text })
  assert.equal(paired.code, 0, paired.stderr)
  assert.equal(await invite.ended, 0)
})
