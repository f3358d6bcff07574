import assert from 'node:assert/strict'
import { randomBytes, sign } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { publicKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromString } from '@libp2p/peer-id'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { createLog } from '../../src/log.ts'
import { type Identity, peerIdOf, privateKeyOf } from '../../src/trust/identity.ts'
import {
  announcementOf,
  formatAnswer,
  parseAnswer,
  type RotationAnswer,
  verifyAnnouncement,
} from '../../src/trust/rotation.ts'
import { readRotationProgress, writeRotationProgress } from '../../src/trust/rotation-progress.ts'
import { announceOver, receiveOver } from '../../src/trust/rotation-stream.ts'
import { openTrustStore, type TrustChange, type TrustStore } from '../../src/trust/trust-store.ts'
import { CarrierPair, randomFrom } from '../support/carrier.ts'

const identityOf = (fill: number): Identity => {
  const seed = new Uint8Array(32).fill(fill)
  return { seed, peerId: peerIdOf(seed) }
}
const [OLD, NEXT, OTHER] = [identityOf(1), identityOf(2), identityOf(3)]
const RECEIVER = identityOf(4).peerId
const [ANNA, NEW, WALL] = [OLD.peerId, NEXT.peerId, OTHER.peerId]
const NOW = Date.UTC(2029, 0, 1)
const DATE = '2029-01-01T00:00:00Z'
const soon = () => AbortSignal.timeout(10_000)
const between = { announcer: ANNA, receiver: RECEIVER }

test('an announcement is what the head of the file says, byte by byte', async () => {
  const bytes = announcementOf(OLD, NEXT, RECEIVER)
  const statement = Buffer.from(`/farport/rotate/1\0${ANNA}${NEW}${RECEIVER}`)
  assert.equal(statement.length, 18 + 3 * 52)
  // Ed25519 as libp2p does it, with the keys as libp2p reads them out of the PeerIDs.
  for (const [peerId, at] of [
    [NEW, 32],
    [ANNA, 96],
  ] as const) {
    const { publicKey } = peerIdFromString(peerId)
    assert.ok(publicKey !== undefined)
    assert.ok(await publicKey.verify(statement, bytes.subarray(at, at + 64)))
  }
  assert.equal(bytes.length, 160)
  const { publicKey } = peerIdFromString(NEW)
  assert.deepEqual(publicKeyFromRaw(bytes.slice(0, 32)), publicKey)
})

test('an announcement is good for its two keys and its receiver, and nothing else', () => {
  const bytes = announcementOf(OLD, NEXT, RECEIVER)
  assert.equal(verifyAnnouncement(bytes, between), NEW)
  assert.equal(verifyAnnouncement(bytes, { ...between, receiver: WALL }), undefined, 'another receiver')
  assert.equal(verifyAnnouncement(bytes, { ...between, announcer: WALL }), undefined, 'another announcer')
  assert.equal(verifyAnnouncement(announcementOf(OLD, OLD, RECEIVER), between), undefined, 'the same key')
  // Who has the old key alone can't put a key of somebody else in its place, nor the other way round.
  const statement = Buffer.from(`/farport/rotate/1\0${ANNA}${NEW}${RECEIVER}`)
  const byOld = sign(null, statement, privateKeyOf(OLD.seed))
  const byNext = sign(null, statement, privateKeyOf(NEXT.seed))
  const publicKey = bytes.subarray(0, 32)
  for (const signatures of [
    [byOld, byOld],
    [byNext, byNext],
    [byOld, byNext],
  ])
    assert.equal(verifyAnnouncement(Buffer.concat([publicKey, ...signatures]), between), undefined)
  assert.equal(verifyAnnouncement(Buffer.concat([publicKey, byNext, byOld]), between), NEW)
})

test('whatever else arrives proves nothing, and no bytes do more than that', () => {
  const bytes = announcementOf(OLD, NEXT, RECEIVER)
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Uint8Array.from(bytes)
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7))
    assert.equal(verifyAnnouncement(flipped, between), undefined, `bit ${bit}`)
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (hostile) => {
      try {
        assert.equal(verifyAnnouncement(hostile, between), undefined)
        assert.equal(hostile.length, 160)
      } catch (error) {
        assert.ok(error instanceof FarportError && error.code === 'ERR_PROTOCOL', String(error))
        assert.notEqual(hostile.length, 160)
      }
    }),
  )
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 160, maxLength: 160 }), (hostile) => {
      assert.equal(verifyAnnouncement(hostile, between), undefined)
    }),
  )
})

