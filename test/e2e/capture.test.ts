import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'
import { until } from '../support/until.ts'

/** Reads so many bytes of a tty as they are, and closes it. */
const READ = 'exec 3<>"$0"; stty raw -echo <&3; head -c "$1" <&3'

const config = (capture: string) => `listen: [/ip4/127.0.0.1/tcp/0]
ports:
  loop:
    device: simulated:echo
    open-string: "hi\\n"
${capture}`

test('farport up captures a port, a reload changes that under an open channel, and replay says it again', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=loop may=use,configure,lines')
  const yaml = homes.path('A/farport.yaml')
  await writeFile(yaml, config('    capture: {file: loop.hex, rotate: 4KiB}\n'))
  const agent = homes.start(['up', '--home', homes.agentHome])
  const { addresses } = (await agent.event('ready')) as unknown as { addresses: string[] }
  await homes.reach(addresses)
  const client = await homes.connect('a/loop', '--raw', '127.0.0.1:0')
  const program = connect(Number(client.links[0]?.at.split(':')[1]), '127.0.0.1').setEncoding('latin1')
  let got = ''
  program.on('data', (text) => {
    got += text
  })
  const echoed = async (text: string) => {
    program.write(text, 'latin1')
    await until(`${text} came back`, () => got.endsWith(text))
  }
  await echoed('caf\xe9 one')
  const hex = await readFile(homes.path('A/loop.hex'), 'utf8')
  assert.match(hex, /> 68 69 0a /, 'what the device is sent when it is opened')

  await writeFile(yaml, config('    capture: {file: loop.cast, format: asciicast}\n'))
  assert.equal((await farport(['reload', '--home', homes.agentHome])).code, 0)
  await echoed('two')
  const status = JSON.parse((await farport(['status', '--home', homes.agentHome, '--json'])).stdout) as {
    ports: { capture?: object; opens: number }[]
  }
  assert.deepEqual(status.ports[0]?.capture, {
    file: homes.path('A/loop.cast'),
    state: 'capturing',
    lost: 0,
  })
  assert.equal(status.ports[0]?.opens, 1, 'the port stayed open')
  program.destroy()
  await agent[Symbol.asyncDispose]()

  const replay = (file: string, ...flags: string[]) =>
    farport(['replay', homes.path(`A/${file}`), '--speed', 'max', ...flags])
  const first = await replay('loop.hex')
  assert.equal(first.code, 0, first.stderr)
  // Read as UTF-8, which one of its bytes is not.
  assert.equal(first.stdout, 'hi\ncaf\ufffd one')
  const second = await replay('loop.cast')
  assert.equal(second.stdout, 'two')

  const cut = await readFile(homes.path('A/loop.cast'))
  await writeFile(homes.path('A/cut.cast'), cut.subarray(0, cut.length - 5))
  const damaged = await replay('cut.cast')
  assert.equal(damaged.code, 1)
  assert.match(damaged.stderr, /cut\.cast could be played only so far: its last line is cut/)
  assert.equal((await replay('none')).code, 2)
})

test('replay into a virtual serial port: each program hears it from the beginning, and the last byte ends it', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const text = 'x'.repeat(16 * 12_500)
  const line = `2026-11-23T03:40:12.123456Z <${' 78'.repeat(16)}  |${'x'.repeat(16)}|\n`
  await writeFile(homes.path('c.hex'), `# farport capture of x\n${line.repeat(12_500)}`)
  const link = homes.path('tty')
  const replay = homes.start(['replay', homes.path('c.hex'), '--pty', link])
  await replay.event('ready')
  const read = async (bytes: number) => {
    const { stdout } = await promisify(execFile)('sh', ['-c', READ, link, String(bytes)])
    return stdout
  }
  assert.equal(await read(5_000), text.slice(0, 5_000))
  // One that is faster than this goes on where the first was.
  await replay.event('close')
  assert.equal(await read(text.length), text)
  assert.equal(await replay.ended, 0)
})
