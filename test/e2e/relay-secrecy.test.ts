import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { hostname } from 'node:os'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { base58, base64nopad, base64urlnopad } from '@scure/base'
import { parseCode } from '../../src/trust/code.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { publicKeyOf } from '../../src/trust/peer-id.ts'
import { decodeTicket } from '../../src/trust/ticket.ts'
import { freePort } from '../overlay/network.ts'
import { farport } from '../support/cli.ts'
import { RecordingProxy } from '../support/recording-proxy.ts'
import { TwoHomes } from '../support/two-homes.ts'

const main = new URL('../../src/cli/main.ts', import.meta.url).pathname
const tap = new URL('../support/relay-tap.ts', import.meta.url).href

/** Names that nothing else on the way could hold by accident. */
const PORT = 'compass-of-the-boat'
const CLIENT = 'navigator-7f3a'

/** What must not cross a relay, in each form in which it might. */
class Secrets {
  readonly #forms = new Map<string, Buffer>()

  addText(text: string): void {
    this.#forms.set(text, Buffer.from(text))
    this.#forms.set(`${text} in UTF-16`, Buffer.from(text, 'utf16le'))
  }

  addBytes(name: string, bytes: Uint8Array): void {
    const buffer = Buffer.from(bytes)
    this.#forms.set(`${name}, raw`, buffer)
    for (const text of [
      buffer.toString('hex'),
      base64nopad.encode(bytes),
      base64urlnopad.encode(bytes),
      base58.encode(bytes),
      [...bytes].join(','),
    ])
      this.#forms.set(`${name} as ${text}`, Buffer.from(text))
  }

  /** Which of them are in there. */
  in(bytes: Buffer): string[] {
    return [...this.#forms].filter(([, form]) => bytes.includes(form)).map(([name]) => name)
  }
}

/** A relay whose host and whose own process are both listened to. */
class TappedRelay implements AsyncDisposable {
  readonly peerId: string
  /** Where the others reach it: at the proxy. */
  readonly address: string
  readonly #proxy: RecordingProxy
  readonly #child: ReturnType<typeof spawn>
  readonly #tapFile: string

  private constructor(
    peerId: string,
    proxy: RecordingProxy,
    child: ReturnType<typeof spawn>,
    tapFile: string,
  ) {
    this.peerId = peerId
    this.address = `/ip4/127.0.0.1/tcp/${proxy.port}/p2p/${peerId}`
    this.#proxy = proxy
    this.#child = child
    this.#tapFile = tapFile
  }

