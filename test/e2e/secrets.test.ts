import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { base58, base64, base64nopad, base64urlnopad } from '@scure/base'
import { parseCode } from '../../src/trust/code.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { decodeTicket } from '../../src/trust/ticket.ts'
import { TwoHomes } from '../support/two-homes.ts'

/** Where a secret of a pairing could be left behind: everything but the one screen that shows it. */

const main = new URL('../../src/cli/main.ts', import.meta.url).pathname

/** A secret in each form in which somebody might have written it down. */
class Secrets {
  readonly #forms = new Map<string, Buffer>()

  addText(name: string, text: string): void {
    for (const form of [text, text.toLowerCase(), text.toUpperCase(), text.replaceAll('-', ' ')])
      this.#forms.set(`${name} (${form})`, Buffer.from(form))
    this.addBytes(name, Buffer.from(text))
  }

  addBytes(name: string, bytes: Uint8Array): void {
    const buffer = Buffer.from(bytes)
    this.#forms.set(`${name}, raw`, buffer)
    const texts = [
      buffer.toString('hex'),
      base64nopad.encode(bytes),
      base64urlnopad.encode(bytes),
      base58.encode(bytes),
    ]
    // As an array or a Buffer comes out of JSON.
    for (const text of [
      ...texts,
      base64.encode(bytes),
      texts[0]?.toUpperCase() ?? '',
      [...bytes].join(','),
      [...bytes].join(', '),
    ])
      this.#forms.set(`${name} as ${text}`, Buffer.from(text))
  }

  /** Which of them is in there. */
  in(bytes: Uint8Array): string | undefined {
    const buffer = Buffer.from(bytes)
    for (const [name, form] of this.#forms) if (buffer.includes(form)) return name
    return undefined
  }
}

/** What `ps` can tell of our processes to other users (argv) or to their own (environment), and of what they keep on disk. */
class Sampler implements Disposable {
  readonly seen = new Set<string>()
  readonly #timer = setInterval(() => this.#look(), 50)
  readonly #pids: () => number[]

  constructor(pids: () => number[]) {
    this.#pids = pids
  }

  #look(): void {
    for (const pid of this.#pids())
      for (const file of ['cmdline', 'environ', 'comm'])
        try {
          this.seen.add(readFileSync(`/proc/${pid}/${file}`, 'latin1'))
        } catch {
          // It has ended.
        }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}

/** A farport whose every word is kept. */
class Watched {
  readonly pid: number
  out = ''
  err = ''
  readonly ended: Promise<number | null>
  readonly #child

