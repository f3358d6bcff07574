/** What a pairing leaves in trusted_peers: the line that is meant, or none, whatever happens on the way. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmod,
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { FarportError } from '../../src/errors.ts'
import { createLog } from '../../src/log.ts'
import { Invites } from '../../src/trust/invites.ts'
import { joinInvite, recordPeer, serveInvite } from '../../src/trust/pair-stream.ts'
import { inviteSentence } from '../../src/trust/pairing-sentences.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { openTrustStore, type TrustChange, type TrustStore } from '../../src/trust/trust-store.ts'
import { formatTrustedPeer, parseTrustedPeers, type TrustedPeer } from '../../src/trust/trusted-peers.ts'
import { CarrierPair } from '../support/carrier.ts'
import { ANNA, ANNA_TERMS, INVITE_ID, MALLORY, SECRET, WORKSHOP, WORKSHOP_TERMS } from './pairing-ends.ts'

const never = new AbortController().signal
const root = process.getuid?.() === 0
const NOW = Date.UTC(2029, 0, 1)
const peer: TrustedPeer = { name: 'anna', peerId: ANNA, ports: ['gps'], may: ['watch', 'use'], addrs: [] }
const LINE = `anna ${ANNA} ports=gps may=use`
const WALL = `wall ${MALLORY} ports=*   may=watch # by the door`

async function homeWith(
  t: TestContext,
  content?: string | Uint8Array,
): Promise<{ home: string; path: string }> {
  const home = await mkdtemp(join(tmpdir(), 'farport-commit-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  const path = join(home, 'trusted_peers')
  if (content !== undefined) await writeFile(path, content, { mode: 0o600 })
  return { home, path }
}

async function storeOf(t: TestContext, home: string): Promise<TrustStore> {
  const store = await openTrustStore(home, { log: createLog('silent'), clock: () => NOW })
  t.after(() => store[Symbol.asyncDispose]())
  return store
}

/** What becomes of a file when `peer` has paired. */
const records: { name: string; peer?: Partial<TrustedPeer>; before: string; after: string }[] = [
  { name: 'a new peer', before: `${WALL}\n`, after: `${WALL}\n${LINE}\n` },
  { name: 'the first', before: '', after: `${LINE}\n` },
  { name: 'a file that does not end its last line', before: WALL, after: `${WALL}\n${LINE}\n` },
  {
    name: 'a name that is taken',
    peer: { name: 'wall' },
    before: `${WALL}\n`,
    after: `${WALL}\nwall-2 ${ANNA} ports=gps may=use\n`,
  },
  {
    name: 'a name whose second is taken too, by a line that is refused',
    peer: { name: 'wall' },
    before: `${WALL}\nwall-2 nobody\n`,
    after: `${WALL}\nwall-2 nobody\nwall-3 ${ANNA} ports=gps may=use\n`,
  },
  {
    name: 'the longest of names, taken',
    peer: { name: 'w'.repeat(64) },
    before: `${'w'.repeat(64)} ${MALLORY}\n`,
    after: `${'w'.repeat(64)} ${MALLORY}\n${'w'.repeat(62)}-2 ${ANNA} ports=gps may=use\n`,
  },
  {
    name: 'a wider grant in place of a narrow one; name, place, comment and line end stay',
    before: `# ours\r\nbench  ${ANNA}\tports=gps may=watch \t# Anna's # laptop\r\n${WALL}\r\n`,
    after: `# ours\r\nbench ${ANNA} ports=gps may=use\t# Anna's # laptop\r\n${WALL}\r\n`,
  },
  {
    name: 'a narrower grant in place of a wide one, and the new expiry in place of the old',
    peer: { expires: Date.UTC(2030, 0, 1) },
    before: `bench ${ANNA} ports=* may=use,steal,relay expires=2040-01-01\n`,
    after: `bench ${ANNA} ports=gps may=use expires=2029-12-31\n`,
  },
  {
    name: 'no expiry in place of one',
    before: `bench ${ANNA} ports=* expires=2020-01-01\n`,
    after: `bench ${ANNA} ports=gps may=use\n`,
  },
  {
    name: 'nothing granted: the grant of the other direction stays, the address is new',
    peer: { ports: [], may: [], addrs: ['/ip4/192.0.2.7/tcp/4001'] },
    before: `bench ${ANNA} ports=gps,plc expires=2040-01-01 addr=/ip4/192.0.2.1/tcp/4001\n`,
    after: `bench ${ANNA} ports=gps,plc expires=2040-01-01 addr=/ip4/192.0.2.7/tcp/4001\n`,
  },
  {
    name: 'nothing granted: what has expired does not stay, and the old address does',
    peer: { ports: [], may: [] },
    before: `bench ${ANNA} ports=gps expires=2028-01-01 addr=/ip4/192.0.2.1/tcp/4001\n`,
    after: `bench ${ANNA} addr=/ip4/192.0.2.1/tcp/4001\n`,
  },
  {
    name: 'a refused line of this peer is mended, and keeps the name that a wider line below also claims',
    before: `wall ${ANNA} ports=gps may=wach\n${WALL}\n`,
    after: `wall ${ANNA} ports=gps may=use\n${WALL}\n`,
  },
  {
    name: 'a refused line without a name of its own gets a free one',
    before: `${WALL}\n-x ${ANNA}\nanna nobody\n`,
    after: `${WALL}\nanna-2 ${ANNA} ports=gps may=use\nanna nobody\n`,
  },
  {
    name: 'a refused line whose name belongs to another gets a free one',
    before: `${WALL}\nwall ${ANNA}\nanna nobody\n`,
    after: `${WALL}\nanna-2 ${ANNA} ports=gps may=use\nanna nobody\n`,
  },
]
for (const { name, peer: changed, before, after } of records)
  test(`recorded: ${name}`, async (t) => {
    const { home, path } = await homeWith(t, before)
    const store = await storeOf(t, home)
    const written = await store.record({ ...peer, ...changed })
    assert.equal(await readFile(path, 'utf8'), after)
    assert.deepEqual(store.byId(ANNA), written)
    // Once more changes nothing.
    await store.record({ ...peer, ...changed })
    assert.equal(await readFile(path, 'utf8'), after)
  })

