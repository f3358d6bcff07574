import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { encode } from 'uqr'
import { linuxPort } from '../../src/device/linux-port.ts'
import { LFLAG } from '../../src/device/termios.ts'
import { Terminal } from '../support/terminal.ts'

/** Two people at their terminals, whose machines have never heard of each other: what they type, and what they see. */

const skip = process.platform === 'linux' ? false : 'the terminals are made of Linux PTYs'

const TICKET = /^ {2}(FARPORT1[A-Z0-9]+)\r\n/m
const CODE = /^ {2}(\d{3}-[a-z]+-[a-z]+-[a-z]+)\r\n/m
const NEXT = /^Next: (farport connect .*)\r\n/m

/** Ends with the test; its homes do not exist yet. */
class Desk implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'farport-desk-'))
  readonly port = `gps-${process.pid}`
  readonly #stack = new AsyncDisposableStack()

  constructor() {
    this.#stack.defer(() => rmSync(this.dir, { recursive: true, force: true }))
  }

  defer(undo: () => void): void {
    this.#stack.defer(undo)
  }

  async terminal(home: string, inside: readonly string[] = []): Promise<Terminal> {
    return this.#stack.use(await Terminal.open(this.dir, { FARPORT_HOME: join(this.dir, home) }, inside))
  }

  /** The first terminal of the one who shares, and the second. */
  async sharing(invite: string, inside: readonly string[] = []): Promise<[Terminal, Terminal]> {
    const terminals = [await this.terminal('agent', inside), await this.terminal('agent', inside)] as const
    const listen = inside.length === 0 ? ' --listen /ip4/127.0.0.1/tcp/0' : ''
    terminals[0].run(`farport share simulated:gps?hz=10=${this.port}${listen}`)
    await terminals[0].reads(/sharing gps-\d+; Ctrl-C ends it/)
    terminals[1].run(invite)
    return [...terminals]
  }

  /** What a program reads that opens the port as a local one. */
  async sentence(): Promise<string> {
    await using port = await linuxPort(`/tmp/${this.port}`).open({})
    let text = ''
    while (text.split('\n').length < 3) text += String((await once(port, 'data'))[0])
    return text
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}

/** The QR code in what was shown, as a camera sees it, and how much of the screen it takes. */
function qrOf(shown: string): { dark: boolean[][]; columns: number; rows: number } {
  const lines = shown.split('\r\n').filter((line) => /^[█▀▄ ]{20,}$/.test(line))
  const dark = lines.flatMap((line) => [
    [...line].map((c) => c === ' ' || c === '▄'),
    [...line].map((c) => c === ' ' || c === '▀'),
  ])
  return { dark, columns: Math.max(...lines.map((line) => line.length)), rows: lines.length }
}

const drawn = (modules: boolean[][]) =>
  modules.map((row) => row.map((dark) => (dark ? '#' : ' ')).join('')).join('\n')