  static async start(home: string, trusted: string, tapFile: string): Promise<TappedRelay> {
    const { peerId } = await loadIdentity(home, { create: true })
    await writeFile(`${home}/trusted_peers`, trusted, { mode: 0o600 })
    const port = await freePort()
    const listen = ['--listen', `/ip4/127.0.0.1/tcp/${port}`, '--no-stun', '--json']
    const child = spawn(process.execPath, ['--import', tap, main, 'relay', '--home', home, ...listen], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, FARPORT_TAP: tapFile },
    })
    const proxy = await RecordingProxy.to(port)
    await once(createInterface({ input: child.stdout }), 'line')
    return new TappedRelay(peerId, proxy, child, tapFile)
  }

  /** Every byte on the network. */
  onTheWire(): Buffer {
    return this.#proxy.recorded()
  }

  /** Every byte in the relay's hands. */
  async inside(): Promise<Buffer> {
    return await readFile(this.#tapFile)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill()
    await once(this.#child, 'close')
    await this.#proxy[Symbol.asyncDispose]()
  }
}

test('neither a relay nor who listens to its host learns what the peers say', {
  timeout: 120_000,
}, async () => {
  await using homes = await TwoHomes.make()
  const relay = homes.use(
    await TappedRelay.start(homes.path('R'), `agent ${homes.agentId} may=relay\n`, homes.path('tap')),
  )
  const share = ['share', `simulated:gps?hz=10=${PORT}`, '--listen', 'none', '--relay', relay.address]
  const agent = homes.start([...share, '--home', homes.agentHome])
  await agent.event('relay', ({ state }) => state === 'reserved')
  const secrets = new Secrets()
  secrets.addText(PORT)
  secrets.addText(CLIENT)
  secrets.addText('simulated:')
  if (hostname().length > 4) secrets.addText(hostname())

  // Two machines pair: one by a code that it finds in the relay's directory, one by a ticket.
  for (const [form, home] of [
    ['code', homes.clientHome],
    ['ticket', homes.path('J')],
  ] as const) {
    const flags = form === 'code' ? ['--code'] : []
    const invite = homes.start(['invite', PORT, ...flags, '--home', homes.agentHome])
    const { text } = (await invite.event('invite')) as unknown as { text: string }
    const where = form === 'code' ? ['--relay', relay.address] : []
    const paired = await farport(['pair', '--home', home, ...where], { input: text })
    assert.equal(paired.code, 0, paired.stderr)
    assert.equal(await invite.ended, 0)
    if (form === 'code') {
      const words = text.slice(4)
      secrets.addText(words)
      // Two that follow each other, not one alone: "version" is on the list, and in libp2p's greetings.
      const [first, second, third] = words.split('-')
      for (const between of ['-', ' ', ','])
        for (const pair of [
          [first, second],
          [second, third],
        ])
          secrets.addText(pair.join(between))
      secrets.addBytes('code', parseCode(text).secret)
    } else {
      const { secret, inviteId } = decodeTicket(text, Date.now())
      secrets.addText(text)
      secrets.addBytes('ticket', secret)
      secrets.addBytes('invite', inviteId)
    }
  }
  // The agent's owner calls the client something, and that stays here, too.
  const trusted = await readFile(`${homes.agentHome}/trusted_peers`, 'utf8')
  const renamed = trusted
    .split('\n')
    .map((line) => (line.includes(homes.clientId) ? line.replace(/^\S+/, CLIENT) : line))
  await writeFile(`${homes.agentHome}/trusted_peers`, renamed.join('\n'), { mode: 0o600 })

  // The control: what the client hands to a local program in plain, over the same kind of recorder.
  const line = `a ${homes.agentId} addr=${relay.address}/p2p-circuit\n`
  await writeFile(`${homes.clientHome}/trusted_peers`, line, { mode: 0o600 })
  const client = await homes.connect(`a/${PORT}`, '--raw', '127.0.0.1:0')
  const { kind } = await client.event('path')
  assert.equal(kind, 'relayed')
  const local = homes.use(await RecordingProxy.to(Number(client.links[0]?.at.split(':')[1])))
  const program = connect(local.port, '127.0.0.1')
  const sentences: string[] = []
  for await (const sentence of createInterface({ input: program })) {
    sentences.push(sentence)
    if (sentences.length >= 60) break
  }
  program.destroy()
  for (const text of [...sentences, '$GPGGA', '$GPRMC', '5354.']) secrets.addText(text)

  const [wire, inside] = [relay.onTheWire(), await relay.inside()]
  assert.deepEqual(secrets.in(wire), [], 'on the wire')
  assert.deepEqual(secrets.in(inside), [], 'in the relay')

  // The search bites. In plain, it finds what there was to find:
  const found = secrets.in(local.recorded())
  for (const text of [...sentences, '$GPGGA', '$GPRMC']) assert.ok(found.includes(text), text)
  // and in both places it finds what is there to be seen.
  const visible = new Secrets()
  visible.addText('/multistream/1.0.0')
  visible.addText('/noise')
  assert.deepEqual(visible.in(wire), ['/multistream/1.0.0', '/noise'])
  visible.addText(homes.clientId)
  visible.addBytes('who calls, in a STOP', publicKeyOf(homes.clientId))
  const seen = visible.in(inside)
  for (const name of ['/multistream/1.0.0', homes.clientId]) assert.ok(seen.includes(name), name)
  // What streamed went this way, and not past it.
  const streamed = sentences.join('\r\n').length
  assert.ok(wire.length > streamed, `${wire.length} bytes on the wire, of ${streamed} streamed`)
  assert.ok(inside.length > streamed, `${inside.length} bytes in the relay, of ${streamed} streamed`)
})