test('recorded: bytes of no meaning, a byte order mark, mode, owner and link stay', async (t) => {
  const odd = Buffer.concat([
    Buffer.from(`\uFEFFanna ${ANNA} # né\n# caf`),
    Buffer.of(0xe9, 0x0a),
    Buffer.from(`${WALL}\n\n`),
  ])
  const elsewhere = await homeWith(t, odd)
  const { home, path } = await homeWith(t)
  await symlink(elsewhere.path, path)
  await chmod(elsewhere.path, 0o640)
  if (root) await chown(elsewhere.path, 0, 12)
  await (await storeOf(t, home)).record(peer)
  const after = odd.toString('latin1').replace(`anna ${ANNA}`, LINE)
  assert.equal(await readFile(elsewhere.path, 'latin1'), after)
  assert.ok((await lstat(path)).isSymbolicLink())
  const { mode, gid } = await stat(elsewhere.path)
  assert.equal(mode & 0o777, 0o640)
  if (root) assert.equal(gid, 12)
})

test('recorded: a narrower grant is told to who has ports open', async (t) => {
  const { home } = await homeWith(t, `anna ${ANNA} ports=gps,plc\n`)
  const store = await storeOf(t, home)
  const changes: TrustChange[] = []
  store.on('change', (change) => changes.push(change))
  await store.record(peer)
  assert.deepEqual(changes, [{ added: [], removed: [], narrowed: [ANNA] }])
})

test('added twice is refused, recorded twice is not', async (t) => {
  const { home, path } = await homeWith(t, `${LINE}\n`)
  const store = await storeOf(t, home)
  await assert.rejects(store.add({ ...peer, name: 'bench' }), { code: 'ERR_USAGE' })
  await assert.rejects(store.add(peer), { code: 'ERR_USAGE' })
  await store.record(peer)
  assert.equal(await readFile(path, 'utf8'), `${LINE}\n`)
})

test('recorded: many at once by one name are all there, each by its own', async (t) => {
  const { home } = await homeWith(t)
  const store = await storeOf(t, home)
  const ids = [11, 12, 13, 14].map((n) => formatPeerId(new Uint8Array(32).fill(n)))
  await Promise.all(ids.map((peerId) => store.record({ ...peer, peerId })))
  assert.deepEqual(
    store.peers().map(({ name, peerId }) => [name, peerId]),
    ids.map((peerId, i) => [i === 0 ? 'anna' : `anna-${i + 1}`, peerId]),
  )
})

