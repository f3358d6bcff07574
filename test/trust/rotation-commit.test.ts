/** Killed at any step of a rotation, either side: both homes work, and what they say of each other fits. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createLog } from '../../src/log.ts'
import { loadIdentity, loadNextIdentity, switchIdentity } from '../../src/trust/identity.ts'
import { formatPeerId } from '../../src/trust/peer-id.ts'
import { openTrustStore } from '../../src/trust/trust-store.ts'

/** With everybody's consent, or with `--now` while somebody is missing. */
type How = 'whole' | 'now'

interface Homes {
  home: string
  peerHome: string
  before: string
}

const lineOfShop = (peerId: string) => `shop ${peerId} addr=/ip4/127.0.0.1/tcp/1\n`
const LATE = `late ${formatPeerId(new Uint8Array(32).fill(7))} ports=gps\n`

async function homes(t: TestContext, missing = false): Promise<Homes> {
  const dir = await mkdtemp(join(tmpdir(), 'farport-rotation-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const [home, peerHome] = [join(dir, 'ours'), join(dir, 'theirs')]
  const { peerId } = await loadIdentity(home, { create: true })
  const shop = (await loadIdentity(peerHome, { create: true })).peerId
  await writeFile(join(home, 'trusted_peers'), lineOfShop(shop) + (missing ? LATE : ''), { mode: 0o600 })
  await writeFile(join(peerHome, 'trusted_peers'), `anna ${peerId} ports=gps # hers\n`, { mode: 0o600 })
  return { home, peerHome, before: peerId }
}

/** The steps until the child died, or all of them. */
async function rotateInChild(
  { home, peerHome }: Homes,
  side: 'ours' | 'theirs',
  fatal: number,
  how: How,
): Promise<string[]> {
  const script = fileURLToPath(new URL('rotation-child.ts', import.meta.url))
  const child = spawn(process.execPath, [script, home, peerHome, side, String(fatal), how], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [steps, [code, signal]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  assert.deepEqual([code, signal], fatal === 0 ? [0, null] : [null, 'SIGKILL'])
  return steps.trimEnd().split('\n')
}

async function dieAtEachStep(
  t: TestContext,
  side: 'ours' | 'theirs',
  check: (homes: Homes, end: 'last step' | 'midway') => Promise<void>,
  how: How = 'whole',
): Promise<string[]> {
  const missing = how === 'now'
  const steps = await rotateInChild(await homes(t, missing), side, 0, how)
  // Up to the first rename, which is of those who know the key, both ways are one.
  const left = steps.map((_, index) => index + 1).slice(missing ? steps.indexOf('rename') : 0)
  const worker = async () => {
    for (let fatal = left.shift(); fatal !== undefined; fatal = left.shift()) {
      const own = await homes(t, missing)
      const died = await rotateInChild(own, side, fatal, how)
      assert.deepEqual(died, steps.slice(0, fatal))
      await check(own, fatal === steps.length ? 'last step' : 'midway')
    }
  }
  await Promise.all([worker(), worker()])
  return steps
}

/** Whatever was left behind, the rotation can be brought to its end from here, with the same key if one was made. */
async function finish({ home, peerHome }: Homes): Promise<void> {
  await using store = await openTrustStore(peerHome, { log: createLog('silent') })
  const { peerId } = await loadIdentity(home, { create: false })
  await store.promote(peerId)
  const next = await loadNextIdentity(home, { create: true })
  const { answer } = await store.announce(peerId, next.peerId)
  assert.ok(answer === 'noted' || answer === 'known', answer)
  await switchIdentity(home, { keepOld: false })
  await store.promote(next.peerId)
  assert.equal((await loadIdentity(home, { create: false })).peerId, next.peerId)
  assert.deepEqual([store.admits(next.peerId), store.admits(peerId)], [true, false])
  assert.equal(
    await readFile(join(peerHome, 'trusted_peers'), 'utf8'),
    `anna ${next.peerId} ports=gps # hers\n`,
  )
}

for (const how of ['whole', 'now'] as const)
  test(`killed while our key changes (${how}): there is one key, whole, and the peer takes it`, async (t) => {
    const seen = { oldKey: 0, newKey: 0 }
    const steps = await dieAtEachStep(
      t,
      'ours',
      async (own) => {
        const { peerId } = await loadIdentity(own.home, { create: false })
        await using store = await openTrustStore(own.peerHome, { log: createLog('silent') })
        assert.deepEqual(store.problems(), [])
        assert.ok(store.admits(peerId), 'the key in the home is one that the peer takes')
        if (peerId === own.before) seen.oldKey++
        else {
          seen.newKey++
          assert.equal(store.byId(own.before)?.next, peerId)
          if (how === 'now') {
            const kept = await readFile(join(own.home, 'identity.old'), 'latin1')
            assert.match(kept, /^-----BEGIN PRIVATE KEY-----\n[^-]+-----END PRIVATE KEY-----\n$/)
          }
        }
        if (how === 'whole') await finish(own)
      },
      how,
    )
    assert.ok(seen.oldKey > 3 && seen.newKey > 1, 'the kills were on both sides of the switch')
    for (const step of ['half written', 'link', 'rename', 'rm']) assert.ok(steps.includes(step), step)
  })

test('killed while a peer notes and then takes our new key: it never shuts us out, and never goes back', async (t) => {
  let [both, one] = [0, 0]
  const steps = await dieAtEachStep(t, 'theirs', async (own, end) => {
    const now = (await loadIdentity(own.home, { create: false })).peerId
    await using store = await openTrustStore(own.peerHome, { log: createLog('silent') })
    // Half an entry of revoked_peers is one, which costs nothing; half a line would shut somebody out.
    assert.deepEqual(
      store.problems().filter(({ line }) => line > 0),
      [],
    )
    assert.ok(store.admits(now))
    assert.equal(store.byId(now)?.name, 'anna')
    if (store.byId(now)?.peerId === own.before) both++
    else {
      one++
      assert.equal(store.admits(own.before), false)
    }
    if (end === 'last step') assert.equal(store.revoked()[0]?.peerId, own.before)
    await finish(own)
  })
  assert.ok(both > 3 && one > 1, `${both} with the old key, ${one} with the new one alone`)
  assert.deepEqual(
    steps.filter((step) => step === 'rename' || step === 'link'),
    ['rename', 'rename', 'link'],
    'the line twice, and the first revocation',
  )
})

test('nothing of a rotation is left lying about', async (t) => {
  const own = await homes(t)
  await rotateInChild(own, 'ours', 0, 'whole')
  assert.deepEqual((await readdir(own.home)).toSorted(), ['identity.key', 'trusted_peers'])
  const other = await homes(t, true)
  await rotateInChild(other, 'ours', 0, 'now')
  assert.deepEqual((await readdir(other.home)).toSorted(), ['identity.key', 'identity.old', 'trusted_peers'])
})