test('an answer is one byte of those that are known', () => {
  const answers: RotationAnswer[] = [
    'accepted',
    'unproven',
    'untrusted',
    'taken',
    'revoked',
    'later',
    'unwritable',
  ]
  for (const [byte, answer] of answers.entries()) {
    assert.deepEqual([...formatAnswer(answer)], [byte])
    assert.equal(parseAnswer(Uint8Array.of(byte)), answer)
  }
  for (const bytes of [[], [answers.length], [255], [0, 0]])
    assert.throws(() => parseAnswer(Uint8Array.from(bytes)), { code: 'ERR_PROTOCOL' })
})

test('told over a stream, cut anywhere', async () => {
  for (let seed = 0; seed < 20; seed++) {
    using pair = new CarrierPair({ random: randomFrom(seed) })
    const heard: (string | undefined)[] = []
    const received = receiveOver(pair.b, {
      ...between,
      decide: async (next) => {
        heard.push(next)
        return 'taken'
      },
      signal: soon(),
    })
    const told = { identity: OLD, next: NEXT, receiver: RECEIVER, signal: soon() }
    assert.equal(await announceOver(pair.a, told), 'taken')
    await received
    assert.deepEqual(heard, [NEW])
    assert.ok(pair.a.destroyed && pair.b.destroyed)
  }
})

test('a peer that breaks off, says too much or nothing is not waited for', async () => {
  const never = async (): Promise<RotationAnswer> => assert.fail('nothing was announced')
  const ends: [what: Uint8Array | undefined, code: string | RegExp][] = [
    [randomBytes(159), /in the middle/],
    [randomBytes(161), /more than a message/],
    [randomBytes(60_000), /more than a message/],
  ]
  for (const [bytes, message] of ends) {
    using pair = new CarrierPair()
    pair.a.on('error', () => {})
    const received = receiveOver(pair.b, { ...between, decide: never, signal: soon() })
    pair.a.end(bytes)
    await assert.rejects(received, { code: 'ERR_PROTOCOL', message })
    assert.ok(pair.b.destroyed)
  }
  using silent = new CarrierPair()
  const stop = new AbortController()
  const received = receiveOver(silent.b, { ...between, decide: never, signal: stop.signal })
  stop.abort(new Error('enough'))
  await assert.rejects(received, /enough/)
  using mute = new CarrierPair()
  const told = announceOver(mute.a, { identity: OLD, next: NEXT, receiver: RECEIVER, signal: soon() })
  mute.b.resume().end()
  await assert.rejects(told, { code: 'ERR_PROTOCOL' })
})

