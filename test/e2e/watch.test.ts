import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readFile, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadIdentity } from '../../src/trust/identity.ts'
import { farport } from '../support/cli.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** One port, one holder, many watchers, as people use them: each a process of its own. */

const LOOPBACK = '127.0.0.1:0'

/** A program on a local TCP port of a link, and what it has heard. */
class Program implements Disposable {
  readonly socket: Socket
  #heard = ''

  constructor({ links }: { links: readonly { at: string }[] }) {
    this.socket = connect(Number(links[0]?.at.split(':').at(-1)), '127.0.0.1')
    this.socket.on('error', () => {})
    this.socket.on('data', (bytes) => {
      this.#heard += bytes.toString('latin1')
    })
  }

  async hears(text: string): Promise<void> {
    while (!this.#heard.includes(text)) {
      const signal = AbortSignal.timeout(10_000)
      await Promise.race([once(this.socket, 'data', { signal }), once(this.socket, 'close', { signal })])
      assert.ok(!this.socket.closed || this.#heard.includes(text), `closed after ${this.#heard}`)
    }
  }

  get heard(): string {
    return this.#heard
  }

  [Symbol.dispose](): void {
    this.socket.destroy()
  }
}

/** The lines of the agent's audit log that are about this event, once there are so many. */
async function audited(homes: TwoHomes, event: string, count: number): Promise<Record<string, unknown>[]> {
  for (const giveUpAt = performance.now() + 10_000; ; ) {
    const text = await readFile(join(homes.agentHome, 'audit.log'), 'utf8').catch(() => '')
    const lines = text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line)]))
    const those = lines.filter((line) => line.event === event)
    if (those.length >= count) return those
    if (performance.now() > giveUpAt) assert.fail(`${those.length} lines of ${event}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

test('every local end shows a watcher what the holder gets, and sends nothing', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=echo')
  await homes.share('simulated:echo=echo')
  using holder = new Program(await homes.connect('a/echo', '--raw', LOOPBACK))
  holder.socket.write('before ')
  await holder.hears('before ')

  const raw = await homes.connect('a/echo', '--watch', '--raw', LOOPBACK)
  using bytes = new Program(raw)
  await bytes.hears('before ')
  using second = new Program(raw)
  await once(second.socket, 'close')
  assert.equal(second.heard, '', 'one local program at a time')
  using telnet = new Program(await homes.connect('a/echo', '--watch', '--replay', '0', '--rfc2217', LOOPBACK))
  // WILL BINARY: it has the port.
  await telnet.hears('\xff\xfb\x00')
  await homes.connect('a/echo', '--watch', '--pty', homes.path('link'))
  const tty = await open(homes.path('link'), 'r+')
  homes.use({ [Symbol.asyncDispose]: () => tty.close() })
  await audited(homes, 'open', 4)

  bytes.socket.write('not this')
  telnet.socket.write('nor that')
  await tty.write('nor those\n')
  const ttyHears = (async () => {
    let text = ''
    const buffer = Buffer.alloc(1024)
    while (!text.includes('now')) text += buffer.toString('latin1', 0, (await tty.read(buffer)).bytesRead)
    return text
  })()
  const main = new URL('../../src/cli/main.ts', import.meta.url).pathname
  const piped = spawn(process.execPath, [
    main,
    'connect',
    'a/echo',
    '--watch',
    '--stdio',
    '--home',
    homes.clientHome,
  ])
  homes.use({ [Symbol.asyncDispose]: async () => void (piped.kill() && (await once(piped, 'close'))) })
  piped.stdin.write('nor these')
  const pipeHears = (async () => {
    let text = ''
    for await (const bytes of piped.stdout) {
      text += bytes
      if (text.includes('now')) break
    }
    return text
  })()
  await audited(homes, 'open', 5)
  holder.socket.write('now')
  for (const program of [holder, bytes, telnet]) await program.hears('now')
  assert.match(await ttyHears, /now/)
  assert.match(await pipeHears, /now/)
  assert.equal(holder.heard, 'before now')
  assert.equal(bytes.heard, 'before now')
  assert.doesNotMatch(telnet.heard, /before/)

  const listed = await farport(['ports', 'a', '--home', homes.clientHome])
  assert.match(listed.stdout, /^echo +in use by us, 4 watching +watch,use,configure,lines +simulated:echo$/m)
})

test('a right to watch that is taken back cuts within a second; who has none is told as of no such port', {
  timeout: 60_000,
}, async () => {
  await using homes = await TwoHomes.make()
  await homes.grant('ports=echo may=watch')
  await homes.share('simulated:echo=echo')
  const refused = await farport(['connect', 'a/echo', '--home', homes.clientHome, '--raw', LOOPBACK])
  assert.equal(refused.code, 3)
  assert.match(refused.stderr, /we may watch a\/echo, not use it: .*give --watch/)
  const client = await homes.connect('a/echo', '--watch', '--raw', LOOPBACK)
  using program = new Program(client)
  await audited(homes, 'open', 1)
  const down = client.event('link', ({ state }) => state === 'down')
  await homes.grant('ports=echo may=configure')
  const takenAt = performance.now()
  await down
  const tookMs = performance.now() - takenAt
  assert.ok(tookMs < 1000, `${tookMs} ms`)
  const [open] = await audited(homes, 'open', 1)
  const [close] = await audited(homes, 'close', 1)
  assert.deepEqual([open?.mode, close?.mode, close?.toDevice], ['watch', 'watch', 0])
  const sentences = []
  for (const name of ['echo', 'nothing']) {
    const args = ['connect', `a/${name}`, '--watch', '--home', homes.clientHome, '--stdio']
    const ended = await farport(args)
    assert.equal(ended.code, 3)
    sentences.push(ended.stderr.replaceAll(name, 'NAME'))
  }
  assert.equal(sentences[0], sentences[1])
  program.socket.destroy()
})

test('a port is taken over: its holder ends with 4, or waits and has it again', {
  timeout: 90_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const thief = await loadIdentity(homes.path('C'), { create: true })
  await writeFile(
    join(homes.agentHome, 'trusted_peers'),
    `client ${homes.clientId} ports=echo\nthief ${thief.peerId} ports=echo may=use,steal\n`,
  )
  await homes.share('simulated:echo=echo')
  const known = await readFile(join(homes.clientHome, 'trusted_peers'))
  await writeFile(join(homes.path('C'), 'trusted_peers'), known, { mode: 0o600 })
  const steal = (...more: string[]) =>
    homes.start(['connect', 'a/echo', '--steal', '--raw', LOOPBACK, ...more, '--home', homes.path('C')])
  const ready = async (farport: ReturnType<typeof steal>) =>
    (await farport.event('ready')) as unknown as { links: { at: string }[] }

  const first = await homes.connect('a/echo', '--raw', LOOPBACK)
  using loser = new Program(first)
  loser.socket.write('mine')
  await loser.hears('mine')
  const mayNot = await farport([
    'connect',
    'a/echo',
    '--steal',
    '--raw',
    LOOPBACK,
    '--home',
    homes.clientHome,
  ])
  assert.equal(mayNot.code, 3)
  assert.match(mayNot.stderr, /we may not take it over/)
  const busy = await farport(['connect', 'a/echo', '--raw', LOOPBACK, '--home', homes.path('C')])
  assert.equal(busy.code, 4)
  assert.match(busy.stderr, /--wait or --watch or --steal/)

  const waits = await homes.connect('a/echo', '--wait', '--raw', LOOPBACK)
  using patient = new Program(waits)
  const takes = steal()
  const lost = first.event('link', ({ state }) => state === 'down')
  {
    using winner = new Program(await ready(takes))
    winner.socket.write('not any more')
    await winner.hears('not any more')
    assert.match(String((await lost).reason), /^echo was taken over by /)
    const error = await first.event('error')
    assert.deepEqual([error.code, await first.ended], ['ERR_PORT_BUSY', 4])
    patient.socket.write('A')
    await waits.event('link', ({ state, reason }) => state === 'down' && /in use/.test(String(reason)))
    assert.equal(patient.heard, '')
  }
  await patient.hears('A')
  const down = waits.event(
    'link',
    ({ state, reason }) => state === 'down' && /taken over/.test(String(reason)),
  )
  using winner = new Program(await ready(takes))
  winner.socket.write('B')
  await winner.hears('B')
  await down
  winner.socket.destroy()
  patient.socket.write('C')
  await patient.hears('C')
  assert.equal(patient.heard.replace(/B/g, ''), 'AC')

  const [line] = await audited(homes, 'steal', 2)
  assert.deepEqual(
    [line?.peer, line?.name, line?.from, line?.fromName],
    [thief.peerId, 'thief', homes.clientId, 'client'],
  )
})

test('what does not go together is said at once', async () => {
  for (const flags of [
    ['--watch', '--steal'],
    ['--replay', '4'],
    ['--watch', '--replay', 'all'],
  ]) {
    const ended = await farport(['connect', 'a/echo', '--stdio', '--home', '/nonexistent', ...flags])
    assert.equal(ended.code, 2, flags.join(' '))
  }
})