test('from two empty homes to bytes flowing: two commands on either side, and one paste', {
  skip,
  timeout: 60_000,
}, async () => {
  await using desk = new Desk()
  const [share, invite] = await desk.sharing('farport invite --qr')
  const [, ticket = ''] = await invite.reads(TICKET)
  const client = await desk.terminal('client')
  client.run('farport pair')
  await client.reads(/Ticket or code: $/)
  client.type(`${ticket}\r`)
  const [, next = ''] = await client.reads(NEXT)
  assert.equal(await client.status(), 0)
  assert.match(invite.shown, /^paired with .*12D3KooW/m)
  assert.equal(await invite.status(), 0)

  const { dark, columns, rows } = qrOf(invite.shown)
  assert.ok(columns <= Terminal.columns, `${columns} columns`)
  assert.ok(rows < Terminal.rows, `${rows} rows, and the cursor's`)
  const modules = encode(ticket, { ecc: 'L', boostEcc: true, border: 0 }).data
  const quiet = (columns - modules.length) / 2
  const inside = dark.slice(quiet, -quiet).map((row) => row.slice(quiet, -quiet))
  assert.equal(drawn(inside.slice(0, modules.length)), drawn(modules))

  client.run(next)
  await client.reads(/ is at \/tmp\//)
  assert.match(await desk.sentence(), /\$GP/)
  for (const side of [[...share.commands, ...invite.commands], client.commands])
    assert.equal(side.length, 2, side.join('; '))

  client.interrupt()
  assert.equal(await client.status(), 130)
  assert.ok(!existsSync(`/tmp/${desk.port}`))
})

function unfit(): string | undefined {
  if (skip !== false) return skip
  if (process.getuid?.() !== 0) return 'network namespaces need root'
  return spawnSync('ip', ['-V']).status === 0 ? undefined : 'ip is missing: apt-get install iproute2'
}
const noLan = unfit()
if (noLan !== undefined && skip === false && process.env.CI) throw new Error(noLan)

/** Two machines on one cable. Answers how a command is run on either. */
function lan(desk: Desk): [string[], string[]] {
  const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' })
  const names = [`farport-desk-${process.pid}-a`, `farport-desk-${process.pid}-b`] as const
  for (const name of names) {
    ip('netns', 'add', name)
    desk.defer(() => void ip('netns', 'del', name))
  }
  ip('link', 'add', 'eth0', 'netns', names[0], 'type', 'veth', 'peer', 'name', 'eth0', 'netns', names[1])
  for (const [i, name] of names.entries()) {
    ip('-n', name, 'addr', 'add', `10.77.0.${i + 1}/24`, 'dev', 'eth0')
    ip('-n', name, 'link', 'set', 'lo', 'up')
    ip('-n', name, 'link', 'set', 'eth0', 'up')
  }
  const inside = (name: string) => ['ip', 'netns', 'exec', name]
  return [inside(names[0]), inside(names[1])]
}

/** As people type what they were told on the telephone. */
const typings: { name: string; typed: (code: string) => string }[] = [
  { name: 'as it is written', typed: (code) => code },
  { name: 'in capitals, with spaces', typed: (code) => ` ${code.toUpperCase().replaceAll('-', '  ')} ` },
  {
    name: 'four letters of each word',
    typed: (code) =>
      code
        .split('-')
        .map((part) => part.slice(0, 4))
        .join(' '),
  },
]
test('from two empty homes to bytes flowing on one LAN: two commands on either side, and four spoken words', {
  skip: noLan ?? false,
  timeout: 120_000,
}, async (t) => {
  await using desk = new Desk()
  const [here, there] = lan(desk)
  const [share, invite] = await desk.sharing('farport invite --code', here)
  for (const [i, { name, typed }] of typings.entries())
    await t.test(name, async () => {
      if (i > 0) invite.run('farport invite --code')
      const [, code = ''] = await invite.reads(CODE)
      const client = await desk.terminal(`client-${i}`, there)
      client.run('farport pair')
      await client.reads(/Ticket or code: $/)
      client.type(`${typed(code)}\r`)
      const [, next = ''] = await client.reads(NEXT)
      assert.equal(await client.status(), 0)
      assert.equal(await invite.status(), 0)
      client.run(next)
      await client.reads(/ is at \/tmp\//)
      assert.match(await desk.sentence(), /\$GP/)
      client.interrupt()
      assert.equal(await client.status(), 130)
      assert.equal(client.commands.length, 2)
    })
  assert.equal(share.commands.length + invite.commands.length, 2 + typings.length - 1)
})

test('a ticket that a chat program has broken into lines is taken whole, and the shell gets none of it', {
  skip,
  timeout: 60_000,
}, async () => {
  await using desk = new Desk()
  const [, invite] = await desk.sharing('farport invite')
  const [, ticket = ''] = await invite.reads(TICKET)
  const client = await desk.terminal('client')
  client.run('farport pair')
  await client.reads(/Ticket or code: $/)
  client.type(`\r${ticket.replace(/.{40}/g, '$&\r')}\r`)
  await client.reads(NEXT)
  assert.equal(await client.status(), 0)
  await client[Symbol.asyncDispose]()
  const history = readFileSync(join(desk.dir, 'history'), 'utf8')
  assert.match(history, /farport pair/)
  assert.doesNotMatch(history, new RegExp(ticket.slice(-12)))
})

test('what is mistyped is said and asked for again; a wrong code is seen at both ends', {
  skip,
  timeout: 60_000,
}, async () => {
  await using desk = new Desk()
  const [share, invite] = await desk.sharing('farport invite --code')
  const [, code = ''] = await invite.reads(CODE)
  const [nameplate = ''] = code.split('-')
  // The line for trusted_peers that share prints names the machine: its PeerID and address.
  const [, peerId, address] = (await share.reads(/ (12D3KooW\w+) +addr=(\S+)/)) as unknown as string[]
  const client = await desk.terminal('client')
  client.run(`farport pair --at ${address}/p2p/${peerId}`)
  await client.reads(/Ticket or code: $/)
  client.type(`${nameplate} lunarr maple copper\r`)
  await client.reads(/the first word, "lunarr", is none that codes are made of: did you mean lunar/)
  await client.reads(/did you mean [^?]*\?\r\nTicket or code: $/)
  client.type(`${nameplate} zoo zoo zoo\r`)
  await client.reads(
    /farport: the code or ticket is wrong: check it, and mind that an invite ends after three/,
  )
  assert.equal(await client.status(), 3)
  await invite.reads(/someone tried a wrong code or ticket: 2 tries left/)
})

test('Ctrl-C and Ctrl-D at the prompt leave the terminal as it was', { skip, timeout: 60_000 }, async () => {
  await using desk = new Desk()
  const client = await desk.terminal('client')
  const before = client.modes
  for (const [key, status, said] of [
    ['\x03', 130, /\^C\r\n/],
    ['\x04', 2, /there is no ticket or code/],
  ] as const) {
    client.run('farport pair')
    await client.reads(/Ticket or code: $/)
    assert.ok((client.modes.lflag & LFLAG.ECHO) !== 0, 'what is typed is to be seen')
    client.type(key)
    await client.reads(said)
    assert.equal(await client.status(), status)
    assert.deepEqual(client.modes, before)
  }
  assert.ok(!existsSync(join(desk.dir, 'client')), 'nobody has paired, and nothing was made')
})
