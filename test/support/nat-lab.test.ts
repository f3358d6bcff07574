import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { NatReport, ProtocolReport } from '../../src/stun/nat-report.ts'
import { reachOf } from '../../src/stun/predicted-path.ts'
import { NAT_TYPES, NatLab, type NatLabOptions, whyNoNatLab } from './nat-lab.ts'

const options = { skip: whyNoNatLab() ?? false, timeout: 60_000 }
const folder = new URL('../../src/', import.meta.url)

/** A program for `lab.exec` that sees the exports of these modules of src. */
function program(code: string): [string, ...string[]] {
  const imports = `
    import { createLog } from '${folder}log.ts'
    import { stunTcp, stunUdp } from '${folder}stun/client.ts'
    import { natReport } from '${folder}stun/nat-report.ts'
    import { StunServer } from '${folder}stun/server.ts'
    const signal = AbortSignal.timeout(20_000)
    const soon = () => AbortSignal.timeout(700)
  `
  return [process.execPath, '--input-type=module', '-e', `${imports}${code}`]
}

async function serveStun(lab: NatLab, host: string, addresses: readonly string[]): Promise<void> {
  const hosts = JSON.stringify(addresses)
  const server = lab.exec(
    host,
    program(`await StunServer.start({ hosts: ${hosts}, log: createLog('warn') }); console.log('ready')`),
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  assert.ok(server.stdout)
  await once(server.stdout, 'data')
}

/** What an expression is on a host, as JSON brings it over. */
async function evaluate<T>(lab: NatLab, host: string, expression: string): Promise<T> {
  return JSON.parse(
    await lab.run(host, program(`console.log(JSON.stringify(await ${expression})); process.exit()`)),
  )
}

async function up(sites: NatLabOptions['sites'], more: Omit<NatLabOptions, 'sites'> = {}): Promise<NatLab> {
  const lab = await NatLab.up({ sites, ...more })
  await serveStun(lab, 'relay', lab.relayAddresses)
  return lab
}

const ei = 'endpoint-independent'
const ad = 'address-dependent'
const apd = 'address-and-port-dependent'
const expected = {
  public: { udp: [ei, ei, 'preserved'], tcp: [ei, ei, 'preserved'], reach: 'open' },
  fullcone: { udp: [ei, ei, 'preserved'], tcp: [ei, ei, 'preserved'], reach: 'open' },
  addrrestricted: { udp: [ei, ad, 'preserved'], tcp: [ei, ad, 'preserved'], reach: 'punchable' },
  portrestricted: { udp: [ei, apd, 'preserved'], tcp: [ei, apd, 'preserved'], reach: 'punchable' },
  symmetric: { udp: [apd, apd, 'changed'], tcp: [apd, apd, 'changed'], reach: 'unpredictable' },
  udpblocked: { udp: ['blocked'], tcp: [ei, apd, 'preserved'], reach: 'punchable' },
  webonly: { udp: ['blocked'], tcp: ['blocked'], reach: 'closed' },
  double: { udp: [ei, apd, 'preserved'], tcp: [ei, apd, 'preserved'], reach: 'punchable' },
  carrier: { udp: [apd, apd, 'changed'], tcp: [apd, apd, 'changed'], reach: 'unpredictable' },
} as const

test('each router does to UDP and TCP what its name says, as a STUN client sees it', options, async (t) => {
  const single = Object.fromEntries(NAT_TYPES.map((type) => [type, type]))
  const sites = {
    ...single,
    double: ['portrestricted', 'portrestricted'],
    carrier: ['portrestricted', 'symmetric'],
  } as const
  await using lab = await up(sites, { delayMs: 5 })
  const [host] = lab.relayAddresses
  const ask = `natReport([{ host: '${host}', ports: [3478, 3479] }], { signal })`
  const check = async (site: keyof typeof expected) => {
    const report = await evaluate<NatReport>(lab, site, ask)
    t.diagnostic(`${site}: ${JSON.stringify(report)}`)
    assert.deepEqual(
      { udp: words(report.udp), tcp: words(report.tcp), reach: reachOf(report) },
      expected[site],
      site,
    )
    for (const seen of [report.udp, report.tcp]) {
      if (seen.state === 'blocked') continue
      assert.equal(seen.mapped.address, lab.publicAddress(site))
      assert.equal(seen.translated, site !== 'public')
      assert.ok(seen.rttMs >= 10, 'held back both ways')
    }
  }
  // A few at once: too many would only make each other late.
  await Promise.all([check('udpblocked'), check('webonly'), check('public')])
  await Promise.all([check('fullcone'), check('addrrestricted'), check('portrestricted')])
  await Promise.all([check('symmetric'), check('double'), check('carrier')])
})

function words(seen: ProtocolReport): string[] {
  if (seen.state === 'blocked') return ['blocked']
  const filtering = seen.filtering === undefined ? [] : [seen.filtering]
  return [seen.mapping, ...filtering, seen.portPreserved ? 'preserved' : 'changed']
}

const udpTo = (host: string) =>
  `stunUdp({ host: '${host}', port: 3478 }, { signal: soon() }).then(() => true, () => false)`
const tcpTo = (host: string) =>
  `stunTcp({ host: '${host}', port: 3478 }, { signal: soon() }).then(() => true, (e) => e.cause?.code ?? e.name)`

test('faults: cut, block, flush, renumber, each undone by its opposite', options, async () => {
  await using lab = await up({ a: 'symmetric', b: 'public' })
  const [relay] = lab.relayAddresses
  const b = lab.publicAddress('b')
  await serveStun(lab, 'b', [b])
  await serveStun(lab, 'a2', [lab.hostAddress('a2')])
  const reach = async () => {
    const all = [udpTo(relay), tcpTo(relay), udpTo(b), tcpTo(b), tcpTo(lab.hostAddress('a2'))].join(', ')
    const [udpRelay, tcpRelay, udpB, tcpB, lan] = await evaluate<unknown[]>(lab, 'a', `Promise.all([${all}])`)
    assert.equal(lan, true, 'what happens on the internet is not felt on the LAN')
    return [udpRelay, tcpRelay, udpB, tcpB]
  }
  const lost = 'TimeoutError'
  await lab.cut('b', 'a')
  assert.deepEqual(await reach(), [true, true, false, lost])
  await lab.heal('a', 'b')
  await lab.block('a', 'relay')
  assert.deepEqual(await reach(), [false, lost, true, true])
  await lab.block('a', 'udp')
  assert.deepEqual(await reach(), [false, true, false, true])
  await lab.unblock('a')
  assert.deepEqual(await reach(), [true, true, true, true])

  const mapping = () =>
    evaluate<{ mapped: { address: string; port: number } }>(
      lab,
      'a',
      `stunUdp({ host: '${relay}', port: 3478 }, { localPort: 5000, signal })`,
    ).then(({ mapped }) => mapped)
  const first = await mapping()
  assert.deepEqual(await mapping(), first, 'remembered')
  await lab.flush('a')
  const second = await mapping()
  assert.notEqual(second.port, first.port, 'forgotten')
  const address = await lab.renumber('a')
  assert.notEqual(address, first.address)
  assert.equal((await mapping()).address, address)
  await lab.renumber('b')
  assert.equal(await evaluate(lab, 'b', udpTo(relay)), true)
  assert.equal(await evaluate(lab, 'a', udpTo(b)), false, 'the old address is gone')
})

for (const [wan, seen] of [
  ['drop', 'TimeoutError'],
  ['reject', 'ECONNREFUSED'],
  ['accept', 'ECONNREFUSED'],
] as const) {
  test(`a router that is to ${wan} what nobody asked for: ${seen}`, options, async () => {
    await using lab = await NatLab.up({ sites: { a: 'portrestricted', b: 'public' }, wan })
    assert.equal(await evaluate(lab, 'b', tcpTo(lab.publicAddress('a'))), seen)
  })
}

test('what crosses the internet is held back for as long as asked, and not held up', options, async (t) => {
  await using lab = await NatLab.up({ sites: { a: 'portrestricted' }, delayMs: 20 })
  await serveStun(lab, 'relay', ['0.0.0.0'])
  const [host] = lab.relayAddresses
  const rtts = `(async () => {
    const rtts = []
    for (let n = 0; n < 15; n++) rtts.push((await stunUdp({ host: '${host}', port: 3478 }, { signal })).rttMs)
    return rtts
  })()`
  const sorted = (await evaluate<number[]>(lab, 'a', rtts)).sort((x, y) => x - y)
  t.diagnostic(`round trips, ms: ${sorted.map((ms) => ms.toFixed(1)).join(' ')}`)
  const [least = 0] = sorted
  assert.ok(least >= 40 && least < 48, `${least} ms`)
})

test('nothing is left of a laboratory whose process was killed', options, async () => {
  const code = `
    import { NatLab } from '${new URL('nat-lab.ts', import.meta.url)}'
    const lab = await NatLab.up({ sites: { a: 'public' }, delayMs: 1 })
    const program = lab.exec('a', ['cat'], { stdio: ['pipe', 'pipe', 'inherit'] })
    program.stdin.write('there\\n')
    program.stdout.once('data', () => console.log(JSON.stringify([program.pid, ...lab.holders])))
  `
  const owner = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = (await once(owner.stdout, 'data')) as [Buffer]
  const pids: number[] = JSON.parse(line.toString())
  assert.ok(pids.length > 3 && pids.every((pid) => existsSync(`/proc/${pid}`)))
  owner.kill('SIGKILL')
  const deadline = AbortSignal.timeout(10_000)
  while (pids.some((pid) => existsSync(`/proc/${pid}`))) await delay(20, undefined, { signal: deadline })
})
