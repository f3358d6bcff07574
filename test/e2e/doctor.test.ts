import assert from 'node:assert/strict'
import { chmod, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { loadLibc } from '../../src/device/libc.ts'
import { loadIdentity } from '../../src/trust/identity.ts'
import { farport } from '../support/cli.ts'
import { NatLab, type NatType, whyNoNatLab } from '../support/nat-lab.ts'
import { ptyPair } from '../support/pty-pair.ts'
import { TwoHomes } from '../support/two-homes.ts'

interface Diagnosis {
  verdict: string
  relays: { entry: string; addresses: { address: string; connectMs?: number; reason?: string }[] }[]
  nat?: Record<'tcp' | 'udp', { state: string }>
  paths?: Record<string, string>
  findings: { about: string; verdict: string; text: string; remedy?: string }[]
}

async function doctor(...args: string[]): Promise<{ code: number | null; said: Diagnosis }> {
  const { code, stdout } = await farport(['doctor', ...args, '--json'])
  return { code, said: JSON.parse(stdout) as Diagnosis }
}

/** What the machine that runs the tests has no say in. */
const ofThisMachine = ['disk', 'port', 'node', 'native']

function about(said: Diagnosis, what: string): string[] {
  return said.findings
    .filter((finding) => finding.about === what)
    .map(({ verdict, text }) => `${verdict} ${text}`)
}

test('a home that has to be mended: what is wrong, what to do, and 7', async () => {
  await using homes = await TwoHomes.make()
  const home = async (name: string, text: string) => {
    const path = homes.path(name)
    await loadIdentity(path, { create: true })
    await writeFile(join(path, 'trusted_peers'), text, { mode: 0o600 })
    return path
  }
  const [refused, writable, late] = await Promise.all([
    home('refused', 'anna 12D3KooWnonsense ports=*\n'),
    home('writable', ''),
    home('late', ''),
  ])
  await chmod(join(writable, 'trusted_peers'), 0o666)
  const tomorrow = new Date(Date.now() + 86_400_000)
  await utimes(join(late, 'trusted_peers'), tomorrow, tomorrow)
  const expected: [string, RegExp][] = [
    [refused, /^bad +trust +line 1: /m],
    [writable, /^bad +trust .*chmod go-w/m],
    [late, /^bad +clock .*trusted_peers was written\. To mend: /m],
    [homes.path('none'), /^bad +key .*farport id$/m],
  ]
  await Promise.all(
    expected.map(async ([path, sentence]) => {
      const { code, stdout } = await farport(['doctor', '--home', path])
      assert.match(stdout, sentence)
      assert.equal(code, 7)
    }),
  )
})

test('without a relay it says what can be said, and that nothing is wrong', async () => {
  await using homes = await TwoHomes.make()
  const { code, said } = await doctor('--home', homes.agentHome)
  assert.equal(code, 0)
  assert.deepEqual(
    said.findings
      .filter(({ about: what }) => !ofThisMachine.includes(what))
      .map(({ about: what, verdict }) => `${verdict} ${what}`),
    ['ok key', 'ok trust', 'ok home', 'ok clock', 'ok service', 'note relay'],
  )
  assert.equal(said.nat, undefined)
})

test('farport.yaml, who holds its devices, and the farport that runs', async () => {
  await using homes = await TwoHomes.make()
  const home = homes.agentHome
  await using tty = ptyPair({ hold: false })
  const holder = loadLibc().open(tty.slavePath)
  try {
    await writeFile(
      join(home, 'farport.yaml'),
      `listen: [/ip4/127.0.0.1/tcp/0]\nports:\n  a: ${tty.slavePath}\n  b: /dev/there-is-none\n`,
    )
    const up = homes.start(['up', '--home', home])
    await up.event('ready')
    const { code, said } = await doctor('--home', home)
    assert.equal(code, 7)
    assert.deepEqual(about(said, 'config'), [
      `ok ${join(home, 'farport.yaml')} is fine; ports: 2 to share, 0 to use`,
    ])
    assert.match(about(said, 'service').join(), /^ok a farport runs as process \d+: 2 ports/)
    const ports = about(said, 'port')
    assert.ok(ports.includes('note /dev/there-is-none is not there; farport waits for it'))
    const held = ports.find((finding) => finding.includes(tty.slavePath))
    assert.match(held ?? '', new RegExp(`^bad .* is held by .*\\(process ${process.pid}\\)$`))
  } finally {
    loadLibc().close(holder)
  }
  const { code, said } = await doctor('--home', home)
  assert.equal(code, 0)
  assert.ok(about(said, 'port').includes(`ok ${tty.slavePath} may be opened`))
})

test('a relay that lets us in, one that does not, and one that is not there', async () => {
  await using homes = await TwoHomes.make()
  const home = homes.agentHome
  const listen = ['--listen', '/ip4/127.0.0.1/tcp/0', '--no-stun']
  const relay = homes.start(['relay', ...listen, '--home', homes.path('R')])
  const { addresses } = (await relay.event('ready')) as unknown as { addresses: [string] }
  const [address] = addresses
  const [, bare, peerId] = /^(.*)\/p2p\/(.*)$/.exec(address) as unknown as [string, string, string]

  const stranger = await doctor('--relay', address, '--home', home)
  assert.equal(stranger.code, 3)
  assert.equal(stranger.said.relays[0]?.entry, 'turned away')
  assert.match(stranger.said.findings.find(({ verdict }) => verdict === 'bad')?.remedy ?? '', /--may relay/)

  await writeFile(join(homes.path('R'), 'trusted_peers'), `a ${homes.agentId} may=relay\n`, { mode: 0o600 })
  // A peer behind it is reason enough to look at it; one dead address of two is not an illness.
  const dead = '/ip4/127.0.0.1/tcp/1'
  const circuits = [bare, dead].map((at) => `${at}/p2p/${peerId}/p2p-circuit`)
  const line = `pi ${homes.clientId} addr=${circuits.join(',')}\n`
  await writeFile(join(home, 'trusted_peers'), line, { mode: 0o600 })
  const [friend, impostor, gone] = await Promise.all([
    doctor('--home', home),
    doctor('--relay', `${bare}/p2p/${homes.clientId}`, '--home', home),
    doctor('--relay', `${dead}/p2p/${peerId}`, '--home', home),
  ])
  assert.equal(friend.code, 0, JSON.stringify(friend.said.findings))
  assert.equal(friend.said.relays[0]?.entry, 'let in')
  const [one, other, entry] = about(friend.said, 'relay')
  assert.match(one ?? '', /^ok 127\.0\.0\.1: .* answers in [\d.]+ ms$/)
  assert.match(other ?? '', /^note 127\.0\.0\.1: .*tcp\/1: connection refused$/)
  assert.match(entry ?? '', /^ok 127\.0\.0\.1: lets us in, [\d.]+ ms there and back$/)
  // It runs without STUN, and then nothing is promised.
  assert.equal(friend.said.paths, undefined)

  assert.equal(impostor.code, 6)
  assert.equal(impostor.said.relays[0]?.entry, 'impostor')
  assert.equal(gone.code, 6)
  assert.match(about(gone.said, 'relay')[0] ?? '', /^bad .*connection refused$/)
})

/** The path to a peer that is open, behind a common NAT, behind one that changes ports, and shut in. */
const EXPECTED: Partial<Record<NatType, string[] | undefined>> = {
  public: ['dial', 'dial', 'dial', 'relay'],
  fullcone: ['dial', 'punch', 'relay', 'relay'],
  portrestricted: ['dial', 'punch', 'relay', 'relay'],
  symmetric: ['dial', 'relay', 'relay', 'relay'],
  udpblocked: ['dial', 'punch', 'relay', 'relay'],
  webonly: undefined,
}

test('behind each kind of NAT it predicts the paths', {
  skip: whyNoNatLab() ?? false,
  timeout: 60_000,
}, async (t) => {
  const types = Object.keys(EXPECTED) as NatType[]
  await using stack = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), 'farport-test-'))
  stack.defer(() => rm(dir, { recursive: true, force: true }))
  const sites = Object.fromEntries(types.map((type) => [type, type]))
  const lab = stack.use(await NatLab.up({ sites, delayMs: 5 }))
  const main = new URL('../../src/cli/main.ts', import.meta.url).pathname
  const cli = (...args: string[]): [string, ...string[]] => [process.execPath, main, ...args]

  const homes = types.map((type) => join(dir, type))
  const ids = await Promise.all(homes.map((home) => loadIdentity(home, { create: true })))
  const relayHome = join(dir, 'relay')
  await loadIdentity(relayHome, { create: true })
  const lines = ids.map(({ peerId }, k) => `${types[k]} ${peerId} may=relay\n`)
  await writeFile(join(relayHome, 'trusted_peers'), lines.join(''), { mode: 0o600 })
  const listen = ['--listen', '/ip4/0.0.0.0/tcp/4001', '/ip4/0.0.0.0/tcp/443']
  const relay = lab.exec('relay', cli('relay', ...listen, '--home', relayHome, '--json'), {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  assert.ok(relay.stdout)
  const [ready] = (await createInterface({ input: relay.stdout })
    [Symbol.asyncIterator]()
    .next()
    .then(({ value }) => [value])) as [string]
  const { peerId } = JSON.parse(ready) as { peerId: string }
  const [host] = lab.relayAddresses
  const addresses = [4001, 443].map((port) => `/ip4/${host}/tcp/${port}/p2p/${peerId}`)

  const check = async (type: NatType, k: number) => {
    const args = ['doctor', '--relay', ...addresses, '--home', homes[k] as string, '--json']
    const said = JSON.parse(await lab.run(type, cli(...args))) as Diagnosis
    t.diagnostic(`${type}:\n${said.findings.map(({ verdict, text }) => `${verdict} ${text}`).join('\n')}`)
    assert.equal(said.verdict, 'well', type)
    assert.deepEqual(said.paths && Object.values(said.paths), EXPECTED[type], type)
    const [at4001, at443] = said.relays[0]?.addresses ?? []
    assert.equal(at4001?.reason, type === 'webonly' ? 'no answer' : undefined, type)
    assert.ok((at443?.connectMs ?? 0) >= 10, 'held back both ways')
    assert.equal(said.nat?.udp.state, type === 'udpblocked' || type === 'webonly' ? 'blocked' : 'open')
  }
  // Two at once: more would only make each other late.
  for (let k = 0; k < types.length; k += 2) {
    await Promise.all(types.slice(k, k + 2).map((type, j) => check(type, k + j)))
  }
})