  constructor(args: string[], input = '') {
    this.#child = spawn(process.execPath, [main, ...args, '--log-level', 'debug'], {
      stdio: 'pipe',
      env: { ...process.env, DEBUG: '*' },
    })
    this.pid = this.#child.pid as number
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.out += text
      this.#child.emit('said')
    })
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.err += text
      this.#child.emit('said')
    })
    this.#child.stdin.end(input)
    this.ended = once(this.#child, 'close').then(([code]) => code as number | null)
  }

  async says(what: RegExp): Promise<string> {
    const signal = AbortSignal.timeout(20_000)
    for (;;) {
      const found = what.exec(this.out) ?? what.exec(this.err)
      if (found !== null) return found[1] ?? found[0]
      await once(this.#child, 'said', { signal })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM')
    await this.ended
  }
}

/** Every file of a home, with its name. */
function filesOf(home: string): [string, Buffer][] {
  return readdirSync(home, { recursive: true, encoding: 'utf8' })
    .map((name) => join(home, name))
    .filter((path) => statSync(path).isFile())
    .map((path) => [path, readFileSync(path)])
}

for (const json of [false, true])
  test(`nothing of a pairing's secrets is left behind${json ? ', under --json' : ''}`, {
    timeout: 120_000,
    skip: process.platform === 'linux' ? false : 'only Linux has /proc',
  }, async () => {
    await using homes = await TwoHomes.make()
    const secrets = new Secrets()
    const places: [string, Uint8Array][] = []
    const running: Watched[] = []
    using sampler = new Sampler(() => running.map(({ pid }) => pid))
    await using stack = new AsyncDisposableStack()
    const start = (name: string, args: string[], input?: string) => {
      const one = stack.use(new Watched([...args, ...(json ? ['--json'] : [])], input))
      running.push(one)
      return Object.assign(one, { what: name })
    }
    const agentHome = ['--home', homes.agentHome]
    const share = start('share', [
      'share',
      'simulated:gps=gps',
      ...agentHome,
      '--listen',
      '/ip4/127.0.0.1/tcp/0',
    ])
    const address = await share.says(/(\/ip4\/127\.0\.0\.1\/tcp\/[1-9]\d*)/)

    for (const form of ['code', 'ticket'] as const) {
      const invite = start('invite', ['invite', 'gps', ...agentHome, ...(form === 'code' ? ['--code'] : [])])
      const text = await invite.says(
        form === 'code' ? /\b(\d{3}(?:-[a-z]+){3})\b/ : /\b(FARPORT1[A-Z0-9]{80,})/,
      )
      if (form === 'code') {
        secrets.addText('code', text.slice(4))
        secrets.addBytes('code', parseCode(text).secret)
      } else {
        secrets.addText('ticket', text)
        secrets.addText("ticket's end", text.slice(-16))
        secrets.addBytes('ticket', decodeTicket(text, Date.now()).secret)
      }
      const at = form === 'code' ? ['--at', `${address}/p2p/${homes.agentId}`] : []
      const wrong =
        form === 'code'
          ? `${text.slice(0, 4)}zoo-zoo-zoo`
          : `${text.slice(0, -1)}${text.endsWith('Q') ? 'P' : 'Q'}`
      const pair = ['pair', '--home', homes.clientHome, ...at]
      const refused = start('a wrong pair', pair, wrong)
      assert.equal(await refused.ended, form === 'code' ? 3 : 2, refused.err)
      if (form === 'code') await new Promise((resolve) => setTimeout(resolve, 2_000))
      const paired = start('pair', pair, text)
      assert.equal(await paired.ended, 0, paired.err)
      assert.equal(await invite.ended, 0, invite.err)
      // The one screen that is to show it does so in one place.
      const shown = json ? 'out' : 'err'
      assert.equal(invite[shown].split(text).length, 2, 'shown once')
      places.push([
        `invite --${form}, beside what it shows`,
        Buffer.from((invite.out + invite.err).replace(text, '')),
      ])
    }
    await share[Symbol.asyncDispose]()

    for (const { what, out, err } of running as (Watched & { what: string })[])
      if (what !== 'invite') places.push([`what ${what} said`, Buffer.from(out + err)])
    for (const seen of sampler.seen) places.push(['/proc', Buffer.from(seen, 'latin1')])
    for (const home of [homes.agentHome, homes.clientHome])
      for (const [path, bytes] of filesOf(home)) places.push([path, bytes])
    const names = places.map(([name]) => name)
    for (const expected of ['what share said', 'what pair said', '/proc', join(homes.agentHome, 'audit.log')])
      assert.ok(names.includes(expected), expected)
    assert.ok(
      [...sampler.seen].some((line) => line.includes('\0pair\0')),
      'the joiner was seen',
    )
    for (const [name, bytes] of places) assert.equal(secrets.in(bytes), undefined, name)

    // The same search finds what is there.
    const { seed } = await loadIdentity(homes.agentHome, { create: false })
    const key = new Secrets()
    key.addBytes('key', Buffer.from(seed))
    for (const form of [
      Buffer.from(seed),
      Buffer.from(seed).toString('hex'),
      JSON.stringify([...seed]),
      Buffer.from(seed).toString('base64url'),
    ])
      assert.notEqual(
        key.in(Buffer.concat([Buffer.from('x'), Buffer.from(form), Buffer.from('y')])),
        undefined,
      )
    for (const [name, bytes] of places)
      if (!name.endsWith('identity.key')) assert.equal(key.in(bytes), undefined, name)
  })