test('recorded: whatever is in the file, the other lines mean what they meant', async (t) => {
  const { home, path } = await homeWith(t, '')
  const store = await storeOf(t, home)
  const name = fc.constantFrom('anna', 'anna-2', 'wall', '-', '#')
  const id = fc.constantFrom(ANNA, MALLORY, WORKSHOP, 'nobody')
  const options = fc.constantFrom('', 'ports=gps', 'ports=*', 'may=steal', 'may=', 'ports=gps ports=gps', '#')
  const line = fc.oneof(
    fc.tuple(name, id, options).map((fields) => fields.join(' ')),
    fc.constantFrom('', '# anna', ' \t', '\r'),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 8 }), fc.constantFrom('\n', '\r\n'), async (lines, end) => {
      const before = lines.join(end)
      await writeFile(path, before)
      const written = await store.record(peer)
      const others = (content: string) =>
        parseTrustedPeers(content).peers.filter(({ peerId }) => peerId !== ANNA)
      const after = await readFile(path, 'utf8')
      assert.deepEqual(others(after), others(before))
      assert.deepEqual(
        parseTrustedPeers(after).peers.find(({ peerId }) => peerId === ANNA),
        written,
      )
      assert.deepEqual({ ...written, name: 'anna' }, peer)
    }),
  )
})

/** An inviter's machine in this process, with one invite open, whose screen is `said`. */
function inviterOf(t: TestContext, store: TrustStore): { invites: Invites; said: string[] } {
  const invites = new Invites({ self: WORKSHOP, record: recordPeer(store) })
  t.after(() => invites[Symbol.dispose]())
  const said: string[] = []
  invites.on('paired', (_id, joined) => said.push(inviteSentence({ type: 'paired', peer: joined })))
  invites.on('unrecorded', (_id, error) => said.push(inviteSentence({ type: 'unrecorded', error })))
  invites.on('ended', (_id, how) => said.push(inviteSentence({ type: 'ended', how })))
  invites.open({ id: INVITE_ID, secret: SECRET, terms: WORKSHOP_TERMS })
  return { invites, said }
}

function joinOver(stream: Duplex) {
  const anna = { self: ANNA, inviter: WORKSHOP, inviteId: INVITE_ID, secret: SECRET, terms: ANNA_TERMS }
  return joinInvite(stream, { ...anna, signal: never })
}

test('both ends write their lines, and neither file is anything but its lines', async (t) => {
  const [theirs, ours] = [await homeWith(t), await homeWith(t)]
  const { invites, said } = inviterOf(t, await storeOf(t, theirs.home))
  using pair = new CarrierPair()
  const served = serveInvite(pair.b, { self: WORKSHOP, joiner: ANNA, invites, signal: never })
  const joined = await joinOver(pair.a)
  await recordPeer(await storeOf(t, ours.home))(joined.peer)
  await served
  const annas = `anna ${ANNA} ports=gps,plc-* may=use,configure expires=2029-12-31\n`
  assert.equal(await readFile(theirs.path, 'utf8'), annas)
  assert.equal(
    await readFile(ours.path, 'utf8'),
    `workshop ${WORKSHOP} addr=${WORKSHOP_TERMS.addrs.join()}\n`,
  )
  assert.deepEqual(said, [
    'the invite has been used',
    `paired with anna (${ANNA}): it may use gps, plc-* (watch, use, configure) until 2030-01-01T00:00:00.000Z`,
  ])
})

/** Nobody is trusted, nothing is left behind, and both sides are told. */
async function assertRefusedWhole(t: TestContext, home: string, sentence: RegExp): Promise<void> {
  const path = join(home, 'trusted_peers')
  await using store = await openTrustStore(home, { log: createLog('silent') })
  const { invites, said } = inviterOf(t, store)
  using pair = new CarrierPair()
  const [, joined] = await Promise.allSettled([
    serveInvite(pair.b, { self: WORKSHOP, joiner: ANNA, invites, signal: never }),
    joinOver(pair.a),
  ])
  const error = joined.status === 'rejected' ? joined.reason : undefined
  assert.ok(error instanceof FarportError && /could not note down/.test(error.message), String(error))
  assert.equal(said[0], 'the invite has been used')
  assert.match(said[1] ?? '', sentence)
  assert.equal(await readFile(path, 'utf8'), `${WALL}\n`)
  assert.deepEqual(
    (await readdir(home)).toSorted(),
    (await readdir(home)).filter((name) => !/tmp/.test(name)),
  )
}

