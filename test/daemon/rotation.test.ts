/** Keys that take another's place, between real nodes on the loopback. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { test as nodeTest, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { AuditEvent } from '../../src/daemon/audit-log.ts'
import { Peers } from '../../src/daemon/peers.ts'
import { Rotation } from '../../src/daemon/rotation.ts'
import { createLog } from '../../src/log.ts'
import { createOverlay, type Overlay } from '../../src/overlay/node.ts'
import { type Identity, loadIdentity, loadNextIdentity, peerIdOf } from '../../src/trust/identity.ts'
import { announcementOf, parseAnswer, ROTATE_PROTOCOL } from '../../src/trust/rotation.ts'
import { openTrustStore, type TrustStore } from '../../src/trust/trust-store.ts'

const test = (name: string, body: (t: TestContext) => Promise<void>) =>
  nodeTest(name, { timeout: 60_000 }, body)
const soon = () => AbortSignal.timeout(20_000)
const log = createLog('silent')
const STRANGER: Identity = (() => {
  const seed = new Uint8Array(32).fill(9)
  return { seed, peerId: peerIdOf(seed) }
})()

/** A machine: its home, and the node that runs there until it is stopped. */
class Machine implements AsyncDisposable {
  readonly home: string
  readonly audit: AuditEvent[] = []
  /** Set by start(). */
  identity!: Identity
  overlay!: Overlay
  trust!: TrustStore
  peers!: Peers
  rotation!: Rotation
  #stack = new AsyncDisposableStack()

  private constructor(home: string) {
    this.home = home
  }

  static async make(t: TestContext): Promise<Machine> {
    const home = await mkdtemp(join(tmpdir(), 'farport-rotation-'))
    const machine = new Machine(home)
    t.after(async () => {
      await machine.stop()
      await rm(home, { recursive: true, force: true })
    })
    machine.identity = await loadIdentity(home, { create: true })
    return machine
  }

  /** What of the daemon has to do with keys. */
  async start({ rotates = true } = {}): Promise<this> {
    const stack = this.#stack
    this.identity = await loadIdentity(this.home, { create: false })
    this.trust = stack.use(await openTrustStore(this.home, { log }))
    const { home, identity, trust } = this
    const admits = (peerId: string) => trust.admits(peerId)
    const listen = ['/ip4/127.0.0.1/tcp/0']
    const overlay = stack.use(await createOverlay({ seed: identity.seed, listen, admits, log }))
    this.overlay = overlay
    this.peers = new Peers(overlay, trust, () => {})
    const audit = { record: (event: AuditEvent) => void this.audit.push(event) }
    const options = { home, identity, overlay, trust, peers: this.peers, announces: true, audit, log }
    this.rotation = stack.use(new Rotation(options))
    if (rotates)
      await overlay.handle(ROTATE_PROTOCOL, (stream, from) => void this.rotation.serve(stream, from))
    await this.rotation.resume()
    trust.on('change', () => {
      for (const { peerId } of overlay.paths())
        if (!trust.admits(peerId)) void overlay.disconnect(peerId, 'no longer trusted')
    })
    return this
  }

  async stop(): Promise<void> {
    const stack = this.#stack
    this.#stack = new AsyncDisposableStack()
    await stack.disposeAsync()
  }

  async trusts(line: string): Promise<void> {
    await writeFile(join(this.home, 'trusted_peers'), `${line}\n`, { mode: 0o600 })
    await this.trust?.refresh()
  }

  get addr(): string {
    return this.overlay.addresses().map((address) => address.replace(/\/p2p\/.*/, ''))[0] as string
  }

  async file(name = 'trusted_peers'): Promise<string> {
    return await readFile(join(this.home, name), 'utf8').catch(() => '')
  }

  states(): string[] {
    return this.audit.map((event) => (event.event === 'rotate' ? event.state : event.event))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

/** Waits for what comes by an event elsewhere. */
async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + 10_000; performance.now() < deadline; await delay(10))
    if (await holds()) return
  assert.fail(`never: ${what}`)
}

/** Anna, who changes her key, and a workshop that she reaches. */
async function pair(t: TestContext, options = 'ports=gps'): Promise<{ anna: Machine; shop: Machine }> {
  const [anna, shop] = [await Machine.make(t), await Machine.make(t)]
  await shop.trusts(`anna ${anna.identity.peerId} ${options}`)
  await shop.start()
  await anna.trusts(`shop ${shop.identity.peerId} addr=${shop.addr}`)
  await anna.start()
  return { anna, shop }
}

async function connect(from: Machine, to: string): Promise<Duplex> {
  const peer = from.trust.byName(to)
  assert.ok(peer !== undefined)
  return (await from.peers.reach(peer, ROTATE_PROTOCOL, soon())).stream
}

