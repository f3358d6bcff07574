import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { farport } from '../support/cli.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'

const skip = process.platform === 'linux' ? false : 'only Linux has these PTYs'

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
    ['/dev/null=x,rest=esp32', /“rest” is no option of a shared port: there are line=/],
    ['/dev/null=x,reset', /"reset" is no OPTION=VALUE: write for example reset=esp32/],
    ['/dev/null,pack.gap=2', /pack\.gap= is a length of time/],
    ['/dev/null,x=a,b', /"b" is no OPTION=VALUE.*a comma that belongs to the device twice/],
    [',reset=esp32', /names no device/],
    ['/dev/null=x-*', /\/dev\/null is one device, and a port with a \* in its name is for many/],
    ['usb:0403:*=a*b*', /"a\*b\*" can't be a port's name/],
  ]
  await using homes = await TwoHomes.make()
  for (const [device, message] of mistakes) {
    const { code, stderr } = await farport(['share', device, '--home', homes.agentHome])
    assert.equal(code, 2, device)
    assert.match(stderr, message)
  }
  const { code, stderr } = await farport(['share', '/dev/null', '--line', '9X', '--home', homes.agentHome])
  assert.equal(code, 2)
  assert.match(stderr, /--line is a line: data bits, parity and stop bits/)
})

test('a flag is for all ports, what a port says itself goes before', { skip, timeout: 60_000 }, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=*')
  const [one, two] = [homes.use(ptyPair()), homes.use(ptyPair())]
  await homes.share(
    ...[`${one.slavePath}=one`, `${two.slavePath}=two,line=4800-8N1,banner=mine`],
    ...['--line', '19200-8N1', '--banner', 'all\\r\\n', '--watchers', '0'],
  )
  for (const [pty, port, speed, banner] of [
    [one, 'one', 19_200, 'all\r\n'],
    [two, 'two', 4_800, 'mine'],
  ] as const) {
    const client = await homes.connect(`a/${port}`, '--raw', ':0')
    const socket = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1')
    assert.equal(String((await once(socket, 'data'))[0]), banner)
    assert.equal(pty.termios().ospeed, speed)
    socket.destroy()
    const watching = await farport(['connect', `a/${port}`, '--watch', '--stdio', '--home', homes.clientHome])
    assert.equal(watching.code, 4)
  }
})