/** A small file system of its own, which only root can have. */
async function smallDisk(t: TestContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'farport-disk-'))
  const mounted = spawnSync('/bin/mount', ['-t', 'tmpfs', '-o', 'size=16k,mode=700', 'tmpfs', home])
  t.after(async () => {
    // Lazily: a last look at the file may still be under way.
    const { status, stderr } = spawnSync('/bin/umount', ['-l', home])
    assert.equal(status, 0, String(stderr))
    await rm(home, { recursive: true })
  })
  assert.equal(mounted.status, 0, String(mounted.stderr))
  await writeFile(join(home, 'trusted_peers'), `${WALL}\n`, { mode: 0o600 })
  return home
}

const cannotMount = process.platform === 'linux' && root ? false : 'only root can mount a small disk on Linux'
if (cannotMount && process.env.CI && process.platform === 'linux') throw new Error(cannotMount)

test('a full disk', { skip: cannotMount }, async (t) => {
  const home = await smallDisk(t)
  await assert.rejects(writeFile(join(home, 'filler'), Buffer.alloc(64 * 1024)), { code: 'ENOSPC' })
  await assertRefusedWhole(t, home, /trusted_peers can't be written \(the disk is full\)/)
})

test('a read-only disk', { skip: cannotMount }, async (t) => {
  const home = await smallDisk(t)
  assert.equal(spawnSync('/bin/mount', ['-o', 'remount,ro', home]).status, 0)
  await assertRefusedWhole(t, home, /trusted_peers can't be written \(EROFS\)/)
})

test('a home that we may not write into', { skip: root && 'root may write everywhere' }, async (t) => {
  const { home } = await homeWith(t, `${WALL}\n`)
  await chmod(home, 0o500)
  try {
    await assertRefusedWhole(t, home, /trusted_peers can't be written \(EACCES\)/)
  } finally {
    await chmod(home, 0o700)
  }
})

test('a home that is not there any more', async (t) => {
  const { home } = await homeWith(t)
  const inner = join(home, 'inner')
  await mkdir(inner)
  const store = await storeOf(t, inner)
  await rm(inner, { recursive: true })
  await assert.rejects(store.record(peer), { code: 'ERR_HOME', message: `there is no ${inner}` })
})

/** A child's steps up to the one at which it died, or all of them. */
async function stepsOf(child: ChildProcess, fatal: number): Promise<string[]> {
  assert.ok(child.stdout !== null)
  const [steps, [code, signal]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  assert.deepEqual([code, signal], fatal === 0 ? [0, null] : [null, 'SIGKILL'])
  return steps.trimEnd().split('\n')
}

/** commit-child.ts, which dies at that step; 0 lets it live. */
function startChild(t: TestContext, what: 'inviter' | 'joiner' | 'revoke', home: string, fatal: number) {
  const script = fileURLToPath(new URL('commit-child.ts', import.meta.url))
  const child = spawn(process.execPath, [script, what, home, String(fatal)], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  })
  t.after(() => child.kill('SIGKILL'))
  return child
}

/** Tries each step, two at a time. */
async function dieAtEach(steps: readonly string[], die: (fatal: number) => Promise<void>): Promise<void> {
  const left = steps.map((_, index) => index + 1)
  const worker = async () => {
    for (let fatal = left.shift(); fatal !== undefined; fatal = left.shift()) await die(fatal)
  }
  await Promise.all([worker(), worker()])
}

const DISK = ['created', 'half written', 'written', 'synced', 'closed']
const REPLACED = [...DISK, 'chmod', ...(root ? ['chown'] : []), 'rename', 'renamed']
const ANNAS = formatTrustedPeer({ ...WORKSHOP_TERMS, name: 'anna', peerId: ANNA, addrs: [] })

for (const [what, before, after] of [
  ['a new line', `${WALL}\n`, `${WALL}\n${ANNAS}\n`],
  [
    'a line in the place of another',
    `anna ${ANNA} ports=* may=steal # hers\n${WALL}\n`,
    `${ANNAS} # hers\n${WALL}\n`,
  ],
] as const)
  test(`killed at any step of the inviter's commit of ${what}: it is whole or not there, and who is told so is trusted`, async (t) => {
    /** The child's steps, and whether its joiner was told that it is trusted. */
    const pairWithInviter = async (home: string, fatal: number): Promise<[string[], boolean]> => {
      const child = startChild(t, 'inviter', home, fatal)
      const joining = joinOver(child.stdio[3] as Duplex).then(
        () => true,
        (error) => {
          assert.ok(error instanceof FarportError && /at the very end/.test(error.message), String(error))
          return false
        },
      )
      return [await stepsOf(child, fatal), await joining]
    }
    const whole = await homeWith(t, before)
    const [steps, joined] = await pairWithInviter(whole.home, 0)
    assert.equal(joined, true)
    assert.equal(await readFile(whole.path, 'utf8'), after)
    assert.deepEqual(steps, ['spent', ...REPLACED, 'recorded', 'told'])

    await dieAtEach(steps, async (fatal) => {
      const { home, path } = await homeWith(t, before)
      const [died, told] = await pairWithInviter(home, fatal)
      assert.deepEqual(died, steps.slice(0, fatal))
      const renamed = fatal > steps.indexOf('rename') + 1
      assert.equal(await readFile(path, 'utf8'), renamed ? after : before)
      // The other direction is harmless: we trust who does not trust us.
      assert.equal(told, steps[fatal - 1] === 'told')
      // What was left aside is in nobody's way.
      await using store = await openTrustStore(home, { log: createLog('silent') })
      assert.deepEqual(store.problems(), [])
      await store.record({ ...WORKSHOP_TERMS, name: 'anna', peerId: ANNA, addrs: [] })
      assert.equal(await readFile(path, 'utf8'), after)
    })
  })

test("killed at any step of the joiner's commit: its line is whole or not there", async (t) => {
  const before = `${WALL.replace('wall', 'bench')}\n`
  const after = `${before}workshop ${WORKSHOP} addr=${WORKSHOP_TERMS.addrs.join()}\n`
  const inviters = await homeWith(t)
  const store = await storeOf(t, inviters.home)
  const pairWithJoiner = async (home: string, fatal: number): Promise<string[]> => {
    const child = startChild(t, 'joiner', home, fatal)
    const { invites } = inviterOf(t, store)
    const stream = child.stdio[3] as Duplex
    stream.on('error', () => {})
    const [steps] = await Promise.all([
      stepsOf(child, fatal),
      serveInvite(stream, { self: WORKSHOP, joiner: ANNA, invites, signal: never }),
    ])
    return steps
  }
  const whole = await homeWith(t, before)
  const steps = await pairWithJoiner(whole.home, 0)
  assert.equal(await readFile(whole.path, 'utf8'), after)
  assert.deepEqual(steps, ['joined', ...REPLACED, 'recorded'])
  await dieAtEach(steps, async (fatal) => {
    const { home, path } = await homeWith(t, before)
    assert.deepEqual(await pairWithJoiner(home, fatal), steps.slice(0, fatal))
    assert.equal(await readFile(path, 'utf8'), fatal > steps.indexOf('rename') + 1 ? after : before)
    await using joiners = await openTrustStore(home, { log: createLog('silent') })
    assert.deepEqual(joiners.problems(), [])
  })
})

test('killed at any step of a revoke: nobody is let in again who was kept out, and to revoke again finishes it', async (t) => {
  const before = `${WALL}\n${LINE} # hers\n`
  const revoke = (home: string, fatal: number) => stepsOf(startChild(t, 'revoke', home, fatal), fatal)
  const whole = await homeWith(t, before)
  const steps = await revoke(whole.home, 0)
  assert.deepEqual(steps, ['begun', ...DISK, 'link', 'linked', 'rm', ...DISK, ...REPLACED, 'revoked'])
  assert.equal(await readFile(whole.path, 'utf8'), `${WALL}\n`)
  const remembered = steps.lastIndexOf('written', steps.indexOf('rename') - REPLACED.length)

  await dieAtEach(steps, async (fatal) => {
    const { home, path } = await homeWith(t, before)
    assert.deepEqual(await revoke(home, fatal), steps.slice(0, fatal))
    const renamed = fatal > steps.indexOf('rename') + 1
    assert.equal(await readFile(path, 'utf8'), renamed ? `${WALL}\n` : before)
    await using store = await openTrustStore(home, { log: createLog('silent') })
    assert.equal(store.admits(MALLORY), true, 'the others stay')
    if (fatal > remembered) assert.equal(store.admits(ANNA), false, `after ${steps[fatal - 1]}`)
    const cutOff = !store.admits(ANNA)
    await store.revoke([cutOff ? ANNA : 'anna'])
    assert.equal(store.admits(ANNA), false)
    assert.equal(await readFile(path, 'utf8'), `${WALL}\n`)
  })
})
