import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { IFLAG } from '../../src/device/termios.ts'
import { farport } from '../support/cli.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { until } from '../support/until.ts'

const skip = process.platform === 'linux' ? false : 'only Linux has these PTYs'

/** A device on a PTY that `farport up` shares as `device`, with these keys besides. */
async function shared(homes: TwoHomes, ...keys: string[]) {
  const pty = homes.use(ptyPair())
  let heard = ''
  pty.master.on('data', (bytes: Buffer) => {
    heard += bytes.toString('latin1')
  })
  const ports = ['ports:', '  device:', `    device: ${pty.slavePath}`, ...keys.map((key) => `    ${key}`)]
  const yaml = ['listen: [/ip4/127.0.0.1/tcp/0]', 'defaults: {replay: 0}', ...ports, '']
  await writeFile(join(homes.agentHome, 'farport.yaml'), yaml.join('\n'))
  await homes.grant('ports=*')
  const agent = homes.start(['up', '--home', homes.agentHome])
  const { addresses } = (await agent.event('ready')) as unknown as { addresses: string[] }
  await homes.reach(addresses)
  return { pty, heard: () => heard }
}

async function program(at = ''): Promise<Socket & { got: string }> {
  const socket = connect(Number(at.split(':')[1]), '127.0.0.1')
  const seen = Object.assign(socket, { got: '' })
  socket.on('data', (bytes: Buffer) => {
    seen.got += bytes.toString('latin1')
  })
  await once(socket, 'connect')
  return seen
}

test('speed, first and last words of a device, and a banner for who uses it', {
  skip,
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const { pty, heard } = await shared(
    homes,
    'line: 19200-8E1',
    'flow: xonxoff',
    'open-string: "ATZ\\\\r"',
    "close-string: '+++\\x1b'",
    'banner: "welcome\\\\r\\\\n"',
  )
  const client = await homes.connect('a/device', '--raw', ':0')
  const one = await program(client.links[0]?.at)
  await until('the banner', () => one.got === 'welcome\r\n')
  assert.equal(heard(), 'ATZ\r')
  assert.equal(pty.termios().ospeed, 19_200)
  assert.notEqual(pty.termios().iflag & IFLAG.IXON, 0)
  one.end('x')
  await until('the last word', () => heard() === 'ATZ\rx+++\x1b')
})

test('who uses a port without a byte for too long loses it, and does not take it back', {
  skip,
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const { pty } = await shared(homes, 'idle-timeout: 3s')
  const client = homes.start(['connect', 'a/device', '--raw', ':0', '--home', homes.clientHome])
  const { links } = (await client.event('ready')) as unknown as { links: { at: string }[] }
  const one = await program(links[0]?.at)
  // Bytes either way keep it.
  for (let i = 0; i < 12; i++) {
    const before = one.got.length
    pty.master.write('.')
    await until('a byte', () => one.got.length > before)
    await new Promise((resolve) => setTimeout(resolve, 300))
  }
  assert.equal(one.destroyed, false)
  assert.equal(await client.ended, 4)
})

test('no more may watch than the owner lets', { skip, timeout: 60_000 }, async () => {
  await using homes = await TwoHomes.make()
  await shared(homes, 'watchers: 0')
  const watching = await farport(['connect', 'a/device', '--watch', '--stdio', '--home', homes.clientHome])
  assert.equal(watching.code, 4)
  assert.match(watching.stderr, /as many watchers as it can have/)
})