test('told, switched, restarted, used: the peer goes over, and the old key is worth nothing', async (t) => {
  const { anna, shop } = await pair(t)
  const before = anna.identity
  const report = await anna.rotation.rotate({ now: false }, soon())
  const after = report.newPeerId
  assert.deepEqual(report, {
    switched: true,
    oldPeerId: before.peerId,
    newPeerId: after,
    peers: [{ name: 'shop', peerId: shop.identity.peerId, outcome: 'accepted' }],
  })
  assert.equal(await shop.file(), `anna ${before.peerId} ports=gps next=${after}\n`)
  assert.deepEqual((await readdir(anna.home)).toSorted(), ['identity.key', 'trusted_peers'])
  assert.deepEqual(anna.states(), ['accepted', 'switched'])
  assert.deepEqual(shop.audit, [{ event: 'rotate', peerId: before.peerId, next: after, state: 'announced' }])
  await assert.rejects(anna.rotation.rotate({ now: true }, soon()), {
    code: 'ERR_USAGE',
    message: /restart `farport share`/,
  })

  await anna.stop()
  await anna.start()
  assert.equal(anna.overlay.peerId, after)
  ;(await connect(anna, 'shop')).destroy()
  await until('the line goes over', async () => (await shop.file()) === `anna ${after} ports=gps\n`)
  await until('it is told', () => shop.states().at(-1) === 'in force')
  assert.match(await shop.file('revoked_peers'), new RegExp(`^${before.peerId} {2}# anna, revoked `, 'm'))

  // A thief, or a backup, with the old key.
  await anna.stop()
  const admits = () => true
  await using thief = await createOverlay({ seed: before.seed, listen: [], admits, log })
  await assert.rejects(
    thief.open(shop.identity.peerId, ROTATE_PROTOCOL, { addresses: [shop.addr], signal: soon() }),
    { code: 'ERR_NOT_TRUSTED' },
  )
})