async function homeWith(
  t: TestContext,
  content: string,
  revoked?: string,
): Promise<{ home: string; file: () => Promise<string>; revokedFile: () => Promise<string> }> {
  const home = await mkdtemp(join(tmpdir(), 'farport-rotate-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  await writeFile(join(home, 'trusted_peers'), content, { mode: 0o600 })
  if (revoked !== undefined) await writeFile(join(home, 'revoked_peers'), revoked, { mode: 0o600 })
  const read = (name: string) => readFile(join(home, name), 'utf8').catch(() => '')
  return { home, file: () => read('trusted_peers'), revokedFile: () => read('revoked_peers') }
}

async function storeOf(t: TestContext, home: string): Promise<TrustStore> {
  const store = await openTrustStore(home, { log: createLog('silent'), clock: () => NOW })
  t.after(() => store[Symbol.asyncDispose]())
  return store
}

const entries = (text: string) => text.split('\n').filter((line) => /^12D3/.test(line))

test('noted, used, and then the only one: the line keeps all but its key', async (t) => {
  const addr = `/ip4/192.0.2.7/tcp/4001/p2p/${ANNA},/dns4/r.example/tcp/1/p2p/${WALL}/p2p-circuit`
  const options = 'ports=gps may=use expires=2040-01-01'
  const before = `# mine\r\nanna ${ANNA} ${options} addr=${addr}\t# the blue one\r\nwall ${WALL} ports=*\r\n`
  const { home, file, revokedFile } = await homeWith(t, before)
  const store = await storeOf(t, home)
  const changes: TrustChange[] = []
  store.on('change', (change) => changes.push(change))

  assert.deepEqual(await store.announce(ANNA, NEW), { answer: 'noted' })
  assert.equal(await file(), before.replace('\t#', ` next=${NEW}\t#`))
  assert.deepEqual(
    [ANNA, NEW].map((key) => [store.admits(key), store.byId(key)?.name, [...store.rights(key, 'gps')]]),
    [ANNA, NEW].map(() => [true, 'anna', ['watch', 'use']]),
  )
  assert.deepEqual(
    store.peers().map(({ name }) => name),
    ['anna', 'wall'],
  )
  assert.deepEqual(await store.announce(ANNA, NEW), { answer: 'known' })

  assert.equal(await store.promote(NEW), ANNA)
  const after = before.replaceAll(`/p2p/${ANNA}`, '').replace(ANNA, NEW)
  assert.equal(await file(), after)
  assert.deepEqual(entries(await revokedFile()), [`${ANNA}  # anna, revoked ${DATE}`])
  assert.deepEqual([store.admits(ANNA), store.admits(NEW)], [false, true])
  assert.equal(await store.promote(NEW), undefined, 'once')
  assert.deepEqual(changes, [
    { added: [NEW], removed: [], narrowed: [] },
    { added: [], removed: [ANNA], narrowed: [] },
  ])

  // A backup of the file does not bring the old key back.
  await writeFile(join(home, 'trusted_peers'), before)
  await store.refresh()
  assert.equal(store.admits(ANNA), false)
})

test('what a relay is called in the addresses of others follows its key', async (t) => {
  const via = (relay: string) => `addr=/dns4/r.example/tcp/4001/p2p/${relay}/p2p-circuit`
  const content = (key: string) => `relay ${key} may=relay\nwall ${WALL} ${via(key)}  # ${via(ANNA)}\n`
  const { home, file } = await homeWith(t, content(ANNA))
  const store = await storeOf(t, home)
  await store.announce(ANNA, NEW)
  await store.promote(NEW)
  assert.equal(await file(), content(NEW))
})

test('what is refused changes nothing', async (t) => {
  const anna = `anna ${ANNA} ports=gps`
  const cases: { name: string; content: string; revoked?: string; answer: string }[] = [
    { name: 'no line', content: `wall ${WALL}\n`, answer: 'untrusted' },
    { name: 'expired', content: `${anna} expires=2028-01-01\n`, answer: 'untrusted' },
    { name: 'a refused line', content: `${anna} may=al\n`, answer: 'untrusted' },
    { name: 'revoked', content: `${anna}\n`, revoked: `${ANNA}\n`, answer: 'untrusted' },
    { name: 'a revoked new key', content: `${anna}\n`, revoked: `${NEW}\n`, answer: 'revoked' },
    { name: 'in another line', content: `${anna}\nwall ${NEW} ports=*\n`, answer: 'taken' },
    { name: 'in a refused line', content: `wall ${NEW} may=all\n${anna}\n`, answer: 'taken' },
    { name: 'in an expired line', content: `${anna}\nwall ${NEW} expires=2020-01-01\n`, answer: 'taken' },
    { name: 'announced by another', content: `${anna}\nwall ${WALL} next=${NEW}\n`, answer: 'taken' },
    { name: 'announced in a refused line', content: `${anna}\nw nobody next=${NEW}\n`, answer: 'taken' },
    {
      name: 'the announced key announces',
      content: `wall ${WALL} next=${ANNA} ports=gps\n`,
      answer: 'untrusted',
    },
  ]
  for (const { name, content, revoked, answer } of cases) {
    const { home, file } = await homeWith(t, content, revoked)
    const store = await storeOf(t, home)
    assert.equal((await store.announce(ANNA, NEW)).answer, answer, name)
    assert.equal(await file(), content, name)
    assert.equal(await store.promote(NEW), name === 'announced by another' ? WALL : undefined, name)
  }
})

test('a later announcement takes the place of one that was not used; one that was used is for good', async (t) => {
  const { home, file } = await homeWith(t, `anna ${ANNA} ports=gps\n`)
  const store = await storeOf(t, home)
  await store.announce(ANNA, WALL)
  assert.deepEqual(await store.announce(ANNA, NEW), { answer: 'noted', before: WALL })
  assert.equal(await file(), `anna ${ANNA} ports=gps next=${NEW}\n`)
  assert.equal(store.admits(WALL), false)
  await store.promote(NEW)
  assert.deepEqual(await store.announce(ANNA, WALL), { answer: 'untrusted' })
  assert.deepEqual(await store.announce(NEW, ANNA), { answer: 'revoked' }, 'never back')
})

test('an announced key goes with its peer: revoked under any of three names, gone with the line, expired with it', async (t) => {
  const content = `anna ${ANNA} ports=gps next=${NEW}\n`
  for (const word of ['anna', ANNA, NEW]) {
    const { home, file, revokedFile } = await homeWith(t, content)
    const store = await storeOf(t, home)
    assert.equal(store.admits(NEW), true)
    const revoked = await store.revoke([word])
    assert.deepEqual(
      revoked.map(({ peerId, name, lineStays }) => [peerId, name, lineStays]),
      [
        [NEW, 'anna', false],
        [ANNA, 'anna', false],
      ],
    )
    assert.deepEqual([store.admits(ANNA), store.admits(NEW)], [false, false])
    assert.equal(await file(), '')
    assert.equal(entries(await revokedFile()).length, 2)
    await writeFile(join(home, 'trusted_peers'), content)
    await store.refresh()
    assert.deepEqual([store.admits(ANNA), store.admits(NEW)], [false, false], 'a restored backup')
  }
  const { home } = await homeWith(t, content, `${NEW}\n`)
  const store = await storeOf(t, home)
  assert.deepEqual(
    [store.admits(ANNA), store.admits(NEW)],
    [false, false],
    'one key revoked is the line refused',
  )
  await writeFile(join(home, 'trusted_peers'), content.replace('gps', 'gps expires=2028-12-30'))
  await store.refresh()
  assert.equal(store.admits(NEW), false)
})

test('pairing again with a peer that has announced a key leaves that in force', async (t) => {
  const { home, file } = await homeWith(t, `anna ${ANNA} ports=gps next=${NEW}\n`)
  const store = await storeOf(t, home)
  await store.record({ name: 'x', peerId: ANNA, ports: ['plc'], may: ['watch'], addrs: [] })
  assert.equal(await file(), `anna ${ANNA} ports=plc may=watch next=${NEW}\n`)
})

test('whatever is in the file, a rotation leaves the other lines as they were', async (t) => {
  const { home } = await homeWith(t, '')
  const path = join(home, 'trusted_peers')
  const store = await storeOf(t, home)
  const name = fc.constantFrom('anna', 'wall', 'x', '-', '#')
  const id = fc.constantFrom(ANNA, NEW, WALL, 'nobody')
  const options = fc.constantFrom(
    '',
    'ports=gps',
    'may=',
    `next=${NEW}`,
    `next=${WALL}`,
    `next=${ANNA}`,
    'next=',
  )
  const line = fc.oneof(
    fc.tuple(name, id, options, options).map((fields) => fields.join(' ')),
    fc.constantFrom('', '# anna', ' \t', `anna ${ANNA} ports=gps`),
    fc.constant(`anna ${ANNA} ports=gps # hers`),
  )
  let [noted, promoted] = [0, 0]
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 5 }), async (lines) => {
      const before = lines.join('\n')
      await writeFile(path, before)
      await rm(join(home, 'revoked_peers'), { force: true })
      await store.refresh()
      const { answer } = await store.announce(ANNA, NEW)
      const meanwhile = await readFile(path, 'utf8')
      if (answer !== 'noted') assert.equal(meanwhile, before)
      else noted++
      assert.equal(store.byId(ANNA)?.next === NEW, answer === 'noted' || answer === 'known')
      const old = await store.promote(NEW)
      if (old === ANNA) {
        promoted++
        assert.equal(store.byId(NEW)?.peerId, NEW)
        // It ends the last line, should it have had no end.
        const linesOf = (content: string) => content.replace(/\n$/, '').split('\n')
        const [was, is] = [linesOf(before), linesOf(await readFile(path, 'utf8'))]
        const rewritten = is.filter((text, i) => text !== was[i])
        assert.equal(is.length, was.length)
        assert.equal(rewritten.length, 1)
        assert.ok(rewritten[0]?.includes(NEW) && !rewritten[0].includes(ANNA))
      }
      assert.equal(store.byId(NEW)?.next === NEW, false)
    }),
    { numRuns: 150 },
  )
  assert.ok(noted > 5 && promoted > 5, `${noted} noted, ${promoted} promoted`)
})

test('who knows the next key is remembered for that key alone', async (t) => {
  const { home } = await homeWith(t, '')
  assert.deepEqual(await readRotationProgress(home, NEW), new Set())
  await writeRotationProgress(home, NEW, [ANNA, WALL])
  assert.deepEqual(await readRotationProgress(home, NEW), new Set([ANNA, WALL]))
  assert.deepEqual(await readRotationProgress(home, WALL), new Set())
  const path = join(home, 'identity.next.peers')
  await writeFile(path, `${NEW}\n${ANNA.slice(1)}\n${WALL}\n\0\n`)
  assert.deepEqual(await readRotationProgress(home, NEW), new Set([WALL]))
  await assert.rejects(writeRotationProgress(join(home, 'none'), NEW, []), { code: 'ERR_HOME' })
})
