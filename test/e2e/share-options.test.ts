import assert from 'node:assert/strict'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

test('a device may hold "=" where a name follows, and a comma where it is doubled', async () => {
  await using homes = await TwoHomes.make()
  const expected: [written: string, port: string, device: string][] = [
    ['/none/a=b=board,reset=esp32,pack.gap=2ms', 'board', '/none/a=b'],
    ['/none/with,,comma=comma,pack.until=,,', 'comma', '/none/with,comma'],
    ['/none/x,,y=z,reset=dtr-/100ms/dtr+', 'z', '/none/x,y'],
  ]
  const agent = await homes.share(...expected.map(([written]) => written))
  for (const [, port, device] of expected)
    assert.equal((await agent.event('absent', (event) => event.port === port)).device, device)
})

test('a mistake in an option ends with its name and what would be right', async () => {
  const mistakes: [device: string, message: RegExp][] = [
    ['/dev/null=x,rest=esp32', /“rest” is no option of a shared port: there are reset=/],
    ['/dev/null=x,reset', /"reset" is no OPTION=VALUE: write for example reset=esp32/],
    ['/dev/null,pack.gap=2', /pack\.gap= is something like 2ms/],
    ['/dev/null,x=a,b', /"b" is no OPTION=VALUE.*a comma that belongs to the device twice/],
    [',reset=esp32', /names no device/],
  ]
  await using homes = await TwoHomes.make()
  for (const [device, message] of mistakes) {
    const { code, stderr } = await farport(['share', device, '--home', homes.agentHome])
    assert.equal(code, 2, device)
    assert.match(stderr, message)
  }
})