test('who is not there holds it up, hears of it when it comes, and the next try ends it with the same key', async (t) => {
  const { anna, shop } = await pair(t)
  const late = await Machine.make(t)
  await anna.trusts(`${(await anna.file()).trim()}\nlate ${late.identity.peerId} ports=gps`)
  const first = await anna.rotation.rotate({ now: false }, soon())
  assert.equal(first.switched, false)
  assert.deepEqual(
    first.peers.map(({ name, outcome }) => [name, outcome]),
    [
      ['shop', 'accepted'],
      ['late', 'not reached'],
    ],
  )
  assert.match(first.peers[1]?.reason ?? '', /^late can't be reached: no address of it is known/)
  assert.equal((await loadIdentity(anna.home, { create: false })).peerId, anna.identity.peerId)

  // Also over a restart of anna's, and though the shop is gone by then.
  await anna.stop()
  await anna.start()
  await shop.stop()
  await late.trusts(`anna ${anna.identity.peerId} addr=${anna.addr}`)
  await late.start()
  ;(await connect(late, 'anna')).destroy()
  await until('late is told', async () => (await late.file()).includes(`next=${first.newPeerId}`))
  await until('it is noted', async () =>
    (await anna.file('identity.next.peers')).includes(late.identity.peerId),
  )

  const second = await anna.rotation.rotate({ now: false }, soon())
  assert.deepEqual([second.switched, second.newPeerId], [true, first.newPeerId])

  // And late, which has nothing but her address, finds her by the key she has now.
  const { addr } = anna
  await anna.stop()
  await anna.start()
  await late.trusts((await late.file()).trim().replace(addr, anna.addr))
  ;(await connect(late, 'anna')).destroy()
  await until('late goes over', async () => !(await late.file()).includes('next='))
  assert.match(await late.file(), new RegExp(`^anna ${first.newPeerId} addr=`))
})

test('with --now it does without who is missing, and keeps the way back', async (t) => {
  const { anna, shop } = await pair(t)
  await shop.stop()
  const old = await anna.file('identity.key')
  const report = await anna.rotation.rotate({ now: true }, soon())
  assert.deepEqual([report.switched, report.oldKey], [true, join(anna.home, 'identity.old')])
  assert.equal(report.peers[0]?.outcome, 'not reached')
  assert.equal(await anna.file('identity.old'), old)
  // Until anna is restarted, who comes by is still told.
  await shop.start()
  await anna.trusts(`shop ${shop.identity.peerId} addr=${shop.addr}`)
  ;(await connect(anna, 'shop')).destroy()
  await until('the shop is told', async () => (await shop.file()).includes(`next=${report.newPeerId}`))
  assert.deepEqual((await readdir(anna.home)).toSorted(), ['identity.key', 'identity.old', 'trusted_peers'])
})

test('a peer that refuses says why: expired, taken, revoked, another version', async (t) => {
  const cases: [options: string, extra: string, reason: RegExp][] = [
    ['', 'other NEXT ports=*', /another name/],
    ['', 'REVOKED', /has revoked the new key/],
  ]
  for (const [options, extra, reason] of cases) {
    const { anna, shop } = await pair(t, options)
    const next = await loadNextIdentity(anna.home, { create: true })
    if (extra === 'REVOKED')
      await writeFile(join(shop.home, 'revoked_peers'), `${next.peerId}\n`, { mode: 0o600 })
    else await shop.trusts(`${(await shop.file()).trim()}\n${extra.replace('NEXT', next.peerId)}`)
    const report = await anna.rotation.rotate({ now: false }, soon())
    assert.equal(report.switched, false)
    assert.deepEqual([report.newPeerId, report.peers[0]?.outcome], [next.peerId, 'refused'])
    assert.match(report.peers[0]?.reason ?? '', reason)
    assert.deepEqual(shop.states(), ['refuse'])
    await anna.stop()
    await shop.stop()
  }
  const { anna, shop } = await pair(t)
  await shop.stop()
  await shop.start({ rotates: false })
  await anna.trusts(`shop ${shop.identity.peerId} addr=${shop.addr}`)
  const report = await anna.rotation.rotate({ now: false }, soon())
  assert.match(report.peers[0]?.reason ?? '', /update farport there/)
  // A line that has expired over there is a closed door.
  await shop.trusts(`anna ${anna.identity.peerId} expires=2020-01-01`)
  const shut = await anna.rotation.rotate({ now: false }, soon())
  assert.equal(shut.peers[0]?.outcome, 'refused')
  assert.match(shut.peers[0]?.reason ?? '', /does not know this machine's key/)
})

/** Says these bytes as anna, and hears the answer; undefined when there is none. */
async function say(anna: Machine, bytes: Uint8Array): Promise<string | undefined> {
  const stream = await connect(anna, 'shop')
  stream.on('error', () => {})
  stream.end(bytes)
  try {
    for await (const chunk of stream) return parseAnswer(chunk as Uint8Array)
  } catch {}
  return undefined
}

test('what proves nothing, and what is too much, is refused and changes nothing', async (t) => {
  const { anna, shop } = await pair(t)
  const before = await shop.file()
  const to = shop.identity.peerId
  const good = announcementOf(anna.identity, STRANGER, to)
  assert.equal(await say(anna, announcementOf(anna.identity, STRANGER, anna.identity.peerId)), 'unproven')
  assert.equal(await say(anna, announcementOf(STRANGER, anna.identity, to)), 'unproven')
  assert.equal(await say(anna, randomBytes(160)), 'unproven')
  assert.equal(await say(anna, good.subarray(1)), undefined)
  assert.equal(await say(anna, announcementOf(anna.identity, shop.identity, to)), 'taken')
  assert.equal(await shop.file(), before)

  // All at once, so that none is over before the next begins.
  const fresh = Array.from({ length: 12 }, () => randomBytes(32))
  const answers = await Promise.all(
    fresh.map((seed) => say(anna, announcementOf(anna.identity, { seed, peerId: peerIdOf(seed) }, to))),
  )
  assert.deepEqual(answers.toSorted(), [...Array(8).fill('accepted'), ...Array(4).fill('later')])
  assert.equal(shop.states().filter((state) => state === 'announced').length, 8)
  const noted = await shop.file()
  assert.equal(await say(anna, good), 'later')
  // Nor is a used key a way around it.
  const last = fresh.find((seed) => noted.includes(peerIdOf(seed))) as Buffer
  const { addr } = shop
  await using later = await createOverlay({ seed: last, listen: [], admits: () => true, log })
  const { stream } = await later.open(to, ROTATE_PROTOCOL, { addresses: [addr], signal: soon() })
  stream.on('error', () => {})
  stream.end(announcementOf({ seed: last, peerId: peerIdOf(last) }, STRANGER, to))
  assert.equal(parseAnswer(((await once(stream, 'data')) as [Uint8Array])[0]), 'later')
  assert.equal(await shop.file(), `anna ${peerIdOf(last)} ports=gps\n`)
})

test('both change their keys at once', async (t) => {
  const { anna, shop } = await pair(t)
  await shop.trusts(`${(await shop.file()).trim()} addr=${anna.addr}`)
  const reports = await Promise.all([anna, shop].map((one) => one.rotation.rotate({ now: false }, soon())))
  assert.deepEqual(
    reports.map(({ switched }) => switched),
    [true, true],
  )
  await Promise.all([anna.stop(), shop.stop()])
  await shop.start()
  await anna.trusts((await anna.file()).trim().replace(/addr=\S+/, `addr=${shop.addr}`))
  await anna.start()
  ;(await connect(anna, 'shop')).destroy()
  const [annas, shops] = reports.map(({ newPeerId }) => newPeerId)
  await until('both have gone over', async () => {
    const files = `${await anna.file()}${await shop.file()}`
    return files.startsWith(`shop ${shops} `) && files.includes(`anna ${annas} `) && !files.includes('next=')
  })
})

test('a home that can not be used as it is holds up nothing but its rotation', async (t) => {
  const { anna } = await pair(t)
  await anna.stop()
  await writeFile(join(anna.home, 'identity.next'), 'nonsense', { mode: 0o600 })
  await anna.start()
  await assert.rejects(anna.rotation.rotate({ now: true }, soon()), {
    code: 'ERR_HOME',
    message: /identity\.next .*delete it/,
  })
  await writeFile(join(anna.home, 'identity.next'), await anna.file('identity.key'), { mode: 0o600 })
  const report = await anna.rotation.rotate({ now: false }, soon())
  assert.ok(
    report.switched && report.newPeerId !== report.oldPeerId,
    'a switch that had died on its last step',
  )
})
